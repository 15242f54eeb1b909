"""Each twin against what the C++ gadget of a real Gadgetron 4.7.2 made of the same items (tests/golden/record.py)."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from gadgets.images import meta_of
from gadgets.stream import ReconError
from gadgets.twins import TWINS
from gadgets.twins.noise_adjust import PREWHITENED
from tests.paths import ROOT

sys.path.insert(0, str(ROOT / "tests" / "golden"))

from cases import GOLDEN, as_arrays, cases

ODD = "the C++ FFT shuffles lines of an odd E1 or E2"
CHANGES = "the C++ gadget sends a bucket at each change, whether its images have all of their lines or not"
SLICES = "the C++ gadget puts all slices in one place"
# Where the twin differs on purpose, as its docstring says.
DIFFERENT = {
    "noise/scale_only_second": "the C++ gadget takes the place in the list for the coil's number",
    "buckets/flags": "the C++ gadget takes readouts that are no lines for imaging or calibration lines",
    "buckets/trigger_contrast": CHANGES,
    "buckets/trigger_phase": CHANGES,
    "buckets/trigger_set": CHANGES,
    "buffers/n_slice": SLICES,
    "buffers/s_slice_segments_ignored": SLICES,
    "buffers/split_n_slice": SLICES,
    "buffers/contrasts_1_2": "the C++ gadget lets contrasts that do not begin at 0 overwrite each other",
    "field_of_view/twice_ro_fill": "the C++ gadget fails",
    **{
        f"field_of_view/{name}": ODD
        for name in (
            "fill_e1_odd",
            "fill_e1_to_odd",
            "fill_e1_odd_to_odd",
            "oversampled_e1_odd",
            "crop_e1_odd",
            "volume_oversampled_all",
            "volume_fill_e1",
            "volume_fill_all",
            "volume_crop_e2",
            "volume_crop_all",
            "volume_fill_e2_crop_ro",
            "volume_to_one",
        )
    },
}
# The server dies of it; here LOC begins at the lowest slice that came.
DIED = "buffers/slices_some"
BEYOND = "buffers/slice_limits_too_small"  # the server refuses it
CASES = {f"{case.file}/{case.name}": case for case in cases()}
RECORDED = {name: np.load(GOLDEN / f"{name}.npz") for name in sorted({case.file for case in CASES.values()})}
FAILED = {f"{file}/{name.partition('/')[0]}" for file, z in RECORDED.items() for name in z.files if "/error" in name}


def expected(case):
    start = f"{case.name}/"
    stored = RECORDED[case.file]
    return {name.removeprefix(start): stored[name] for name in stored.files if name.startswith(start)}


def run_twins(case):
    items = iter(case.items)
    for classname, properties in case.gadgets:
        gadget = TWINS[classname]()
        gadget.configure(case.header, properties)
        items = gadget.process(items)
    result = as_arrays(list(items))
    if "lines.headers" in result:  # the mark of prewhitened lines, which the C++ gadget does not set
        result["lines.headers"] = result["lines.headers"].copy()
        result["lines.headers"]["flags"] &= ~np.uint64(1 << PREWHITENED - 1)
    return result


def same(result, golden):
    if result.shape != golden.shape:
        return False
    if golden.dtype.kind in "fc":
        return np.linalg.norm(result.astype(golden.dtype) - golden) <= 1e-5 * np.linalg.norm(golden)
    return np.array_equal(result, golden)


def same_meta(result, golden):
    texts = zip(np.atleast_1d(result).tolist(), np.atleast_1d(golden).tolist(), strict=True)
    return all(dict(meta_of(own)) == dict(meta_of(server)) for own, server in texts)


def differing(case):
    """Names of the parts of a result that are not the server's."""
    golden, result = expected(case), run_twins(case)
    parts = sorted(set(golden) ^ set(result))
    return parts + [
        part
        for part in sorted(set(golden) & set(result))
        if not (same_meta if part.endswith("meta") else same)(result[part], golden[part])
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in DIFFERENT and name not in FAILED])
def test_twin_gives_what_the_server_gives(name):
    assert expected(CASES[name]), "no recording: run tests/golden/record.py"
    assert differing(CASES[name]) == []


@pytest.mark.parametrize("name", [name for name in DIFFERENT if name not in FAILED])
def test_deliberate_differences_are_still_there(name):
    assert differing(CASES[name])


@pytest.mark.parametrize("name", sorted(FAILED - {DIED, BEYOND}))
def test_what_the_server_refuses_the_twin_refuses(name):
    with pytest.raises(ReconError, match="; "):
        run_twins(CASES[name])


@pytest.mark.parametrize("name", [DIED, BEYOND])
def test_slices_that_do_not_begin_at_0_or_pass_their_limit_are_all_kept(name):
    case = CASES[name]
    assert name in FAILED
    result = run_twins(case)
    parts = [result[f"0.0.{part}.headers"]["scan_counter"].flat for part in ("data", "ref") if f"0.0.{part}" in result]
    counters = {counter for part in parts for counter in part} - {0}
    assert counters == {line.scan_counter for line in case.items}
    assert result["0.0.data"].shape[-1] == len({line.idx.slice for line in case.items})
