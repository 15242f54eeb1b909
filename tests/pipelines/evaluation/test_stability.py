"""The stability suite: methods of known behaviour get the figures they must, and a run goes on where it ended."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from scipy.ndimage import gaussian_filter

from gadgets.stream import ReconError
from pipelines.evaluation.arrays import ArrayResult
from pipelines.evaluation.cases import Case, received_kspace, root_sum_of_squares
from pipelines.evaluation.entries import Entry
from pipelines.evaluation.stability import run, stability, tables
from pipelines.evaluation.stability.details import detail_changes, place_details, recovery, sensitivities
from pipelines.evaluation.stability.masks import NESTED, centre_size, nested_masks, other_masks
from pipelines.evaluation.stability.parts import detail_part, more_samples_part, perturbation_part
from pipelines.simulation.coils import birdcage_maps
from pipelines.simulation.sampling import poisson
from priors.signal.fourier import ifft2c

SIZE = 48
CONTRASTS = (0.05, 0.1, 0.2, 0.4)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ellipse(size: int = SIZE) -> np.ndarray:
    """An ellipse of 0.6 with a bright rim and a dark spot, and with a phase."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.hypot(y / 0.95, x / 0.85)
    image = np.where(radius < 1, 0.6, 0.0)
    image[(radius > 0.9) & (radius < 1)] = 1.0
    image[np.hypot(y - 0.3, x - 0.55) < 0.15] = 0.2
    return image * np.exp(1j * (0.5 * y + x))


def case_of(image: np.ndarray, mask: np.ndarray, coils: int = 4, noise: float = 0.0, name: str = "ellipse") -> Case:
    maps = birdcage_maps(coils, image.shape) if coils > 1 else np.ones((1, *image.shape))
    kspace = received_kspace(image, maps)
    return Case(name, 0, "test", noise, (kspace / root_sum_of_squares(kspace).max()).astype(np.complex64), mask)


@pytest.fixture
def full() -> Case:
    return case_of(ellipse(), np.ones((SIZE, SIZE), bool))


@pytest.fixture
def sparse() -> Case:
    return case_of(ellipse(), poisson((SIZE, SIZE), 3, centre=12), noise=0.002)


class Counted:
    """Stands in for ArrayReconstruction: the zero-filled image; counts its calls, and fails for one method."""

    calls = 0
    failing: str | None = "broken"

    def __init__(self, properties: dict[str, str]) -> None:
        self._method = properties["method"]

    def with_maps(self, kspace: np.ndarray) -> np.ndarray:
        return kspace

    def __call__(self, kspace: np.ndarray) -> ArrayResult:
        Counted.calls += 1
        if self._method == Counted.failing:
            raise ReconError("gadget GenerativeRecon: it [broke]; repair it")
        if self._method == "buggy":
            raise ZeroDivisionError("division by zero")
        return ArrayResult(root_sum_of_squares(kspace).astype(np.complex64), warnings=["a warning"])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> type[Counted]:
    """The stand-in instead of reconstructions, and of figures, which take most of the time otherwise."""
    monkeypatch.setattr(run, "ArrayReconstruction", Counted)
    if "figure" not in request.node.name:
        monkeypatch.setattr(run, "case_figure", lambda *_: b"PNG")
    monkeypatch.setattr(Counted, "calls", 0)
    monkeypatch.setattr(Counted, "failing", "broken")
    return Counted


def part_of(results: dict[str, Any], method: str, part: str) -> dict[str, Any]:
    (row,) = (row for row in results["rows"] if row["method"] == method and row["part"] == part)
    return row


# --- details ---------------------------------------------------------------------------------------------------------


