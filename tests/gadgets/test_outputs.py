"""The table of outputs, and what property `output` takes."""

from __future__ import annotations

from itertools import pairwise

import ismrmrd
import pytest

from gadgets.dicom.series import SERIES_OF_A_SCAN
from gadgets.generative_recon import GenerativeRecon
from gadgets.outputs import MAGNITUDE, OUTPUTS, PHASE, REAL, asked_outputs, output_named
from gadgets.stream import ReconError
from tests.gadgets.scans import buffered


def test_series_are_apart_for_a_hundred_encodings_and_below_those_of_the_next_scan() -> None:
    series = sorted(output.series for output in OUTPUTS.values())
    assert all(after - before >= 100 for before, after in pairwise(series))
    assert series[-1] + 100 <= SERIES_OF_A_SCAN


def test_a_list_in_any_order_with_any_spaces_is_each_once_in_the_order_of_series() -> None:
    assert asked_outputs(" Real,magnitude , phase,real") == (MAGNITUDE, PHASE, REAL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magnitude,angle", "property 'output': unknown output 'angle'; it takes any of: magnitude, phase, real, "),
        ("", "property 'output': no output; it takes any of: magnitude"),
        (" , ", "property 'output': no output; it takes any of: magnitude"),
        ("standard_deviation", "unknown output 'standard_deviation'"),
    ],
)
def test_what_there_is_not_is_refused_before_the_scan(text: str, message: str) -> None:
    header, _ = buffered()
    with pytest.raises(ReconError, match=message):
        GenerativeRecon().configure(header, {"method": "cg_sense", "output": text})


def test_an_image_whose_type_contradicts_its_mark_is_what_its_type_says() -> None:
    """ComplexToFloatGadget of a real Gadgetron makes magnitudes of all types it does not know."""
    assert output_named(["phase"], ismrmrd.IMTYPE_PHASE) is PHASE
    assert output_named(["complex"], ismrmrd.IMTYPE_MAGNITUDE) is MAGNITUDE
    assert output_named([], ismrmrd.IMTYPE_REAL) is REAL
    assert output_named(["something"], 0) is MAGNITUDE
