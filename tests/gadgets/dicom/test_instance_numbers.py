"""InstanceNumbers from counters: unique and in order, whatever the header announces."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gadgets.dicom.instance_numbers import InstanceNumbers
from gadgets.survey import Survey
from tests.gadgets.dicom.dicom_images import make_header, make_image
from tests.raw_files import line

COUNTERS = ("repetition", "average", "set", "phase", "contrast", "slice")


def survey_of(counters: list[dict[str, int]]) -> Survey:
    heads = [line(np.ones((1, 4)), 0, **one).getHead() for one in counters]
    lines = np.frombuffer(b"".join(bytes(head) for head in heads), dtype=heads_dtype())
    return Survey(lines)


def heads_dtype() -> np.dtype:
    from ismrmrd.hdf5 import acquisition_header_dtype

    return np.dtype(acquisition_header_dtype)


def numbers_of(counters: list[dict[str, int]], numbers: InstanceNumbers) -> list[int]:
    return [numbers.take("1.2", make_image(**one), 0, 0) for one in counters]


@pytest.mark.parametrize("announced", [1, 3, 100])
@pytest.mark.parametrize("start", [0, 7, 40000])
def test_numbers_of_a_survey_are_unique_and_in_order(announced: int, start: int) -> None:
    limits = dict.fromkeys(COUNTERS, announced - 1)
    ranges = [range(start, start + size) for size in (2, 1, 2, 3, 2, 2)]
    counters = [dict(zip(COUNTERS, values, strict=True)) for values in itertools.product(*ranges)]
    survey = survey_of(counters)
    found = numbers_of(counters, InstanceNumbers(make_header(limits=limits), survey))
    assert found == sorted(set(found))
    backwards = numbers_of(counters[::-1], InstanceNumbers(make_header(limits=limits), survey))
    assert backwards[::-1] == found


def test_numbers_of_a_stream_are_unique_beyond_the_limits() -> None:
    counters = [{"repetition": r, "phase": p, "slice": s} for r in range(3) for p in range(5) for s in range(2)]
    numbers = InstanceNumbers(make_header(limits={"phase": 2, "slice": 1, "repetition": 0}))
    found = numbers_of(counters, numbers)
    assert len(set(found)) == len(counters)
    assert min(found) == 1


def test_images_of_the_same_counters_have_numbers_of_their_own() -> None:
    found = numbers_of([{"slice": 0}, {"slice": 1}, {"slice": 0}], InstanceNumbers(make_header(limits={"slice": 1})))
    assert found == [1, 2, 3]


def test_series_count_for_themselves() -> None:
    numbers = InstanceNumbers(make_header())
    assert numbers.take("1.2", make_image(), 0, 0) == numbers.take("1.3", make_image(), 0, 0) == 1
