"""A worker slot: one scan process at a time, and the thread that supervises it and replaces it when it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any, Protocol

from gadgets.stream import reason_of
from pipelines.server.fork_server import ForkedProcess, ForkServer
from pipelines.server.memory_limit import CHECK_INTERVAL_S, MemoryLimit
from pipelines.server.noise_store import NoiseStore
from pipelines.server.read_ahead import ReadAhead
from pipelines.server.request import Request
from pipelines.server.scan import Scan, ScanResult
from pipelines.server.settings import ServeSettings

log = logging.getLogger("genrecon")

OVERTIME_S = 10.0  # a scan that is above its time limit gets this long to end by itself
START_TIMEOUT_S = 300.0  # for a scan process to get ready
EXIT_TIMEOUT_S = 10.0  # for a killed process to end
RESTART_DELAYS_S = (0.0, 1.0, 5.0, 30.0)  # after 0, 1, 2, 3 or more failed starts or early exits in a row
NICENESS = 19  # of scans in the background
EARLY_EXIT_S = 5.0  # an idle process that ends this soon after its start counts as a failed start


class QueuedScan:
    """A client's scan on its way through the server: it waits for a worker slot, then for its end.

    Attributes
    ----------
    scan : its record
    slot : where it runs; None while it waits
    ended : set at its end
    image_begun : the client may have received part of an image, so no error can be sent
    kill_reason : why the server killed its process
    client_error : what the client gets to read, once it has ended
    wake_descriptor : readable once its waiting is over
    """

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.slot: WorkerSlot | None = None
        self.ended = threading.Event()
        self.image_begun = False
        self.kill_reason = self.client_error = ""
        self.wake_descriptor = os.eventfd(0)

    def start_in(self, slot: WorkerSlot) -> None:
        """End its waiting: it runs in this slot."""
        self.slot = slot
        self.scan.state, self.scan.began = "runs", time.monotonic()
        self.wake()

    def wake(self) -> None:
        """End its waiting."""
        os.eventfd_write(self.wake_descriptor, 1)


@dataclasses.dataclass(frozen=True)
class LateJob:
    """A scan that begins anew from its kept raw data.

    Parameters
    ----------
    queued : the scan
    request : of its client
    """

    queued: QueuedScan
    request: Request


class SlotOwner(Protocol):
    """Gives scans to a slot and records how they end: the `ScanQueue`."""

    stopping: threading.Event
    noise: NoiseStore

    def slot_is_ready(self, slot: WorkerSlot) -> None:
        """Its process can run a scan."""

    def slot_is_closed(self, slot: WorkerSlot) -> None:
        """Its process runs no further scan."""

    def scan_ended(self, slot: WorkerSlot, result: ScanResult) -> None:
        """The scan that it ran has ended."""

    def scan_is_late(self, slot: WorkerSlot) -> None:
        """The client of the scan that it runs had its answer; the scan goes on."""

    def late_slot_ended(self, slot: WorkerSlot) -> None:
        """The process of a late scan has ended."""

    def count(self, name: str) -> None:
        """Count one more in the totals."""


class WorkerSlot:
    """Runs one scan at a time in a process of its own.

    Parameters
    ----------
    owner : gives it scans
    settings : of the server
    fork_server : makes its processes
    job : the one scan that it runs, late; None: it runs any number of them

    Attributes
    ----------
    is_late : its scan is the last that it runs
    queued : scan that it runs
    ready : whether its process can run a scan
    process_killed : the process was killed and gets no scan, whatever it still reports
    start_tried : set once the first process is ready, or failed to start
    start_error : why a process did not get ready
    memory_limit : of the process
    thread : supervises the processes
    """

    def __init__(
        self, owner: SlotOwner, settings: ServeSettings, fork_server: ForkServer, job: LateJob | None = None
    ) -> None:
        self._owner, self._settings, self._fork_server = owner, settings, fork_server
        self.job, self.is_late = job, job is not None
        self._last_ended = False
        self.queued: QueuedScan | None = None
        self.ready = False
        self.process_killed = False
        self.start_tried = threading.Event()
        self.start_error = ""
        self.memory_limit = MemoryLimit(settings.limits.memory_gib)
        self.thread = threading.Thread(target=self._supervise, name="worker slot", daemon=True)
        self._process: ForkedProcess | None = None
        self._sending = threading.Lock()  # held while something is sent over the link
        self._link: Connection | None = None
        self._temporary_folder: str | None = None
        self._ready_deadline = math.inf
        self._ready_since = 0.0
        self._exited_early = False

    @property
    def process_id(self) -> int:
        """Id of its process; 0 without one."""
        process = self._process
        return 0 if process is None else process.pid

    def hand_over(self, queued: QueuedScan, request: Request, sock: socket.socket, ahead: ReadAhead) -> None:
        """Send a scan that was started in this slot, its connection and the data read ahead, to the process."""
        with self._sending:
            if self.queued is not queued or self._link is None:
                return  # the process has just ended, and with it the scan
            try:
                if not request.again:
                    request = dataclasses.replace(request, number=queued.scan.number, kept_id=queued.scan.kept_id)
                self._link.send((self._owner.noise.with_noise(request), ahead.file is not None))
                send_handle(self._link, sock.fileno(), None)
                if ahead.file is not None:
                    send_handle(self._link, ahead.file.fileno(), None)
            except OSError as error:  # the process cannot go on with half of that
                self.kill(f"it could not be handed over ({reason_of(error)}); send the scan again")

    def lower_priority(self) -> None:
        """Let its process run when no other wants to: new threads of a thread have its priority."""
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{self.process_id}/task"):
                with contextlib.suppress(OSError):  # it has just ended
                    os.setpriority(os.PRIO_PROCESS, int(thread), NICENESS)

    def kill(self, reason: str) -> None:
        """End the process at once; the client of its scan gets the reason."""
        queued, process = self.queued, self._process
        if queued is not None:
            queued.kill_reason = queued.kill_reason or reason
        if process is not None:
            self.process_killed = True
            process.kill()

    # --- the supervising thread

    def _supervise(self) -> None:
        failures = 0
        while not self._owner.stopping.is_set():
            self.start_error = ""
            try:
                self._start_process()
                self._follow_process()
            except Exception as error:  # no descriptors or memory for another process, for instance
                self.start_error = f"a scan process cannot be started ({reason_of(error)})"
            self._end_process()
            if self.start_error and self.start_tried.is_set():
                log.error("%s; it is tried again", self.start_error)
            self.start_tried.set()
            if self.is_late:
                return self._owner.late_slot_ended(self)
            failures = failures + 1 if self.start_error or self._exited_early else 0
            self._owner.stopping.wait(RESTART_DELAYS_S[min(failures, len(RESTART_DELAYS_S) - 1)])
        self.start_tried.set()
        if self.is_late:
            self._owner.late_slot_ended(self)

    def _start_process(self) -> None:
        self._ready_deadline, self.process_killed = time.monotonic() + START_TIMEOUT_S, False
        with contextlib.suppress(OSError):  # a full disk has no room for one
            self._temporary_folder = tempfile.mkdtemp(prefix="genrecon-")
        self._link, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = self._fork_server.fork(theirs)
        with self._sending:
            self._link.send((self._settings, log.getEffectiveLevel(), self._temporary_folder))

    def _follow_process(self) -> None:
        """Handle what the process reports, and enforce its limits, until it ends."""
        assert self._link is not None
        while not self._last_ended and (self.queued is not None or not self._owner.stopping.is_set()):
            try:
                interval = 1.0 if self.queued is None else CHECK_INTERVAL_S
                report = self._link.recv() if self._link.poll(interval) else None
            except (EOFError, OSError):
                return
            if report is not None:
                self._handle_report(*report)
            self._enforce_limits()

    def _handle_report(self, event: str, value: Any) -> None:
        queued = self.queued
        if event == "log":
            attributes, in_scan = value
            number = queued.scan.number if queued is not None and in_scan else None
            log.handle(logging.makeLogRecord(attributes | {"scan": number}))
            if queued is not None and in_scan and attributes["levelno"] >= logging.WARNING:
                queued.scan.add_warning(attributes["msg"])
        elif event == "ready":
            self.memory_limit.measure_idle(self.process_id)
            self._ready_deadline, self._ready_since = math.inf, time.monotonic()
            self.start_tried.set()
            self._owner.slot_is_ready(self)
        elif event == "failed":
            self.start_error = value
        elif queued is not None:
            self._handle_scan_report(queued, event, value)

    def _handle_scan_report(self, queued: QueuedScan, event: str, value: Any) -> None:
        scan = queued.scan
        if event == "chain":
            scan.chain, scan.method, scan.budget_s = value
            scan.log(logging.INFO, f"chain {scan.chain} from {scan.peer}")
        elif event == "fact":
            name, text = value
            scan.facts[name] = text
        elif event == "announced":
            scan.announced_lines, scan.announced_images = value
        elif event == "received":
            scan.lines, scan.complete = value
        elif event == "noise":
            self._owner.noise.keep(value)
            with self._sending, contextlib.suppress(OSError):  # the process may have ended meanwhile
                if self._link is not None:
                    self._link.send(None)
        elif event == "sending":
            queued.image_begun = True
        elif event == "image":
            queued.image_begun = False
            scan.add_image(*value)
            self._owner.count("images")
        elif event == "late":
            self._owner.scan_is_late(self)
        elif event == "ended":
            self._last_ended = self.is_late
            if not value.reusable:
                scan.log(logging.INFO, "its computation goes on, so its process is replaced")
            self._owner.scan_ended(self, value)

    def _enforce_limits(self) -> None:
        """Kill a process that takes more time or memory than it may."""
        limits, queued = self._settings.limits, self.queued
        if queued is not None:
            if queued.scan.elapsed() > limits.scan_s + OVERTIME_S:
                self.kill(f"it took longer than {limits.scan_s:g} s")
            # Until the chain is known, the process may still hold memory of the scan before.
            if self.memory_limit.exceeded(self.process_id) and queued.scan.chain:
                self.kill(f"it took more than {limits.memory_gib:g} GiB of memory; raise --memory if it may")
        elif time.monotonic() > self._ready_deadline:
            self.start_error = f"a scan process was not ready within {START_TIMEOUT_S:g} s"
            self.kill("")

    def _end_process(self) -> None:
        """Make sure that the process has ended; remove what it leaves, report its scan, and log an unexpected end."""
        was_ready, was_starting = self.ready, self._ready_deadline < math.inf
        self._exited_early = False
        self._owner.slot_is_closed(self)
        code: int | None = None
        if self._process is not None:
            self._process.kill()
            if self._process.wait(EXIT_TIMEOUT_S):
                code = self._fork_server.exit_code(self._process.pid)
            else:
                log.error("process %d does not end, though it was killed; look at it", self._process.pid)
            self._process.close()
            self._process = None
        with self._sending:
            if self._link is not None:
                self._link.close()
                self._link = None
        if self._temporary_folder is not None:
            shutil.rmtree(self._temporary_folder, ignore_errors=True)
            self._temporary_folder = None
        if self.queued is not None:
            text = self.queued.kill_reason or f"its process ended{_exit_text(code)}; send the scan again"
            self._owner.scan_ended(self, ScanResult(text, text, reusable=False))
        elif self._owner.stopping.is_set():
            return
        elif was_starting:
            self.start_error = self.start_error or f"a scan process ended before it was ready{_exit_text(code)}"
        elif was_ready and not self.is_late:
            self._owner.count("replaced")
            self._exited_early = time.monotonic() - self._ready_since < EARLY_EXIT_S
            log.warning("a scan process ended%s; another one is started", _exit_text(code))


def _exit_text(code: int | None) -> str:
    """An exit code in brackets, with a blank before it; empty if it is not known."""
    if code is None:
        return ""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f" ({signal.Signals(-code).name})"
    return f" (exit code {code})"
