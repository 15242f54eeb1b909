"""The benchmark: cases, metrics, resuming, processes and workers that are killed, bad input."""

from __future__ import annotations

import csv
import json
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import sigpy

from gadgets.stream import ReconError
from pipelines.evaluation import distribute, workers
from pipelines.evaluation.benchmark import benchmark
from pipelines.evaluation.cases import BenchmarkCases, Case
from pipelines.evaluation.entries import Entry, default_entries, read_entry
from pipelines.evaluation.metrics import measures
from pipelines.evaluation.summary import check_metrics, summary
from pipelines.evaluation.workers import Task
from pipelines.simulation import SimulationSettings, simulate, write_raw
from pipelines.simulation.sampling import PATTERNS
from tests.pipelines.evaluation import stand_ins
from tests.pipelines.evaluation.cluster import cluster
from tests.pipelines.evaluation.stand_ins import StandInCase, StandInEntry

SIZE = 48
FAST = [Entry("zero_filled"), Entry("cg_sense"), Entry("grappa"), Entry("l1_wavelet", (("iterations", "5"),))]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Two complex images (slice, y, x)."""
    path = tmp_path_factory.mktemp("data") / "phantoms.npy"
    one = sigpy.shepp_logan((SIZE, SIZE)).astype(np.complex64)
    np.save(path, np.stack([one, 0.5 * one[::-1]]))
    return path


@pytest.fixture(scope="module")
def cases(images) -> list[Case]:
    return BenchmarkCases((images,), coils=4, patterns=("uniform:2",), noise=(0.0, 0.01)).cases()


def test_metrics_of_known_differences():
    reference = np.abs(sigpy.shepp_logan((64, 64))).astype(np.float32)
    same = measures(reference, reference + 0)
    assert (
        same["ssim"] == pytest.approx(1)
        and same["psnr"] == 200
        and same["nrmse"] == same["hfen"] == same["hfen_object"] == 0
    )
    shifted = measures(reference + 0.01, reference)
    assert shifted["psnr"] == pytest.approx(40, abs=0.01) == shifted["psnr_object"]
    assert shifted["hfen"] == pytest.approx(0, abs=1e-4)  # a constant has no edges
    assert shifted["nrmse"] == pytest.approx(0.01 * 64 / np.linalg.norm(reference), rel=1e-3)
    outside = reference + 0.1 * (reference <= 0.05)
    assert measures(outside, reference)["nrmse_object"] == 0 < measures(outside, reference)["nrmse"]


def test_cases_are_scaled_named_and_reproducible(cases, images):
    assert [(case.slice, case.noise) for case in cases] == [(0, 0.0), (0, 0.01), (1, 0.0), (1, 0.01)]
    assert all(case.reference.max() == pytest.approx(1) for case in cases)
    assert len({case.name for case in cases}) == 4
    again = BenchmarkCases((images,), coils=4, patterns=("uniform:2",), noise=(0.01,), slices=(1,)).cases()[0]
    assert again.identity == cases[3].identity
    noise = (cases[3].measured() - cases[2].measured())[:, cases[3].mask]
    assert noise.real.std() == pytest.approx(0.01, rel=0.1)
    assert not cases[3].measured()[:, ~cases[3].mask].any()


def test_tables_images_and_a_second_run_that_has_nothing_to_do(cases, tmp_path, monkeypatch):
    results = benchmark(cases[:2], FAST, tmp_path / "out", threads=1)
    rows = {(row["case"], row["method"]): row for row in results["rows"]}
    assert len(rows) == 8 and not any(row["error"] for row in rows.values())
    for case in cases[:2]:
        assert rows[case.name, "cg_sense"]["psnr"] > rows[case.name, "zero_filled"]["psnr"] + 3
    assert rows[cases[1].name, "grappa"]["psnr"] < rows[cases[0].name, "grappa"]["psnr"]  # noise
    with open(tmp_path / "out" / "results.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["method"] for row in table] == 2 * [entry.label for entry in FAST]
    assert float(table[1]["psnr"]) == pytest.approx(rows[cases[0].name, "cg_sense"]["psnr"])
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    for row in rows.values():
        image = np.load(tmp_path / "out" / row["file"])["image"]
        assert (
            measures(image, np.load(tmp_path / "out" / f"cases/{row['case']}.npz")["reference"])["psnr"] == row["psnr"]
        )
    text = summary(results, ["psnr", "hfen_object"])
    assert text.row_count == 4
    monkeypatch.setattr(workers, "run_task", lambda *_: pytest.fail("it was done already"))
    assert benchmark(cases[:2], FAST, tmp_path / "out", threads=1)["rows"] == results["rows"]


def test_an_interrupted_run_goes_on(cases, tmp_path):
    done = []

    def interrupt(count, total, text):
        done.append(text)
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark(cases[:2], FAST, tmp_path, threads=1, progress=interrupt)
    assert not (tmp_path / "results.json").exists()
    row = next((tmp_path / "rows").glob("*.json"))
    row.write_text("{")  # half-written by something else
    again = []
    results = benchmark(cases[:2], FAST, tmp_path, threads=1, progress=lambda count, total, text: again.append(count))
    assert len(again) == 8 - 3 + 1 and len(results["rows"]) == 8
    assert not [path for path in tmp_path.rglob("*") if "part" in path.name]


def same_numbers(one, other):
    for first, second in zip(one["rows"], other["rows"], strict=True):
        for name in ("case", "method", "error", "psnr", "ssim", "nrmse", "hfen", "psnr_object"):
            assert first[name] == second[name]


def test_a_process_gives_the_same_numbers(cases, tmp_path):
    here = benchmark(cases[:1], FAST[1:2], tmp_path / "here", threads=1)
    there = benchmark(cases[:1], FAST[1:2], tmp_path / "there", threads=1, workers=2)
    same_numbers(here, there)


def in_processes(monkeypatch, *entries):
    """Rows and images of stand-ins that two processes run, by method."""
    monkeypatch.setattr(workers, "run_task", stand_ins.run)
    tasks = [Task(StandInCase("case"), entry, entry.label) for entry in entries]
    return {task.key: (row, arrays) for task, row, arrays in workers.on_this_machine(tasks, 1, 2, workers=2)}


def test_a_process_that_is_killed_loses_nothing(tmp_path, monkeypatch):
    found = in_processes(
        monkeypatch,
        StandInEntry("first"),
        StandInEntry("killed once", str(tmp_path / "flag")),
        StandInEntry("last"),
    )
    assert set(found) == {"first", "killed once", "last"}
    assert all(not row["error"] and arrays["image"].tolist() == [3, 3] for row, arrays in found.values())


def test_a_process_that_always_dies_is_a_failed_row(monkeypatch):
    monkeypatch.setattr(workers, "ATTEMPTS", 1)
    found = in_processes(monkeypatch, StandInEntry("first"), StandInEntry("killed always"), StandInEntry("last"))
    errors = {name: row["error"] for name, (row, _) in found.items()}
    assert "its process was killed" in errors.pop("killed always")
    assert errors == {"first": "", "last": ""}


def test_dask_workers_give_the_same_numbers_and_a_killed_one_loses_nothing(cases, tmp_path):
    here = benchmark(cases[:2], FAST, tmp_path / "here", threads=1)
    with cluster(tmp_path) as (address, processes), warnings.catch_warnings():
        warnings.simplefilter("ignore")

        def kill_one(count, total, text):
            if count == 3:
                processes[0].kill()

        there = benchmark(cases[:2], FAST, tmp_path / "there", threads=1, dask=address, progress=kill_one)
        assert processes[0].wait(10) == -signal.SIGKILL
    same_numbers(here, there)


def test_a_scheduler_that_is_not_there(cases, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(distribute, "CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(ReconError, match=r"--dask 127\.0\.0\.1:9: no dask scheduler answers there") as caught:
        benchmark(cases[:1], FAST, tmp_path, dask="127.0.0.1:9")
    assert "\n" not in str(caught.value)


def test_a_method_that_fails_leaves_the_others(cases, tmp_path):
    entries = [Entry("sake", (("rank", "5000"),)), Entry("cg_sense")]
    results = benchmark(cases[:1], entries, tmp_path, threads=1)
    failed, fine = results["rows"]
    assert "rank 5000 is not from 1 to" in failed["error"] and failed["psnr"] is None and not failed["file"]
    assert fine["psnr"] > 20
    assert summary(results, ["psnr"]).row_count == 2


def test_generative_methods_tell_evaluations_and_deviation(cases, tmp_path):
    entry = read_entry("wkgm:samples=2,steps=3")
    (row,) = benchmark(cases[1:2], [entry], tmp_path, repeats=0, threads=1)["rows"]
    assert row["evaluations"] and row["consistency"].startswith("sense") and not row["error"]
    arrays = np.load(tmp_path / row["file"])
    assert 0 < arrays["deviation"].mean() < arrays["image"].mean()


def test_raw_files(tmp_path):
    settings = SimulationSettings(
        matrix=(40, 40, 1), coils=4, slices=2, sampling="full", acceleration=1, calibration="none"
    )
    write_raw(tmp_path / "full.h5", simulate(settings))
    cases = BenchmarkCases((tmp_path / "full.h5",), patterns=("random_lines:2",)).cases()
    assert [case.slice for case in cases] == [0, 1] and cases[0].kspace.shape[1:] == (40, 40)
    (row,) = benchmark(cases[:1], [Entry("cg_sense")], tmp_path / "out", threads=1)["rows"]
    assert row["psnr"] > 25
    write_raw(
        tmp_path / "half.h5",
        simulate(SimulationSettings(matrix=(40, 40, 1), coils=4, sampling="uniform", acceleration=2)),
    )
    with pytest.raises(ReconError, match=r"half\.h5: \d+% of its k-space is sampled"):
        BenchmarkCases((tmp_path / "half.h5",)).cases()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magic", "property 'method' is 'magic'; it must be one of 'zero_filled', 'cg_sense'"),
        ("cg_sense:iterations", "give METHOD or METHOD:property=value"),
        ("cg_sense:iterations=many", "property 'iterations' is 'many'"),
        ("cg_sense:kernel=5", "'kernel' means nothing to method cg_sense; it is for grappa"),
        ("cg_sense:intensity=100", "the benchmark sets intensity itself"),
        ("wkgm:method=cg_sense", "the benchmark sets method itself"),
        ("cg_sense:nonsense=5", "unknown property 'nonsense'"),
        ("wkgm:prior=/nowhere.safetensors", "cannot be read"),
    ],
)
def test_wrong_methods(text, message):
    with pytest.raises(ReconError, match=message) as caught:
        read_entry(text)
    assert "\n" not in str(caught.value)


def test_a_missing_program(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ReconError, match="method bart_pics needs the program bart; install the BART toolbox"):
        read_entry("bart_pics")
    assert "bart_pics" not in [entry.method for entry in default_entries()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": (Path("/nowhere.npy"),)}, r"/nowhere\.npy: cannot be read as \.npy"),
        ({"slices": (7,)}, r"there is no slice 7; it has 2"),
        ({"kspace": True}, None),
        ({"patterns": ("poisson",)}, "--pattern is 'poisson'; give PATTERN:ACCELERATION"),
        ({"patterns": ("spiral:4",)}, "--pattern is 'spiral:4'"),
        ({"patterns": ("poisson:0.5",)}, "1 to 64"),
        ({"noise": (-1.0,)}, "--noise must be 0 or more"),
        ({"masks": ("/nowhere.npz",)}, r"/nowhere\.npz: cannot be read as masks"),
    ],
)
def test_wrong_input(images, changes, message):
    chosen = BenchmarkCases(**{"data": (images,), **changes})
    if message is None:  # two images are also k-space of two coils
        assert len(chosen.cases()) == 1
        return
    with pytest.raises(ReconError, match=message) as caught:
        chosen.cases()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("pattern", "factor"), [("poisson", 3), ("uniform", 2), ("random_lines", 2)])
def test_patterns(pattern, factor):
    mask = PATTERNS[pattern]((96, 80), factor, centre=16)
    assert mask[40:56, 32:48].all() and mask.sum() == pytest.approx(mask.size / factor, rel=0.2)
    assert np.array_equal(mask, PATTERNS[pattern]((96, 80), factor, centre=16))
    # Where the centre is already more than wanted, there is nothing beside it.
    assert PATTERNS["poisson"]((48, 48), 8).sum() == 24 * 24


def test_masks_of_files(images, tmp_path):
    full, small = np.ones((SIZE, SIZE), bool), np.ones((8, 8), bool)
    np.savez(tmp_path / "masks.npz", full=full, small=small, none=~full)
    names = [f"{tmp_path / 'masks.npz'}:{name}" for name in ("full", "small", "other", "none")]
    (case,) = BenchmarkCases((images,), masks=(names[0],), slices=(0,)).cases()
    assert case.mask_name == "full" and case.mask.all()
    for name, message in zip(
        names[1:], ["no mask of it is", "it has no mask 'other'", "mask none is empty"], strict=True
    ):
        with pytest.raises(ReconError, match=message):
            BenchmarkCases((images,), masks=(name,)).cases()


def test_thin_matrices_have_their_centre_in_the_middle():
    mask = PATTERNS["poisson"]((64, 16), 3)
    assert mask[20:44].all() and mask.sum() >= 24 * 16
    assert PATTERNS["uniform"]((20, 64), 4).all()


def test_wrong_arrays(tmp_path):
    np.save(tmp_path / "line.npy", np.ones(7))
    np.save(tmp_path / "nan.npy", np.full((1, 32, 32), np.nan + 0j))
    np.save(tmp_path / "zero.npy", np.zeros((1, 32, 32), complex))
    for name, message in (("line", r"is not images \(slice, y, x\)"), ("nan", "NaN or infinite"), ("zero", "is empty")):
        with pytest.raises(ReconError, match=message):
            BenchmarkCases((tmp_path / f"{name}.npy",)).cases()


def test_unknown_metric():
    assert check_metrics("psnr, hfen_object") == ["psnr", "hfen_object"]
    with pytest.raises(ReconError, match="there is no metric 'mse'; there are psnr, ssim"):
        check_metrics("psnr,mse")


def test_a_folder_that_cannot_be_written_to(cases, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReconError, match="cannot be written") as caught:
        benchmark(cases[:1], FAST[:1], tmp_path / "file")
    assert "\n" not in str(caught.value)
