"""The benchmark: tables, resuming, processes and dask workers, methods that fail."""

from __future__ import annotations

import csv
import json
import signal
import warnings

import numpy as np
import pytest

from gadgets.stream import ReconError
from pipelines.evaluation import distribute, workers
from pipelines.evaluation.benchmark import benchmark
from pipelines.evaluation.cases import BenchmarkCases
from pipelines.evaluation.entries import Entry, read_entry
from pipelines.evaluation.metrics import measures
from pipelines.evaluation.summary import summary
from pipelines.simulation import SimulationSettings, simulate, write_raw
from tests.pipelines.evaluation.cluster import cluster

FAST = [Entry("zero_filled"), Entry("cg_sense"), Entry("grappa"), Entry("l1_wavelet", (("iterations", "5"),))]


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


@pytest.mark.slow
def test_a_process_gives_the_same_numbers(cases, tmp_path):
    here = benchmark(cases[:1], FAST[1:2], tmp_path / "here", threads=1)
    there = benchmark(cases[:1], FAST[1:2], tmp_path / "there", threads=1, workers=2)
    same_numbers(here, there)


@pytest.mark.slow
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


def test_generative_methods_report_evaluations_and_deviation(cases, tmp_path):
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
    with pytest.raises(ReconError, match=r"half\.h5, slice 0: \d+% of its k-space is sampled"):
        BenchmarkCases((tmp_path / "half.h5",)).cases()


def test_a_folder_that_cannot_be_written_to(cases, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReconError, match="cannot be written") as caught:
        benchmark(cases[:1], FAST[:1], tmp_path / "file")
    assert "\n" not in str(caught.value)
