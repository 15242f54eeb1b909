"""How long scans still run, and when waiting ones start."""

from __future__ import annotations

import time

import pytest

from pipelines.server.estimates import seconds_left, seconds_to_start, typical_seconds
from pipelines.server.scan import Scan


def scan(state: str, elapsed: float = 0.0, chain: str = "a", **changes: object) -> Scan:
    one = Scan("", began=time.monotonic() - elapsed, state=state, asked=chain, **changes)  # type: ignore[arg-type]
    one.chain = chain if state != "waits" else ""
    return one


def done(seconds: float, chain: str = "a") -> Scan:
    return scan("done", chain=chain, seconds=seconds, images=1)


def test_images_give_the_pace() -> None:
    one = scan("runs", 10.0, images=2, announced_images=5, last_image_s=8.0)
    assert seconds_left(one, [done(100.0), one]) == pytest.approx(8 / 2 * 5 - 10, abs=0.1)
    one.images = 5
    assert seconds_left(one, [one]) == 0
    one.images = 6  # the header was wrong
    assert seconds_left(one, [one]) is None


def test_earlier_scans_of_the_chain_give_the_time_without_images() -> None:
    before = [done(time) for time in (900.0, 30.0, 20.0, 10.0, 40.0, 50.0)] + [done(7.0, "b")]
    assert typical_seconds("a", before) == 30 and typical_seconds("c", before) is None
    one = scan("runs", 4.0)
    assert seconds_left(one, [*before, one]) == pytest.approx(26, abs=0.1)
    assert seconds_left(scan("runs", 31.0), before) is None
    failed = scan("failed", seconds=1.0)
    assert typical_seconds("a", [failed]) is None


def test_a_time_budget_is_the_most_once_all_data_came() -> None:
    one = scan("runs", 4.0, budget_s=20.0)
    assert seconds_left(one, [one]) is None  # the scanner decides
    one.complete = True
    assert seconds_left(one, [one]) == pytest.approx(16, abs=0.1)


def test_waiting_scans_start_one_after_another() -> None:
    before = [done(30.0), done(7.0, "b")]
    running = [scan("runs", 10.0), scan("runs", 2.0, "b")]
    waiting = [scan("waits"), scan("waits", chain="b"), scan("waits", chain="unknown"), scan("waits")]
    starts = seconds_to_start([*before, *running, *waiting], 2)
    assert starts[:3] == pytest.approx([5, 20, 27], abs=0.2)  # 5 + 30 and 20 + 7
    assert starts[3] is None  # the third may end first
    assert seconds_to_start([*waiting, scan("runs", chain="c")], 1) == [None] * 4
    assert seconds_to_start(before, 1) == []