def test_details_are_apart_in_flat_places_of_the_object(full: Case) -> None:
    details = place_details(full.reference)
    again = place_details(full.reference)
    taken = np.zeros((SIZE, SIZE), int)
    for name, (shape, box) in details.items():
        assert box == again[name][1]
        assert shape.max() > 0.7 and shape.min() == 0
        assert np.count_nonzero(shape) == np.count_nonzero(shape[box])
        assert np.abs(full.reference[box] - 0.6).max() < 1e-3
        taken[box] += 1
    assert list(details) == ["line", "disc", "text"] and taken.max() == 1
    assert details["disc"][0].sum() == pytest.approx(np.pi * 2.5**2, rel=0.02)
    line = details["line"][0]
    assert line.sum() == pytest.approx(20 / np.cos(np.radians(12)), rel=0.03)  # one pixel wide
    height = np.ptp(np.nonzero(details["text"][0])[0]) + 1
    assert 7 <= height <= 12


def test_a_change_is_of_the_contrast_and_has_the_phase_of_the_object(full: Case) -> None:
    details = place_details(full.reference)
    changed = detail_changes(full, details, 0.2)
    wanted = 0.2 * sum(shape for shape, _ in details.values())
    np.testing.assert_allclose(changed.reference - full.reference, wanted, atol=1e-5)
    inside = full.reference > 0.1
    before, after = (sensitivities(case.kspace)[:, inside] for case in (full, changed))
    np.testing.assert_allclose(after, before, atol=1e-4)
    assert changed.identity != full.identity


def test_an_image_without_room_is_refused_in_one_line() -> None:
    for size in (8, 24):
        with pytest.raises(ReconError, match="no room for the details; take data of 48 x 48"):
            place_details(np.ones((size, size), np.float32))


def test_recovery_of_known_changes() -> None:
    truth = np.zeros((8, 8))
    truth[3:5, 3:5] = 0.1
    assert recovery(truth, truth) == pytest.approx((1, 1))
    assert recovery(0.3 * truth, truth) == pytest.approx((0.3, 1))
    assert recovery(np.zeros((8, 8)), truth) == (0, 0)
    assert recovery(-truth, truth) == pytest.approx((-1, -1))


@pytest.mark.slow
def test_full_sampling_recovers_everything(full: Case, tmp_path: Path) -> None:
    results = stability([full], [Entry("zero_filled")], tmp_path, contrasts=CONTRASTS, steps=1, threads=1)
    row = part_of(results, "zero_filled", "detail")
    assert len(row["values"]) == 3 * len(CONTRASTS)
    for value in row["values"]:
        assert value["recovered"] == pytest.approx(1, abs=1e-3)
        assert value["correlation"] == pytest.approx(1, abs=1e-3)
    assert row["smallest"] == dict.fromkeys(("line", "disc", "text"), 0.05)


def test_a_method_that_blurs_or_erases_does_not_recover(full: Case) -> None:
    blurred = detail_part(lambda y: gaussian_filter(root_sum_of_squares(y), 3), full, CONTRASTS)
    assert blurred["smallest"] == dict.fromkeys(("line", "disc", "text"))
    assert max(value["recovered"] for value in blurred["values"]) < 0.5
    erased = detail_part(lambda y: full.reference, full, CONTRASTS)
    assert erased["smallest"] == dict.fromkeys(("line", "disc", "text"))
    assert all(value["recovered"] == value["correlation"] == 0 for value in erased["values"])


def test_the_smallest_contrast_is_the_one_from_which_on_all_are_recovered(full: Case) -> None:
    def vanishing(low: float, high: float) -> dict[str, Any]:
        """Changes are lost when their contrast is between these."""

        def reconstruct(measured: np.ndarray) -> np.ndarray:
            image = root_sum_of_squares(measured)
            return full.reference if low < (image - full.reference).max() < high else image

        return detail_part(reconstruct, full, CONTRASTS)["smallest"]

    assert vanishing(0.01, 0.15) == dict.fromkeys(("line", "disc", "text"), 0.2)
    assert vanishing(0.15, 0.3) == dict.fromkeys(("line", "disc", "text"), 0.4)
    assert vanishing(0.3, 0.5) == dict.fromkeys(("line", "disc", "text"))


# --- perturbation ----------------------------------------------------------------------------------------------------


