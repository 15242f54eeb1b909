"""When buckets are sent in a stream, whose end and loops are not known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.twins import AcquisitionAccumulateTriggerGadget
from tests.raw_files import header, line

LAST = (ismrmrd.ACQ_LAST_IN_SLICE,)
Lines = list[Any]


def lines(steps: Iterable[int] = range(64), flags: tuple[int, ...] = (), **counters: int) -> Lines:
    made = [line(np.ones((1, 4)), step, **counters) for step in steps]
    for flag in flags:
        made[-1].set_flag(flag)
    return made


def sent(
    made: Lines, trigger: str = "repetition", **limits: tuple[int, int, int]
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """For each bucket how many lines had been read, and (repetition, number of lines) of its repetitions."""
    gadget = AcquisitionAccumulateTriggerGadget()
    head = ismrmrd.xsd.CreateFromDocument(header(limits=limits).encode())
    gadget.configure(head, {"trigger_dimension": trigger, "sorting_dimension": "slice"})
    read = 0

    def count() -> Iterator[Any]:
        nonlocal read
        for one in made:
            read += 1
            yield one

    for bucket in gadget.process(count()):
        repetitions = [int(one.idx.repetition) for one in bucket.data]
        yield read, [(value, repetitions.count(value)) for value in sorted(set(repetitions))]


@pytest.mark.parametrize("limit", [(0, 0, 0), (0, 9999, 0)])
def test_repetitions_in_order_are_sent_one_by_one(limit: tuple[int, int, int]) -> None:
    made = [one for repetition in range(5) for one in lines(repetition=repetition)]
    found = list(sent(made, repetition=limit))
    assert [buckets for _, buckets in found] == [[(repetition, 64)] for repetition in range(5)]
    assert [read for read, _ in found] == [65, 129, 193, 257, 320]


def test_random_lines_in_order_are_sent_when_none_came_back() -> None:
    """Of 64 lines 12 in each repetition, without an acceleration in the header."""
    steps = [sorted(np.random.default_rng(seed).choice(64, 12, replace=False).tolist()) for seed in range(20)]
    made = [one for repetition in range(20) for one in lines(steps[repetition], repetition=repetition)]
    found = list(sent(made))
    assert [buckets for _, buckets in found] == [[(repetition, 12)] for repetition in range(20)]
    assert [read for read, _ in found[:8]] == [8 * 12 + 1] * 8
    assert [read for read, _ in found[8:12]] == [9 * 12 + 1, 10 * 12 + 1, 11 * 12 + 1, 12 * 12 + 1]


@pytest.mark.parametrize("shot", [1, 4, 16])
def test_repetitions_that_change_within_an_image_are_held(shot: int) -> None:
    made = [
        one
        for first in range(0, 64, shot)
        for repetition in range(20)
        for one in lines(range(first, first + shot), repetition=repetition)
    ]
    assert sorted(buckets for _, buckets in sent(made)) == [[(repetition, 64)] for repetition in range(20)]


def test_a_slice_flagged_at_the_end_of_each_segment_is_whole() -> None:
    made = [one for first in range(4) for s in range(2) for one in lines(range(first, 64, 4), LAST, slice=s)]
    assert [buckets for _, buckets in sent(made, slice=(0, 1, 0))] == [[(0, 64)], [(0, 64)]]


def test_a_line_after_the_end_of_its_slice_makes_the_slice_again(caplog: pytest.LogCaptureFixture) -> None:
    made = [*lines([step for step in range(64) if step != 5], LAST), *lines(slice=1, flags=LAST), *lines([5])]
    found = [buckets for _, buckets in sent(made, slice=(0, 1, 0))]
    assert found == [[(0, 63)], [(0, 64)], [(0, 64)]]
    assert "lines came after their image was sent; it is made again from all lines" in caplog.text


def test_averages_outside_the_repetitions_that_the_header_announces() -> None:
    made = [one for average in range(2) for r in range(3) for one in lines(repetition=r, average=average)]
    assert [buckets for _, buckets in sent(made, average=(0, 1, 0))] == [[(r, 128)] for r in range(3)]


def test_a_repetition_counter_that_starts_again_makes_images_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    made = [one for repetition in (0, 1, 0, 1) for one in lines(repetition=repetition)]
    assert [buckets for _, buckets in sent(made)] == [[(0, 64)], [(1, 64)], [(0, 64)], [(1, 64)]]
    assert "repetition 0, 1: it came again after it was sent" in caplog.text


@pytest.mark.parametrize("trigger", ["phase", "set", "contrast", "average", "slice", "user_0"])
def test_other_counters_that_change_with_every_line(trigger: str) -> None:
    made = []
    for step in range(64):
        for value in range(3):
            one = line(np.ones((1, 4)), step, repetition=value)
            if trigger == "user_0":
                one.idx.user[0] = value
            else:
                setattr(one.idx, trigger, value)
            made.append(one)
    assert [buckets for _, buckets in sent(made, trigger)] == [[(value, 64)] for value in range(3)]


def test_lines_of_a_slice_that_is_sent_again_take_the_place_of_those_kept_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gadgets.twins.completeness.RETAINED_BYTES", 2 * 64 * 4 * 8)  # two images
    late = [*lines([step for step in range(64) if step != 5], LAST, slice=1), *lines([5], slice=1)]
    made = [*(one for _ in range(5) for one in lines(flags=LAST)), *late]
    assert [buckets for _, buckets in sent(made, slice=(0, 1, 0))] == [[(0, 64)]] * 5 + [[(0, 63)], [(0, 64)]]
