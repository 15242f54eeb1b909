"""Queues between threads, bounded in items and bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gadgetron.types import AcquisitionBucket, ImageArray, ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer, SamplingDescription

from gadgets.errors import Aborted
from gadgets.stream.queues import BoundedQueue, item_bytes
from tests.gadgets.stream.lines import acquisition


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, caught


def test_queue_gives_items_in_order_until_closed() -> None:
    queue = BoundedQueue()
    for number in range(3):
        assert queue.put(number)
    queue.close()
    assert list(queue) == [0, 1, 2]


def test_queue_is_bounded_in_items() -> None:
    queue = BoundedQueue(items=2)
    assert queue.put("a") and queue.put("b")
    assert not queue.put("c", timeout=0.01)
    assert next(iter(queue)) == "a"
    assert queue.put("c", timeout=0.01)
    assert not queue.put("d", timeout=0.01)
    queue.put_unbounded("d")
    queue.close()
    assert list(queue) == ["b", "c", "d"]


def test_queue_is_bounded_in_bytes_but_lets_one_item_in() -> None:
    queue = BoundedQueue(megabytes=1.0)
    large, small = acquisition(3.0), acquisition(0.625)
    assert queue.put(large, timeout=0.01)
    assert not queue.put(small, timeout=0.01)
    items = iter(queue)
    assert next(items) is large
    assert queue.put(small, timeout=0.01)
    assert not queue.put(small, timeout=0.01)
    assert next(items) is small
    assert queue.put(small, timeout=0.01)


def test_full_queue_lets_the_producer_on_when_an_item_is_taken() -> None:
    queue = BoundedQueue(items=1)
    queue.put("a")
    thread, caught = in_thread(lambda: queue.put("b"))
    thread.join(0.05)
    assert thread.is_alive()
    items = iter(queue)
    assert [next(items), next(items)] == ["a", "b"]
    thread.join(2.0)
    assert not thread.is_alive() and not caught


def test_abort_wakes_both_sides_and_drops_what_is_queued() -> None:
    full, empty = BoundedQueue(items=1), BoundedQueue()
    full.put("a")
    waiting = [in_thread(lambda: full.put("b")), in_thread(lambda: next(iter(empty)))]
    for thread, _ in waiting:
        thread.join(0.05)
        assert thread.is_alive()
    full.abort()
    empty.abort()
    for thread, caught in waiting:
        thread.join(2.0)
        assert [type(error) for error in caught] == [Aborted]
    with pytest.raises(Aborted):
        list(full)
    with pytest.raises(Aborted):
        full.put("c")


def buffer(shape: tuple[int, ...]) -> ReconBuffer:
    return ReconBuffer(np.zeros(shape, np.complex64), None, None, np.empty(0, object), SamplingDescription())


def test_item_bytes_counts_every_array() -> None:
    lines = [acquisition(1.0), acquisition(0.5)]
    assert item_bytes(lines[0]) == 2**20
    assert item_bytes(AcquisitionBucket(lines, [], lines[:1], [], [])) == 5 * 2**19
    image = np.zeros((4, 4, 1, 1, 1, 1, 1), np.complex64)
    assert item_bytes(ImageArray(image, None, [], None, None)) == image.nbytes
    bit = ReconBit(buffer((8, 4, 1, 2, 1, 1, 1)), buffer((8, 2, 1, 2, 1, 1, 1)))
    assert item_bytes(ReconData([bit, ReconBit(buffer((8, 4, 1, 2, 1, 1, 1)))])) == 8 * (64 + 32 + 64)
    bit.coil_maps = np.zeros((8, 4, 1, 2, 2, 1, 1), np.complex64)
    assert item_bytes(ReconData([bit])) == 8 * (64 + 32 + 128)
    assert item_bytes("text") == 0