def test_the_search_comes_near_the_largest_singular_value_of_a_linear_map() -> None:
    case = case_of(ellipse(), np.ones((SIZE, SIZE), bool), coils=1)
    gain = np.ones((SIZE, SIZE))
    gain[20:28, 12:20] = 4.0

    def amplifying(measured: np.ndarray) -> np.ndarray:
        return gain * np.abs(ifft2c(torch.from_numpy(measured)).numpy()[0])

    found = perturbation_part(amplifying, case, 4)
    of_samples = np.linalg.norm(case.kspace) / np.linalg.norm(amplifying(case.kspace))
    worst = 4.0 * of_samples
    assert 0.85 * worst < found["worst"] < 1.01 * worst
    assert found["random"] < 0.4 * worst
    assert [value["what"] for value in found["values"]] == ["random", "step 1", "step 2", "step 3", "step 4"]
    assert found == perturbation_part(amplifying, case, 4)


def test_a_perturbation_touches_measured_samples_only_and_is_of_one_percent(sparse: Case) -> None:
    seen = []

    def reconstruct(measured: np.ndarray) -> np.ndarray:
        seen.append(measured)
        return root_sum_of_squares(measured)

    perturbation_part(reconstruct, sparse, 2)
    assert len(seen) == 4
    for measured in seen:
        assert measured.dtype == np.complex64 and not measured[:, ~sparse.mask].any()
    for measured in seen[1:]:
        assert np.linalg.norm(measured - seen[0]) == pytest.approx(0.01 * np.linalg.norm(seen[0]), rel=1e-3)


def test_a_constant_method_amplifies_nothing(sparse: Case) -> None:
    assert perturbation_part(lambda y: sparse.reference, sparse, 2)["worst"] == 0
    assert perturbation_part(lambda y: np.zeros((SIZE, SIZE), np.float32), sparse, 2)["worst"] == 0


# --- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(48, 48), (64, 40), (97, 120)])
def test_nested_masks_contain_each_other(shape: tuple[int, int]) -> None:
    masks = nested_masks(shape)
    assert list(masks) == [f"poisson:{acceleration}" for acceleration in NESTED]
    before = np.zeros(shape, bool)
    for acceleration, mask in zip(NESTED, masks.values(), strict=True):
        assert mask.shape == shape and mask[before].all()
        assert mask.size / mask.sum() == pytest.approx(acceleration, rel=0.02)
        before = mask


def test_other_masks_have_their_accelerations_and_a_centre_to_calibrate_on() -> None:
    for name, mask in other_masks((48, 48)).items():
        pattern, _, acceleration = name.partition(":")
        assert mask[20:28, 20:28].all()
        slack = 0.02 if pattern == "poisson" else 0.4
        assert mask.size / mask.sum() == pytest.approx(float(acceleration), rel=slack)
    assert centre_size((256, 256)) == centre_size((320, 160)) == 24


