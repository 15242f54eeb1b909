"""What a scan has, from its acquisition headers."""

from __future__ import annotations

from typing import Any

import ismrmrd
import numpy as np

from gadgets.survey import Survey
from tests.raw_files import line

NOISE, CALIBRATION = (ismrmrd.ACQ_IS_NOISE_MEASUREMENT,), (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,)


def survey(lines: list[Any]) -> Survey:
    heads = b"".join(bytes(one.getHead()) for one in lines)
    return Survey(np.frombuffer(heads, dtype=np.dtype(ismrmrd.hdf5.acquisition_header_dtype)))


def one(step: int, flags: tuple[int, ...] = (), **counters: int) -> Any:
    return line(np.ones((1, 4)), step, flags=flags, **counters)


def test_counters_of_imaging_lines() -> None:
    found = survey([one(0, NOISE, slice=9), one(1, CALIBRATION, slice=8), one(0, slice=2), one(1, slice=5, average=1)])
    assert found.values("slice") == [2, 5]
    assert found.count("slice") == 6
    assert found.spaces() == [0]
    assert found.lines("none", "slice") == {(0, 8): 1, (0, 2): 1, (0, 5): 1}


def test_images_are_combinations_of_counters() -> None:
    found = survey(
        [one(step, phase=phase, average=average) for step in range(3) for phase, average in ((0, 0), (0, 1), (4, 0))]
    )
    assert found.images(averaged=True) == 2
    assert found.images(averaged=False) == 3


def test_lines_that_come_again_are_one_place() -> None:
    found = survey([one(0), one(1), one(1), one(1, CALIBRATION)])
    assert found.lines("none", "none")[0, 0] == 4
    assert found.places("none", "none")[0, 0] == 3


def test_a_counter_that_changes_within_images() -> None:
    inner = survey([one(step, repetition=repetition) for step in range(4) for repetition in range(2)])
    outer = survey([one(step, repetition=repetition) for repetition in range(2) for step in range(4)])
    assert inner.splits_images("repetition")
    assert not outer.splits_images("repetition")
