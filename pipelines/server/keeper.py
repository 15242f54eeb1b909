"""The server's side of raw data that are kept: ended scans become ISMRMRD files, old ones go."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import queue
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gadgets.stream import ReconError, reason_of
from pipelines.kept.conversion import Conversion, discard_part
from pipelines.kept.late import RUNS, fail, late_state, owes_images
from pipelines.kept.scan import ABOUT_FILE, ARRIVES, INCOMPLETE, KeptScan
from pipelines.kept.store import ID, KeptScans, own_folder
from pipelines.server.fork_server import ForkedProcess, ForkServer
from pipelines.server.scan import Scan

log = logging.getLogger("genrecon")

PRUNE_INTERVAL_S = 60.0
CHECK_INTERVAL_S = 0.2  # whether the server stops, while a process makes a file
LATE_INTERVAL_S = 0.5  # between two tries to begin late images
LEFT_BY_SERVER = "the server ended while the scan came"


class Keeper:
    """A thread that takes care of the folder of kept scans as long as the server runs.

    Parameters
    ----------
    folder : of the kept scans
    size_gib, days : limits of the folder
    fork_server : makes the processes that make ISMRMRD files

    Attributes
    ----------
    run_late : begins late images of a kept scan, if there is room

    Raises
    ------
    ReconError
        The folder cannot be written to, or another server has it.
    """

    def __init__(self, folder: Path, size_gib: float, days: float, fork_server: ForkServer) -> None:
        self._lock = own_folder(folder)
        self.store = KeptScans(folder, size_gib, days)
        self._fork_server = fork_server
        self._ended: queue.SimpleQueue[Conversion] = queue.SimpleQueue()
        self._unrecorded: list[Conversion] = []  # how these scans ended could not be written: the disk was full, say
        self._owing: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.run_late: Callable[[KeptScan], bool] = lambda _: False
        self._process: ForkedProcess | None = None
        self._late_at = 0.0
        self._stopping = threading.Event()
        self._idle = threading.Event()
        self.thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def scan_ended(self, scan: Scan, begins_anew: bool = False) -> None:
        """The server is done with a scan: what its process wrote becomes a file, if it does not begin anew."""
        if begins_anew:
            return self.owes(scan.kept_id)
        if self.has_late_images(scan):
            with contextlib.suppress(OSError):
                fail(self.store.scan(scan.kept_id), scan.error)
        self._idle.clear()
        self._ended.put(Conversion(self.store, scan.kept_id, scan.images, scan.error))

    def has_late_images(self, scan: Scan) -> bool:
        """Whether late images of a scan are being made, as what its process wrote tells."""
        state = late_state(self.store.scan(scan.kept_id)) if scan.kept_id else None
        return state is not None and state.state == RUNS

    def owes(self, identifier: str) -> None:
        """A scan owes late images, which are made when there is room."""
        self._owing.put(identifier)

    def stop(self, patience_s: float) -> None:
        """End the thread, but wait so long for files that are made; the rest is made after the next start."""
        if self.thread.ident is not None:
            self._idle.wait(patience_s)
        self._stopping.set()
        process = self._process
        if process is not None:
            process.kill()
        if self.thread.ident is not None:
            self.thread.join(patience_s)
        self._lock.release()

    def _run(self) -> None:
        try:
            self._recover()
        except Exception as error:
            _log_failure(error)
        pruned = -PRUNE_INTERVAL_S
        while not self._stopping.is_set():
            try:
                self._end_next()
            except queue.Empty:
                self._idle.set()
            except Exception as error:
                _log_failure(error)
            if time.monotonic() >= self._late_at and not self._stopping.is_set():
                self._begin_late()
            if time.monotonic() - pruned > PRUNE_INTERVAL_S:
                pruned = time.monotonic()
                with contextlib.suppress(ReconError, OSError):
                    self.store.make_room()
                while self._unrecorded:
                    self._ended.put(self._unrecorded.pop())

    def _end_next(self) -> None:
        """Make the file of the scan that ended next. Raises queue.Empty where none has."""
        conversion = self._ended.get(timeout=CHECK_INTERVAL_S)
        try:
            self._convert(conversion)
        except OSError:
            self._unrecorded.append(conversion)
            raise

    def _begin_late(self) -> None:
        """Begin the late images that have waited longest."""
        with contextlib.suppress(queue.Empty):
            self._late_at = time.monotonic() + LATE_INTERVAL_S
            kept = self.store.scan(self._owing.get_nowait())
            try:
                if self.run_late(kept):
                    return
            except (ReconError, OSError) as error:
                _log_failure(error, "late images")
                with contextlib.suppress(OSError):
                    fail(kept, "its raw data cannot be read")
                return self._ended.put(Conversion(self.store, kept.id))
            self._owing.put(kept.id)

    def _recover(self) -> None:
        """Take care of what an earlier server left."""
        for folder in self.store.folder.iterdir():
            if ID.fullmatch(folder.name) and not (folder / ABOUT_FILE).exists():
                shutil.rmtree(folder, ignore_errors=True)
        for kept in self.store.scans():
            with contextlib.suppress(ReconError):
                about = kept.about
                if owes_images(kept) and (state := late_state(kept)) and state.state == RUNS and kept.stream.exists():
                    self.owes(kept.id)
                elif about.state == ARRIVES:
                    self._ended.put(Conversion(self.store, kept.id, about.images, about.error or LEFT_BY_SERVER))
                elif kept.stream.exists():  # the disk was full
                    self._ended.put(Conversion(self.store, kept.id, about.images, about.error))

    def _convert(self, conversion: Conversion) -> None:
        """Make a file in a process of its own, which shares no interpreter with the server's connections."""
        kept = self.store.scan(conversion.identifier)
        if not (kept.folder / ABOUT_FILE).exists():  # its recorder gave up, or removed it
            return
        ours, theirs = multiprocessing.Pipe()
        with ours, theirs:
            process = self._process = self._fork_server.fork(theirs)
            try:
                ours.send(conversion)
                while not process.wait(CHECK_INTERVAL_S):
                    if self._stopping.is_set():
                        process.kill()
            finally:
                self._process = None
                process.close()
        if not self._stopping.is_set() and kept.about.state == ARRIVES:
            discard_part(kept)
            if kept.raw != kept.stream:
                raise OSError("how a scan ended could not be written")
            log.warning("the raw data of a scan stay a stream: no ISMRMRD file could be made of them")
            kept.change(state=INCOMPLETE, images=conversion.images, error=conversion.error)
        self.store.make_room()


def _log_failure(error: Exception, what: str = "--keep-raw") -> None:
    """Log an error, without the second half of an id, which nobody else may know."""
    log.error("%s: %s", what, ID.sub(lambda found: f"{found[0][:16]}...", reason_of(error)))