def test_a_method_that_is_worse_with_more_samples_fails(sparse: Case) -> None:
    errors = dict(zip((int(mask.sum()) for mask in nested_masks((SIZE, SIZE)).values()), range(6), strict=True))
    offsets = [0.10, 0.05, 0.02, 0.04, 0.021, 0.01]

    def reconstruct(measured: np.ndarray) -> np.ndarray:
        return sparse.reference + offsets[errors[int(np.count_nonzero(measured[0]))]]

    found = more_samples_part(reconstruct, sparse)
    assert found["largest_drop"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert not found["passed"]
    offsets[3:5] = [0.02 * 1.005, 0.02]
    assert more_samples_part(reconstruct, sparse)["passed"]
    offsets[:] = [0.10, 0.05, 0.04, 0.03, 0.02, 0.01]
    found = more_samples_part(reconstruct, sparse)
    assert found["largest_drop"] == 0 and found["passed"]
    assert found["values"][-1]["psnr"] == pytest.approx(40, abs=1e-3)
    assert found["values"][-1]["acceleration"] == pytest.approx(2, rel=0.02)


# --- the run ---------------------------------------------------------------------------------------------------------


def test_a_run_leaves_tables_and_a_figure(sparse: Case, counted: type[Counted], tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    results = stability(
        [sparse], [Entry("one"), Entry("two")], tmp_path, steps=1, threads=1, progress=lambda *args: calls.append(args)
    )
    assert json.loads((tmp_path / "stability.json").read_text()) == results
    assert [row["part"] for row in results["rows"]] == 2 * ["detail", "perturbation", "acceleration", "more_samples"]
    assert all(row["warnings"] == ["a warning"] and not row["error"] for row in results["rows"])
    assert [args[:2] for args in calls] == [(number, 8) for number in range(1, 9)]
    lines = (tmp_path / "stability.csv").read_text().splitlines()
    assert lines[0].startswith("case,method,part,what,contrast,recovered")
    assert len(lines) == 1 + 2 * (12 + 2 + 7 + 6)
    with Image.open(tmp_path / results["cases"][0]["file"]) as picture:
        picture.verify()
    with np.load(tmp_path / part_of(results, "one", "detail")["file"]) as arrays:
        assert arrays["image"].shape == arrays["change"].shape == (SIZE, SIZE)
    assert not list(tmp_path.rglob("*.part"))
    assert torch.get_num_threads() == 1


@pytest.mark.slow
def test_a_second_run_does_only_what_is_missing_or_broken(sparse: Case, counted: type[Counted], tmp_path: Path) -> None:
    def calls(steps: int = 1, contrasts: tuple[float, ...] = (0.2,), case: Case = sparse) -> int:
        before = counted.calls
        results.append(stability([case], [Entry("one")], tmp_path, contrasts=contrasts, steps=steps, threads=1)["rows"])
        return counted.calls - before

    results: list[Any] = []
    detail, perturbation, acceleration, more_samples = 2, 3, 7, 6
    assert calls() == detail + perturbation + acceleration + more_samples
    assert calls() == 0
    assert results[0] == results[1]
    assert calls(steps=2) == perturbation + 1
    assert calls(contrasts=(0.1, 0.2)) == detail + 1
    assert calls(case=case_of(ellipse(), sparse.mask, noise=0.01)) == 18
    assert calls() == 0
    for row in results[0]:
        rows = (tmp_path / "stability").glob("*.json")
        (path,) = (path for path in rows if json.loads(path.read_text()) == row)
        wanted = {"detail": 2, "perturbation": 3, "acceleration": 7, "more_samples": 6}[row["part"]]
        for content in (path.read_bytes()[:50], b"[]", b"{}", b"\xff\xfe"):
            path.write_bytes(content)
            assert calls() == wanted
    file = tmp_path / results[0][0]["file"]
    for broken in (b"", b"PK\x03\x04", file.read_bytes()[:-200]):
        file.write_bytes(broken)
        assert calls() == detail
    file.unlink()
    assert calls() == detail
    assert results[-1] == results[0]


def test_a_method_that_fails_leaves_its_error_and_the_rest_goes_on(
    sparse: Case, counted: type[Counted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [Entry("broken"), Entry("one"), Entry("buggy")]
    results = stability([sparse], entries, tmp_path, contrasts=(0.2,), steps=1, threads=1)
    errors = {row["method"]: row["error"] for row in results["rows"]}
    assert errors == {
        "broken": "gadget GenerativeRecon: it [broke]; repair it",
        "one": "",
        "buggy": "ZeroDivisionError: division by zero (unexpected)",
    }
    text = drawn(results)
    assert text.count("it [broke]; repair it") == 4
    assert (tmp_path / results["cases"][0]["file"]).is_file()
    monkeypatch.setattr(counted, "failing", None)
    before = counted.calls
    results = stability([sparse], entries, tmp_path, contrasts=(0.2,), steps=1, threads=1)
    assert not part_of(results, "broken", "detail")["error"]
    assert counted.calls - before == 18 + 4  # those of the repaired method, and the first of each part of the other one


def test_a_matrix_without_room_fails_in_the_part_of_details_only(counted: type[Counted], tmp_path: Path) -> None:
    case = case_of(ellipse(32), np.ones((32, 32), bool))
    results = stability([case], [Entry("one")], tmp_path, steps=1, threads=1)
    assert [bool(row["error"]) for row in results["rows"]] == [True, False, False, False]
    assert "no room" in results["rows"][0]["error"]


def test_what_cannot_be_written_is_one_line_and_earlier_results_stay(
    sparse: Case, counted: type[Counted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(steps: int) -> None:
        stability([sparse], [Entry("one")], tmp_path, contrasts=(0.2,), steps=steps, threads=1)

    run(1)
    before = (tmp_path / "stability.json").read_bytes()
    replace = os.replace

    def refusing(source: Any, target: Any) -> None:
        if Path(target).name == "stability.json":
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    with pytest.raises(ReconError, match=r"stability\.json: cannot be written \(No space left on device\); free space"):
        run(2)
    assert (tmp_path / "stability.json").read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ReconError, match="cannot be written"):
        stability([sparse], [Entry("one")], tmp_path / "file", threads=1)


def test_wrong_settings_and_missing_weights_are_one_line(sparse: Case, tmp_path: Path) -> None:
    for contrasts in ((), (0.0,), (1.5,), (float("nan"),)):
        with pytest.raises(ReconError, match="contrasts must be above 0"):
            stability([sparse], [], tmp_path, contrasts=contrasts)
    with pytest.raises(ReconError, match="steps is 0; give 1 or more"):
        stability([sparse], [], tmp_path, steps=0)
    with pytest.raises(ReconError, match=r"none\.safetensors: cannot be read"):
        stability([sparse], [Entry("wkgm", (("prior", str(tmp_path / "none.safetensors")),))], tmp_path, threads=1)


def test_tables_have_a_row_for_every_method(sparse: Case, counted: type[Counted], tmp_path: Path) -> None:
    entries = [Entry("one"), Entry("two", (("prior", "[/tmp].st"),))]
    results = stability([sparse], entries, tmp_path, steps=1, threads=1)
    assert [table.row_count for table in tables(results)] == [2, 2, 2, 2]
    text = drawn(results)
    assert text.count("two prior=[/tmp].st") == 4
    for word in ("line", "disc", "text", "worst found", "poisson 12", "uniform 4", "random_lines 4", "largest drop"):
        assert word in text
    assert [table.row_count for table in tables({"rows": []})] == [0, 0, 0, 0]


def drawn(results: dict[str, Any]) -> str:
    text = io.StringIO()
    console = Console(width=250, file=text)
    for table in tables(results):
        console.print(table)
    return " ".join(text.getvalue().split())


# --- real methods ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_methods_on_a_small_case(tmp_path: Path) -> None:
    case = case_of(ellipse(), poisson((SIZE, SIZE), 3, centre=12), noise=0.002)
    entries = [Entry("cg_sense"), Entry("l1_wavelet", (("iterations", "10"),))]
    first = stability([case], entries, tmp_path / "a", contrasts=(0.2,), steps=1, threads=1)
    second = stability([case], entries, tmp_path / "b", contrasts=(0.2,), steps=1, threads=1)
    assert first["rows"] == second["rows"]
    assert not any(row["error"] for row in first["rows"])
    for entry in entries:
        assert part_of(first, entry.label, "detail")["smallest"]["disc"] == 0.2
        perturbed = part_of(first, entry.label, "perturbation")
        assert perturbed["worst"] >= perturbed["random"] > 0
        psnrs = {value["what"]: value["psnr"] for value in part_of(first, entry.label, "acceleration")["values"]}
        assert psnrs["poisson:2"] > psnrs["poisson:4"] > psnrs["poisson:12"]
        assert part_of(first, entry.label, "more_samples")["passed"]


@pytest.mark.slow
def test_the_generative_prior_goes_through_the_same_parts(tmp_path: Path) -> None:
    case = case_of(ellipse(), poisson((SIZE, SIZE), 3, centre=12), noise=0.002)
    results = stability([case], [Entry("wkgm", (("steps", "2"),))], tmp_path, contrasts=(0.2,), steps=1, threads=1)
    assert [row["error"] for row in results["rows"]] == ["", "", "", ""]
    assert results["rows"][0]["smallest"]["disc"] == 0.2
