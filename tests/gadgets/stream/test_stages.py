"""Stages in threads: order, overlap, errors and an early end."""

from __future__ import annotations

import contextlib
import gc
import inspect
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gadgets.stream import ReconError, Stage, StageTiming, run_stages
from gadgets.stream.queues import BoundedQueue
from tests.gadgets.stream.lines import acquisition


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 3.0
    while left := [thread for thread in threading.enumerate() if thread not in before]:
        assert time.monotonic() < deadline, left
        gc.collect()
        time.sleep(0.01)


def adding(amount: int) -> Stage:
    return lambda items: (item + amount for item in items)


def failing_at(number: int, error: BaseException) -> Stage:
    def stage(items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if item == number:
                raise error
            yield item

    return stage


def endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def test_stages_run_one_after_another_in_order() -> None:
    stages = [("a", adding(1)), ("b", lambda items: (2 * item for item in items))]
    assert list(run_stages(range(1000), stages)) == [2 * (number + 1) for number in range(1000)]


def test_no_stages_hand_the_source_on() -> None:
    assert list(run_stages("abc", [])) == ["a", "b", "c"]


def test_stages_overlap() -> None:
    gate = threading.Event()

    def first(items: Iterator[Any]) -> Iterator[Any]:
        yield "early"
        assert gate.wait(5.0)
        yield "late"

    def second(items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            gate.set()  # comes only while the first stage still runs
            yield item

    assert list(run_stages([], [("first", first), ("second", second)])) == ["early", "late"]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", [ValueError, ReconError, SystemExit, StopAsyncIteration])
def test_error_in_any_stage_ends_all_and_names_it(place: int, kind: type[BaseException]) -> None:
    error = kind("broken")
    stages = [(str(number), adding(0)) for number in range(3)]
    stages[place] = (str(place), failing_at(500, error))
    results = []
    with pytest.raises(kind) as caught:
        for item in run_stages(endless(), stages):
            results.append(item)
    assert caught.value is error
    assert error.stage == str(place)  # type: ignore[attr-defined]
    assert results == list(range(len(results))) and len(results) <= 500


def test_error_of_the_source_is_raised() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ReconError("file: broken")

    with pytest.raises(ReconError, match="file: broken") as caught:
        list(run_stages(source(), [("a", adding(1))]))
    assert caught.value.stage == "source"  # type: ignore[attr-defined]


def test_error_before_the_first_item_is_raised() -> None:
    def stage(items: Iterator[Any]) -> Iterator[Any]:
        raise ReconError("gadget: not configured")
        yield

    with pytest.raises(ReconError, match="not configured"):
        list(run_stages(endless(), [("a", adding(1)), ("b", stage)]))


def test_error_ends_a_stage_that_waits_for_input() -> None:
    """The first stage fails while the second waits for items that never come."""
    start = time.monotonic()
    with pytest.raises(ValueError, match="broken"):
        list(run_stages([0], [("a", failing_at(0, ValueError("broken"))), ("b", adding(1)), ("c", adding(1))]))
    assert time.monotonic() - start < 1.5


def test_stages_within_a_stage_name_the_innermost() -> None:
    def composite(items: Iterator[Any]) -> Iterator[Any]:
        return run_stages(items, [("inner a", adding(0)), ("inner b", failing_at(3, ValueError("broken")))])

    with pytest.raises(ValueError, match="broken") as caught:
        list(run_stages(endless(), [("outer", composite), ("after", adding(0))]))
    assert caught.value.stage == "inner b"  # type: ignore[attr-defined]


def test_error_after_a_composite_stage_ends_the_stages_within() -> None:
    def composite(items: Iterator[Any]) -> Iterator[Any]:
        return run_stages(items, [("inner a", adding(0)), ("inner b", adding(0))])

    start = time.monotonic()
    with pytest.raises(ValueError, match="broken"):
        list(run_stages(endless(), [("outer", composite), ("after", failing_at(700, ValueError("broken")))]))
    assert time.monotonic() - start < 2.0


def test_closing_the_generator_early_ends_all_threads() -> None:
    results = run_stages(endless(), [("a", adding(1)), ("b", adding(1))])
    assert next(results) == 2
    start = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 1.5
    assert not [thread for thread in threading.enumerate() if thread.name in {"source", "a", "b"}]


def test_closing_does_not_wait_long_for_a_stage_that_computes() -> None:
    release = threading.Event()

    def stage(items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            yield item
            release.wait(30.0)

    results = run_stages(endless(), [("computing", stage)])
    assert next(results) == 0
    start = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 5.0
    release.set()


def test_generator_that_is_never_started_starts_no_thread() -> None:
    count = threading.active_count()
    results = run_stages(endless(), [("a", adding(1))])
    assert threading.active_count() == count
    results.close()  # type: ignore[attr-defined]


def test_stage_that_stops_reading_early_does_not_block_those_before() -> None:
    read = 0

    def source() -> Iterator[int]:
        nonlocal read
        for number in range(2000):
            read += 1
            yield number

    def first_two(items: Iterator[Any]) -> Iterator[Any]:
        yield next(items)
        yield next(items)

    assert list(run_stages(source(), [("a", adding(0)), ("first two", first_two), ("b", adding(1))])) == [1, 2]
    assert read == 2000


@pytest.mark.parametrize("part", [0.0, 0.1, 1.5])
def test_fast_producer_never_runs_further_ahead_than_the_queues_hold(part: float) -> None:
    """Ahead of the reader are at most: two full queues, and one item in the hands of each thread."""
    produced = consumed = ahead = 0
    limits = inspect.signature(BoundedQueue).parameters
    line = acquisition(part * limits["megabytes"].default)
    most = max(1, int(1 / part)) if part else limits["items"].default

    def source() -> Iterator[Any]:
        nonlocal produced, ahead
        for _ in range(3 * most + 20):
            produced += 1
            ahead = max(ahead, produced - consumed)
            yield line

    for _ in run_stages(source(), [("pass", lambda items: (item for item in items))]):
        seen = -1
        while not consumed and seen != produced:  # let the producer run into the bound
            seen = produced
            time.sleep(0.1)
        consumed += 1
    assert consumed == 3 * most + 20
    assert most <= ahead <= 2 * most + 4


def test_a_passed_item_is_not_kept_alive() -> None:
    """A queue that waits for the next item must not hold the last one's memory."""
    alive: list[int] = []

    class Item:
        def __del__(self) -> None:
            alive.remove(1)

    def source() -> Iterator[Item]:
        for _ in range(50):
            alive.append(1)
            yield Item()

    def consume(items: Iterator[Any]) -> Iterator[Any]:
        for _ in items:
            pass
        return iter(())

    assert list(run_stages(source(), [("consume", consume)])) == []
    gc.collect()
    assert not alive


def test_timings_tell_work_from_waiting() -> None:
    def slow(items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            time.sleep(0.03)
            yield item
            yield item

    timings: list[StageTiming] = []
    stages: list[tuple[str, Stage]] = [("fast", adding(0)), ("slow", slow), ("last", adding(0))]
    assert len(list(run_stages(range(5), stages, timings))) == 10
    assert [(timing.name, timing.items_in, timing.items_out) for timing in timings] == [
        ("fast", 5, 5),
        ("slow", 5, 10),
        ("last", 10, 10),
    ]
    assert 0.15 <= timings[1].busy < 1.0
    assert timings[0].busy < 0.1 and timings[2].busy < 0.1  # they wait for 0.15 s


def test_results_stopped_by_the_reader_leave_no_error() -> None:
    with contextlib.closing(run_stages(endless(), [("a", adding(1))])) as results:  # type: ignore[type-var]
        for item in results:
            if item == 600:
                break


def test_what_a_stage_yielded_that_fails_at_its_end_comes_before_the_error() -> None:
    def failing(items: Iterator[int]) -> Iterator[int]:
        yield from items
        raise ReconError("at the end")

    def slow(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            time.sleep(0.01)
            yield item
        raise AssertionError("its input has not ended well")

    found = []
    with pytest.raises(ReconError, match="at the end") as caught:
        for item in run_stages(range(20), [("failing", failing), ("slow", slow)]):
            found.append(item)
    assert found == list(range(20)) and caught.value.stage == "failing"
