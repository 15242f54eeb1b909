"""Sends the files of one queue to its PACS."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydicom.errors import InvalidDicomError

from gadgets.dicom.answers import Answer, PacsConnection, PacsError
from gadgets.dicom.destination import Destination
from gadgets.dicom.pacs import connect
from gadgets.dicom.queue_state import FileState, QueueState
from gadgets.dicom.spool import (
    DELIVERED_FOLDER,
    DESTINATION_FILE,
    FAILED_FOLDER,
    LOCK_FILE,
    STATE_FILE,
    name_of,
    waiting_files,
)
from gadgets.files import private_folder, replace_file
from gadgets.stream import ReconError, one_line

log = logging.getLogger("genrecon")

POLL_S = 1.0  # time between two looks for files that other processes added
IDLE_CONNECTION_S = 2.0  # time that a connection stays open for the next image of a scan
STALE_PART_FILE_S = 86400.0  # age from which a temporary file is one that a killed process left
DELIVERY = "delivery"  # name of the threads that send


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again: after `first_s`, then twice as long each time up to `longest_s`, less a random part.

    A file that the PACS refused `refusals` times is set aside, and so is a damaged one; after every other failure it is
    tried again, without limit.
    """

    first_s: float = 2.0
    longest_s: float = 300.0
    refusals: int = 10

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return random.uniform(0.5, 1.0) * min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 60))


