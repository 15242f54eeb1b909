"""Which scan runs where: the queue of waiting scans, the worker slots, and what is counted."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import deque

from gadgets.errors import counted
from pipelines.kept.scan import KeptScan
from pipelines.kept.store import new_id
from pipelines.server.fork_server import ForkServer
from pipelines.server.keeper import Keeper
from pipelines.server.late_request import late_request
from pipelines.server.noise_store import NoiseStore
from pipelines.server.read_ahead import ReadAhead
from pipelines.server.scan import Scan, ScanResult
from pipelines.server.settings import ServeSettings
from pipelines.server.worker_slot import LateJob, QueuedScan, WorkerSlot

BEGINS_ANEW = "it begins anew, in the background, when there is room for it"
RECENT_SCANS = 24  # ended scans that the status page still shows


class ScanQueue:
    """First in, first out: waiting scans start in the worker slots as these become free.

    Parameters
    ----------
    settings : of the server
    fork_server : makes the scan processes
    keeper : keeps the raw data of the scans; None: they are not kept

    Attributes
    ----------
    slots : `settings.scans` of them
    late_slots : those of scans that go on in the background; they take no other scan
    scans : records of the scans that run, wait, or ended last
    totals : counters
    stopping : set when no further scan may start
    noise : noise scans of earlier measurements
    """

    def __init__(self, settings: ServeSettings, fork_server: ForkServer, keeper: Keeper | None = None) -> None:
        self._settings, self._keeper = settings, keeper
        self.scans: list[Scan] = []
        self.totals = {"scans": 0, "failed": 0, "refused": 0, "images": 0, "replaced": 0}
        self.stopping = threading.Event()
        self.noise = NoiseStore()
        self._number = 0
        self._lock = threading.Lock()
        self._scan_has_ended = threading.Condition(self._lock)
        self._waiting: deque[QueuedScan] = deque()
        self._fork_server = fork_server
        self.slots = [WorkerSlot(self, settings, fork_server) for _ in range(settings.scans)]
        self.late_slots: list[WorkerSlot] = []

    def waiting(self) -> int:
        """Number of scans that wait for a slot."""
        return len(self._waiting)

    def running(self) -> int:
        """Number of scans that run."""
        return sum(slot.queued is not None for slot in self.slots)

    def all_slots(self) -> list[WorkerSlot]:
        """The slots, and those of scans that go on in the background."""
        with self._lock:
            return [*self.slots, *self.late_slots]

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
            queued.scan.kept_id = new_id() if self._keeper else ""
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
            job = slot.job
            if job is not None and slot.ready:
                slot.queued = job.queued
                job.queued.start_in(slot)
                job.queued.scan.state = "late"
        if job is not None and slot.queued is not None:
            slot.lower_priority()
            ours, theirs = socket.socketpair()  # in place of a client
            with ours, theirs, ReadAhead(ours, 0, 0.0) as ahead:
                slot.hand_over(job.queued, job.request, theirs, ahead)

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
        begins_anew = self._is_late(scan) and (result.error == BEGINS_ANEW or self.stopping.is_set())
        if begins_anew:
            scan.log(logging.INFO, BEGINS_ANEW)
            result = result._replace(error="", client_error="")
        elif result.error:
            scan.log(logging.ERROR if result.client_error else logging.WARNING, result.error)
        else:
            scan.log(logging.INFO, f"{counted(scan.images, 'image')} in {scan.seconds:.2f} s")
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
        if self._keeper and scan.kept_id:
            self._keeper.scan_ended(scan, begins_anew)
        queued.client_error = result.client_error
        queued.ended.set()

    def _is_late(self, scan: Scan) -> bool:
        """Whether its client had its answer. The kept state tells it before the process of the scan does."""
        return scan.state == "late" or (self._keeper is not None and self._keeper.has_late_images(scan))

    def scan_is_late(self, slot: WorkerSlot) -> None:
        """The client of a slot's scan had its answer: the scan goes on in the background, and the slot is replaced."""
        queued = slot.queued
        assert queued is not None
        with self._lock:
            queued.scan.state = "late"
            room = len(self.late_slots) < self._settings.late_scans and not self.stopping.is_set()
            if room:
                new = WorkerSlot(self, self._settings, self._fork_server)
                self.slots[self.slots.index(slot)] = new
                self.late_slots.append(slot)
                slot.is_late = True
        queued.ended.set()
        if room:
            slot.lower_priority()
            new.thread.start()
        else:  # it begins anew when it is its turn
            slot.kill(BEGINS_ANEW)

    def run_late(self, kept: KeptScan) -> bool:
        """Begin the late images of a kept scan anew, in the background. Returns whether there was room for it."""
        request = late_request(kept)
        with self._lock:
            if len(self.late_slots) >= self._settings.late_scans or self.stopping.is_set():
                return False
            self._number += 1
            scan = Scan("the raw data kept", self._number, state="late", kept_id=kept.id)
            slot = WorkerSlot(self, self._settings, self._fork_server, LateJob(QueuedScan(scan), request))
            self.scans.append(scan)
            self.late_slots.append(slot)
        scan.log(logging.INFO, f"late images of scan {request.number}, from its raw data")
        slot.thread.start()
        return True

    def late_slot_ended(self, slot: WorkerSlot) -> None:
        """Its process has ended."""
        job = slot.job
        never_began = job is not None and job.queued.slot is None
        with self._lock:
            self.late_slots.remove(slot)
            if never_began and job is not None:
                self.scans.remove(job.queued.scan)
        if job is not None:
            os.close(job.queued.wake_descriptor)
        if never_began and job is not None and self._keeper:
            self._keeper.owes(job.queued.scan.kept_id)

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
        for slot in self.all_slots():
            slot.kill("the server stopped; send the scan again")
