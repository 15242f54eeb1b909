"""A queue between two threads, bounded in items and bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types import ReconData

from gadgets.errors import Aborted


def item_bytes(item: Any) -> int:
    """Memory an item of the stream holds, in bytes (arrays only)."""
    data = getattr(item, "data", None)
    if isinstance(item, ismrmrd.Acquisition):
        return int(item.data.nbytes + item.traj.nbytes)
    if isinstance(data, np.ndarray):
        return data.nbytes
    if isinstance(item, ReconData):
        buffers = [buffer for bit in item.bits for buffer in (bit.data, bit.ref) if buffer is not None]
        maps = [bit.coil_maps for bit in item.bits if getattr(bit, "coil_maps", None) is not None]
        return sum(buffer.data.nbytes for buffer in buffers) + sum(array.nbytes for array in maps)
    if isinstance(data, list):
        return sum(acquisition.data.nbytes for acquisition in (*data, *item.ref))
    return 0


QUEUE_MIB = 24.0


class BoundedQueue:
    """A queue between two threads, bounded in items and in bytes so that a scan of any length fits in memory.

    An empty queue takes one item of any size. `put` and iteration raise Aborted once `abort` was called.
    """

    def __init__(self, items: int = 256, megabytes: float = QUEUE_MIB) -> None:
        self._limit = items
        self._byte_limit = int(megabytes * 2**20)
        self._queue: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._closed = self._failed = False
        self._aborted = False
        self._changed = threading.Condition()

    def put(self, item: Any, timeout: float | None = None) -> bool:
        """Append an item; wait while the queue is full. False when `timeout` seconds passed without room."""
        size = item_bytes(item)
        with self._changed:
            ready = self._changed.wait_for(
                lambda: (
                    self._aborted
                    or not self._queue
                    or (len(self._queue) < self._limit and self._bytes + size <= self._byte_limit)
                ),
                timeout,
            )
            if self._aborted:
                raise Aborted
            if ready:
                self._append(item, size)
            return ready

    def put_unbounded(self, item: Any) -> None:
        """Append an item however full the queue is."""
        with self._changed:
            self._append(item, item_bytes(item))

    def _append(self, item: Any, size: int) -> None:
        self._queue.append((item, size))
        self._bytes += size
        self._changed.notify_all()

    def close(self, failed: bool = False) -> None:
        """No more items will come; iteration ends after the last one, with Aborted if `failed`."""
        with self._changed:
            self._closed, self._failed = True, failed
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether it is closed, and all items were taken."""
        with self._changed:
            return self._closed and not self._queue

    def abort(self) -> None:
        """Wake and end both sides at once and drop what is queued."""
        with self._changed:
            self._aborted = True
            self._queue.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed or self._aborted)
                if self._aborted or (self._failed and not self._queue):
                    raise Aborted
                if not self._queue:
                    return
                item, size = self._queue.popleft()
                self._bytes -= size
                self._changed.notify_all()
            yield item
            del item  # the next wait must not keep the last item alive
