"""Stages of a chain, one thread each, joined by bounded queues."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from gadgets.errors import Aborted
from gadgets.stream.queues import QUEUE_MIB, BoundedQueue

STOP_TIMEOUT_S = 1.0  # time that the threads of a chain have to end when it ends early


@dataclasses.dataclass
class StageTiming:
    """Seconds that a stage computed (without waiting for input or for room downstream) and items that passed it."""

    name: str
    busy: float = 0.0
    items_in: int = 0
    items_out: int = 0


Stage = Callable[[Iterator[Any]], Iterator[Any]]


class StageThread(threading.Thread):
    """A thread of `run_stages`; the class tells them from other threads of the process."""


class _Meter:
    """Subtracts the time that a stage waits for its input from its busy time."""

    def __init__(self, items: Iterable[Any], timing: StageTiming) -> None:
        self._items = iter(items)
        self._timing = timing

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        start = time.perf_counter()
        try:
            item = next(self._items)
        finally:
            self._timing.busy -= time.perf_counter() - start
        self._timing.items_in += 1
        return item


def run_stages(
    source: Iterable[Any],
    stages: Sequence[tuple[str, Stage]],
    timings: list[StageTiming] | None = None,
    queue_mib: float = QUEUE_MIB,
) -> Iterator[Any]:
    """Run stages one after another, one thread each, joined by bounded queues; yield what the last one yields.

    Slices overlap: a stage works on one item while the next works on the item before. The first error in any
    stage ends all of them and is raised here, its `stage` attribute naming the stage (of stages within stages the
    innermost); what a stage yielded that fails after the end of its input still comes before that. Closing the
    generator early ends all threads; one that computes ends when it next reads or yields. All queues before the slowest
    stage fill up, each to `queue_mib` or one item.
    """
    queues = [BoundedQueue(megabytes=queue_mib) for _ in range(len(stages) + 1)]
    meters = [StageTiming(name) for name, _ in stages]
    if timings is not None:
        timings.extend(meters)
    failures: list[BaseException] = []
    lock = threading.Lock()

    def fail(error: BaseException, name: str, index: int | None = None) -> None:
        with lock:
            if not isinstance(error, Aborted) and not failures:
                error.stage = getattr(error, "stage", name)  # type: ignore[attr-defined]
                failures.append(error)
        if index is not None and queues[index].ended:
            queues[index + 1].close(failed=True)
            return
        for queue in queues:
            queue.abort()

    def feed() -> None:
        try:
            for item in source:
                queues[0].put(item)
            queues[0].close()
        except BaseException as error:
            fail(error, "source")

    def work(index: int) -> None:
        name, stage = stages[index]
        meter = meters[index]
        start = time.perf_counter()
        try:
            for item in stage(_Meter(queues[index], meter)):
                meter.items_out += 1
                waiting = time.perf_counter()
                queues[index + 1].put(item)
                meter.busy -= time.perf_counter() - waiting
            for _ in queues[index]:  # a stage that stopped reading early must not block the ones before it
                pass
            queues[index + 1].close()
        except BaseException as error:
            fail(error, name, index)
        finally:
            meter.busy += time.perf_counter() - start

    threads = [StageThread(target=feed, name="source", daemon=True)]
    threads += [
        StageThread(target=work, args=(index,), name=name, daemon=True) for index, (name, _) in enumerate(stages)
    ]
    for thread in threads:
        thread.start()
    try:
        with contextlib.suppress(Aborted):
            yield from queues[-1]
        if failures:
            raise failures[0]
    finally:
        for queue in queues:
            queue.abort()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