class Sender:
    """Sends the files of one queue, in a thread of its own (`start`) or in the caller's (`attempt`).

    A file leaves the queue when the PACS confirmed that very instance. A PACS that cannot be reached, breaks off or is
    too slow is tried again without limit, at growing intervals. The file at which it broke off then comes after the
    others, so that one file cannot hold up the rest. A file that the PACS refused `RetryPolicy.refusals` times goes
    to `failed/`, with the reason in a text file next to it.
    """

    def __init__(self, folder: Path, policy: RetryPolicy | None = None) -> None:
        self.folder = folder
        self._policy = policy or RetryPolicy()
        self._state = QueueState()
        self._unsaved = False
        self._paused_until = 0.0  # no attempt before, after an error on this side
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False

    @property
    def pacs(self) -> str:
        """Address of the PACS, or the folder's name when it is not known."""
        try:
            return self._destination().pacs
        except ReconError:
            return self.folder.name

    def _destination(self) -> Destination:
        path = self.folder / DESTINATION_FILE
        try:
            return Destination.from_json(path.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise ReconError(
                f"{path}: cannot be read ({one_line(error)}); run the chain again, which writes it anew"
            ) from None

    # --- the thread

    def start(self) -> None:
        """Send in the background until the queue is empty; a running thread looks for new files at once."""
        with self._lock:
            self._wake.set()
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name=DELIVERY, daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # no memory for another thread
                    self._thread = None
                    raise

    def stop(self, grace_s: float = 0.0) -> None:
        """End after the file that is being sent; wait `grace_s` for that."""
        self._stopping = True
        self._wake.set()
        if (thread := self._thread) is not None:
            thread.join(grace_s)

    def wait(self, files: Iterable[Path], timeout_s: float) -> int:
        """Wait until these files are delivered, nothing can be sent now, or time is up; how many are left."""
        deadline = time.monotonic() + timeout_s
        left = [path for path in files if path.exists()]
        while left and self._thread is not None and not self._state.failures and time.monotonic() < deadline:
            time.sleep(0.02)
            left = [path for path in left if path.exists()]
        return len(left)

    def _run(self) -> None:
        unexpected = 0
        while True:
            self._wake.clear()
            try:
                wait = self.attempt()
                unexpected = 0
            except Exception as error:  # the thread goes on; the text may hold patient data
                log.error("PACS %s: unexpected %s; it is tried again", self.folder.name, type(error).__name__)
                unexpected += 1
                wait = self._pause(self._policy.delay(unexpected))
            with self._lock:
                if self._stopping or (wait is None and not self._wake.is_set()):
                    self._thread = None
                    return
            self._wake.wait(POLL_S if wait is None else min(wait, POLL_S))

    def _pause(self, seconds: float) -> float:
        """Make no attempt for some seconds; returns them."""
        self._paused_until = time.monotonic() + seconds
        return seconds

    # --- one attempt

    def attempt(self, at_once: bool = False) -> float | None:
        """Send what is due, or everything if `at_once`.

        Returns
        -------
        Seconds until something is due; None when the queue is empty.
        """
        if not waiting_files(self.folder):
            return None
        if not at_once and (pause := self._paused_until - time.monotonic()) > 0:
            return pause
        try:
            with FileLock(self.folder / LOCK_FILE, timeout=0, mode=0o600):
                self._remove_stale()
                if not self._unsaved:
                    self._state = self.load_state()
                now = time.monotonic()
                if at_once or self._state.due <= now:
                    self._session(at_once)
                waiting = [self._state.files.get(path.name, FileState()).due for path in waiting_files(self.folder)]
                return max(self._state.due, min(waiting), now) - now if waiting else None
        except Timeout:
            if at_once:
                log.warning("PACS %s: another process is sending from %s", self.pacs, self.folder)
            return POLL_S
        except OSError as error:  # a full disk has no room for the lock
            log.warning("PACS %s: cannot send from %s (%s)", self.pacs, self.folder, error.strerror)
            return self._pause(self._policy.longest_s)

    def _session(self, at_once: bool) -> None:
        """Send over one connection, and look for more files before it is closed."""
        tried: set[str] = set()
        delivered = 0

        def due() -> list[Path]:
            now = time.monotonic()
            states = self._state.files
            paths = [path for path in waiting_files(self.folder) if path.name not in tried]
            paths = [p for p in paths if at_once or states.get(p.name, FileState()).due <= now]
            return sorted(paths, key=lambda path: states.get(path.name, FileState()).breaks)

        if not (paths := due()):
            return
        try:
            destination = self._destination()
            with contextlib.closing(connect(destination)) as connection:
                while paths and not self._stopping:
                    path = paths.pop(0)
                    tried.add(path.name)
                    delivered += self._store(connection, path, destination)
                    paths = paths or due() or self._wait_for_more(at_once, due)
        except (PacsError, ReconError) as error:
            self._failed(str(error))
        finally:
            names = {path.name for path in waiting_files(self.folder)}
            self._state.files = {name: state for name, state in self._state.files.items() if name in names}
            self._save_state()
            if delivered:
                log.info("PACS %s: %d files delivered", self.pacs, delivered)

    def _wait_for_more(self, at_once: bool, due: Callable[[], list[Path]]) -> list[Path]:
        """Files that come while the connection is kept open for the next image of a scan."""
        deadline = time.monotonic() + IDLE_CONNECTION_S
        paths: list[Path] = []
        while not (paths or at_once or self._thread is None or self._stopping) and time.monotonic() < deadline:
            self._wake.wait(min(POLL_S, max(deadline - time.monotonic(), 0.0)))
            self._wake.clear()
            paths = due()
        return paths

    def _store(self, connection: PacsConnection, path: Path, destination: Destination) -> bool:
        """Send one file and act on the answer; whether it is delivered."""
        try:
            whole = path.stem == name_of(path.read_bytes())
            answer = connection.store(path) if whole else Answer(False)
        except FileNotFoundError:  # another process took it out of the queue
            return False
        except InvalidDicomError:
            whole, answer = False, Answer(False)
        except Exception as error:  # of any kind: a file at which a library fails must not hold up the others
            self._file_state(path).breaks += 1
            if isinstance(error, PacsError):
                raise
            raise PacsError(f"unexpected {type(error).__name__}") from error
        if self._state.failures:
            log.info("PACS %s: it answers again", destination.pacs)
            self._state.failures, self._state.due, self._state.reason = 0, 0.0, ""
        try:
            if not whole:
                self._set_aside(path, f"{path.name} is damaged; look at the spool's disk, then reconstruct it again")
                return False
            if not answer.stored:
                self._refused(path, destination, answer.text)
                return False
            if answer.text:
                log.warning("PACS %s: %s, %s", destination.pacs, path.name, answer.text)
            if destination.keep_delivered:
                private_folder(self.folder / DELIVERED_FOLDER)
                os.replace(path, self.folder / DELIVERED_FOLDER / path.name)
            else:
                path.unlink(missing_ok=True)
            return True
        except OSError as error:  # it stays, and is sent once more: a second copy of the same SOP Instance
            self._file_state(path).due = time.monotonic() + self._policy.longest_s
            log.warning("PACS %s: %s cannot be moved (%s)", destination.pacs, path, error.strerror)
            return False

    def _file_state(self, path: Path) -> FileState:
        return self._state.files.setdefault(path.name, FileState())

    def _refused(self, path: Path, destination: Destination, text: str) -> None:
        state = self._file_state(path)
        state.refusals += 1
        if state.refusals < self._policy.refusals:
            state.due = time.monotonic() + self._policy.delay(state.refusals)
            log.warning("PACS %s: it refuses %s (%s); it is tried again", destination.pacs, path.name, text)
            return
        reason = f"it refused {path.name} {state.refusals} times, the last time with {text}"
        self._set_aside(path, f"{reason}; remove the cause, then: genrecon deliver --retry-failed")

    def _set_aside(self, path: Path, reason: str) -> None:
        aside = self.folder / FAILED_FOLDER / path.name
        text = f"PACS {self.pacs}: {reason}"
        replace_file(aside.with_suffix(".txt"), f"{text}\n".encode(), private=True)
        os.replace(path, aside)
        log.error("%s (it is in %s)", text, aside.parent)

    def _failed(self, reason: str) -> None:
        state = self._state
        state.failures += 1
        delay = self._policy.delay(state.failures)
        state.due = time.monotonic() + delay
        log.log(
            logging.INFO if reason == state.reason else logging.WARNING,
            "PACS %s: %s; %d files wait in %s, the next attempt is in %.0f s",
            self.pacs,
            reason,
            len(waiting_files(self.folder)),
            self.folder,
            delay,
        )
        state.reason = reason

    # --- what is kept between attempts

    def load_state(self) -> QueueState:
        """The state another attempt left; everything is due when it left none that can be read."""
        try:
            return QueueState.from_json((self.folder / STATE_FILE).read_bytes(), self._policy.longest_s)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("%s: cannot be read (%s); all files are due", self.folder / STATE_FILE, one_line(error))
        return QueueState()

    def _save_state(self) -> None:
        try:
            replace_file(self.folder / STATE_FILE, self._state.to_json().encode(), private=True)
            self._unsaved = False
        except OSError:  # a full disk: what this process remembers counts until there is room
            self._unsaved = True

    def _remove_stale(self) -> None:
        """Remove temporary files that processes left when they were killed."""
        for path in self.folder.glob(".*.part"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_PART_FILE_S:
                    path.unlink()
