"""Which scan runs where: the queue of waiting scans, the worker slots, and what is counted."""

from __future__ import annotations

import logging
import threading
from collections import deque

from pipelines.server.fork_server import ForkServer
from pipelines.server.noise_store import NoiseStore
from pipelines.server.scan import Scan, ScanResult
from pipelines.server.settings import ServeSettings
from pipelines.server.worker_slot import QueuedScan, WorkerSlot

RECENT_SCANS = 24  # ended scans that the status page still shows


class ScanQueue:
    """First in, first out: waiting scans start in the worker slots as these become free.

    Parameters
    ----------
    settings : of the server
    fork_server : makes the scan processes

    Attributes
    ----------
    slots : `settings.scans` of them
    scans : records of the scans that run, wait, or ended last
    totals : counters
    stopping : set when no further scan may start
    noise : noise scans of earlier measurements
    """

    def __init__(self, settings: ServeSettings, fork_server: ForkServer) -> None:
        self._settings = settings
        self.scans: list[Scan] = []
        self.totals = {"scans": 0, "failed": 0, "refused": 0, "images": 0, "replaced": 0}
        self.stopping = threading.Event()
        self.noise = NoiseStore()
        self._number = 0
        self._lock = threading.Lock()
        self._scan_has_ended = threading.Condition(self._lock)
        self._waiting: deque[QueuedScan] = deque()
        self.slots = [WorkerSlot(self, settings, fork_server) for _ in range(settings.scans)]

    def waiting(self) -> int:
        """Number of scans that wait for a slot."""
        return len(self._waiting)

    def running(self) -> int:
        """Number of scans that run."""
        return sum(slot.queued is not None for slot in self.slots)

    def processes(self) -> list[int]:
        """Ids of the processes that run a scan, or could."""
        return [slot.process_id for slot in self.slots if slot.ready]

    def count(self, name: str) -> None:
        """Count one more in `totals`."""
        with self._lock:
            self.totals[name] += 1

    # --- for connections

    def add(self, queued: QueuedScan) -> str:
        """Let a scan wait for a slot. Returns why it may not; empty if it may."""
        with self._lock:
            if self.stopping.is_set():
                return "the server stops"
            if len(self._waiting) >= self._settings.waiting + self._settings.scans - self.running():
                return f"{len(self._waiting)} scans wait already"
            self._number += 1
            queued.scan.number = self._number
            self.scans.append(queued.scan)
            self._waiting.append(queued)
            self._start_waiting()
        return ""

    def remove_waiting(self, queued: QueuedScan) -> bool:
        """Remove a scan unless it has a slot by now. Afterwards it gets none. Returns whether it was removed."""
        with self._lock:
            if queued.slot is not None:
                return False
            self._waiting.remove(queued)
            self.scans.remove(queued.scan)
            return True

    def kill_process_of(self, queued: QueuedScan, reason: str) -> None:
        """Kill the process that runs a scan; one that runs another scan by now goes on."""
        with self._lock:
            if queued.slot is not None and queued.slot.queued is queued:
                queued.slot.kill(reason)

    # --- for worker slots

    def slot_is_ready(self, slot: WorkerSlot) -> None:
        """Its process can run a scan."""
        with self._lock:
            slot.ready, slot.queued = not slot.process_killed, None
            self._start_waiting()

    def slot_is_closed(self, slot: WorkerSlot) -> None:
        """Its process runs no further scan."""
        with self._lock:
            slot.ready = False

    def scan_ended(self, slot: WorkerSlot, result: ScanResult) -> None:
        """Record the end of a slot's scan, free the slot, and let the client's connection go on."""
        queued = slot.queued
        assert queued is not None
        scan = queued.scan
        scan.seconds, scan.error = scan.elapsed(), result.error
        if result.error:
            scan.log(logging.ERROR if result.client_error else logging.WARNING, result.error)
        else:
            scan.log(logging.INFO, f"{scan.images} images in {scan.seconds:.2f} s")
        with self._lock:
            scan.state = "failed" if result.error else "done"
            self.totals["scans"] += 1
            self.totals["failed"] += bool(result.error)
            reusable = result.reusable and not slot.process_killed
            self.totals["replaced"] += not reusable
            for old in [one for one in self.scans if one.state in ("done", "failed")][:-RECENT_SCANS]:
                self.scans.remove(old)
            slot.ready, slot.queued = reusable, None
            self._start_waiting()
            self._scan_has_ended.notify_all()
        queued.client_error = result.client_error
        queued.ended.set()

    def _start_waiting(self) -> None:
        """Start the first waiting scans in free slots; the lock is held."""
        for slot in self.slots:
            if self._waiting and slot.ready and slot.queued is None and not self.stopping.is_set():
                slot.queued = self._waiting.popleft()
                slot.queued.start_in(slot)

    # --- the end

    def stop(self, grace_s: float) -> None:
        """Refuse waiting scans, give running ones `grace_s` seconds to end, and kill all processes."""
        self.stopping.set()
        with self._lock:
            for queued in self._waiting:
                queued.wake()
            idle = [slot for slot in self.slots if slot.queued is None]
        for slot in idle:
            slot.kill("")
        with self._scan_has_ended:
            self._scan_has_ended.wait_for(lambda: not self.running(), grace_s)
        for slot in self.slots:
            slot.kill("the server stopped; send the scan again")
