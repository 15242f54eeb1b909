"""The process that reconstructs one scan after another, with its priors kept in memory."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shutil
import socket
import tempfile
import threading
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from gadgets.dicom.sender import DELIVERY
from gadgets.noise.scan import NoiseScan
from gadgets.reference_scan import ReferenceScan
from gadgets.stream import ReconError
from gadgets.stream.logs import fact_listeners
from pipelines.evaluation.arrays import ArrayReconstruction
from pipelines.kept.conversion import Conversion
from pipelines.server.error_texts import where_raised
from pipelines.server.processes import RETAINED_HEAP_BYTES, configure_malloc, private_memory, trim_heap
from pipelines.server.request import Request
from pipelines.server.scan_run import ScanRun
from priors.registry import is_generative

log = logging.getLogger("genrecon")

KEEP_TIMEOUT_S = 5.0  # for the server to keep a noise scan
OOM_SCORE_ADJUSTMENT = "500"  # where memory runs out, the kernel ends this process rather than the server

Job = tuple[Request, socket.socket, IO[bytes] | None]


def work(link: Connection) -> None:
    """Run the scans that come over the link, until it is closed or a scan leaves threads behind.

    Parameters
    ----------
    link : to the server. It sends a `Conversion`, which is all that this process does then; or (settings, log level,
        folder for temporary files), then for each scan (request,
        whether there is a file of data read ahead) and the descriptors of the client's socket and of that file. It
        receives (event, value): `ready`, or `failed` with a text; `log` with a record; for each scan the events of
        `ScanRun`, and `ended` with a `ScanResult`. It answers `noise`, a noise or reference scan to keep, with None
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJUSTMENT)
    first = link.recv()
    if isinstance(first, Conversion):
        return first.run()
    settings, level, temporary_folder = first
    tempfile.tempdir = temporary_folder
    configure_malloc()
    server = ServerLink(link, temporary_folder)
    log.handlers, log.propagate = [server], False
    fact_listeners.append(server.report_fact)
    threading.excepthook = _log_thread_error
    try:
        log.setLevel(logging.WARNING)  # messages about the made-up data are of no use
        warm_up(settings.warm)
    except ReconError as error:
        server.report("failed", str(error))
        return
    log.setLevel(level)
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_receive_jobs, args=(link, jobs, server), daemon=True).start()
    most_memory = private_memory(os.getpid()) + RETAINED_HEAP_BYTES
    server.report("ready", None)
    while True:
        request, sock, ahead = jobs.get()
        server.in_scan = True
        with sock:
            result = ScanRun(sock, request, ahead, settings, server.report, server.keep_noise).run()
        if ahead is not None:
            ahead.close()
        server.in_scan = False
        server.report("ended", result)
        if not result.reusable:
            os._exit(0)  # the scan's threads would keep a regular exit waiting
        del request, sock, ahead
        if private_memory(os.getpid()) > most_memory:
            trim_heap()


def warm_up(methods: tuple[str, ...]) -> None:
    """Run each method on small made-up data, so that what it loads is there before the first scan."""
    generator = np.random.default_rng(0)
    kspace = (generator.standard_normal((4, 64, 64)) + 1j * generator.standard_normal((4, 64, 64))).astype(np.complex64)
    kspace[:, 1:24:2] = kspace[:, 41::2] = 0
    for method in methods:
        gadgets = ArrayReconstruction({"method": method} | ({"steps": "1"} if is_generative(method) else {}))
        gadgets(gadgets.with_maps(kspace))


class ServerLink(logging.Handler):
    """Sends the server what happens in this process, log records among it.

    Parameters
    ----------
    link : to the server
    temporary_folder : removed when the process ends

    Attributes
    ----------
    in_scan : whether log records are those of a scan
    noise_is_kept : set when the server keeps the noise scan that it was sent
    """

    def __init__(self, link: Connection, temporary_folder: str | None) -> None:
        super().__init__()
        self._link, self._temporary_folder = link, temporary_folder
        self.in_scan = False
        self.noise_is_kept = threading.Event()

    def report(self, event: str, value: Any) -> None:
        """Send an event; if the server is gone, end this process."""
        with self.lock:  # type: ignore[union-attr]
            try:
                self._link.send((event, value))
            except OSError:
                self.end_process()

    def report_fact(self, name: str, text: str) -> None:
        """Send what a gadget tells of its scan."""
        if self.in_scan:
            self.report("fact", (name, text))

    def keep_noise(self, noise: NoiseScan | ReferenceScan) -> None:
        """Let the server keep a noise or reference scan; returns once it does: the next scan may come then."""
        self.noise_is_kept.clear()
        self.report("noise", noise)
        self.noise_is_kept.wait(KEEP_TIMEOUT_S)

    def end_process(self) -> NoReturn:
        """End this process at once, whatever it does, without its temporary files."""
        if self._temporary_folder is not None:
            shutil.rmtree(self._temporary_folder, ignore_errors=True)
        os._exit(0)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a log record."""
        attributes = dict(record.__dict__, msg=record.getMessage(), args=None, exc_info=None, exc_text=None)
        if record.exc_info and record.exc_info[1] is not None:
            attributes["msg"] += f": {where_raised(record.exc_info[1])}"
        self.report("log", (attributes, self.in_scan and record.threadName != DELIVERY))


def _log_thread_error(about: threading.ExceptHookArgs) -> None:
    """Log the end of a thread. Python's own hook would print the error's text, which may quote a header."""
    if about.exc_value is not None:
        log.error("a thread ended: %s", where_raised(about.exc_value))


def _receive_jobs(link: Connection, jobs: queue.SimpleQueue[Job], server: ServerLink) -> None:
    """Receive scans; the process ends with the link, and when a scan cannot be received."""
    try:
        while True:
            message = link.recv()
            if message is None:
                server.noise_is_kept.set()
                continue
            request, has_file = message
            sock = socket.socket(fileno=recv_handle(link))
            ahead = os.fdopen(recv_handle(link), "rb") if has_file else None
            if ahead is not None:
                ahead.seek(0)
            jobs.put((request, sock, ahead))
    finally:
        server.end_process()
