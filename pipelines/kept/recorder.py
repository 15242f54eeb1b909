"""Writes a scan to the disk while it arrives, in a thread of its own: the scan never waits long for the disk."""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO

from gadgetron.external import constants

from gadgets.files import private_folder
from gadgets.noise.scan import ChosenNoise
from gadgets.reference_scan import ChosenReference
from gadgets.stream import reason_of
from pipelines.kept.scan import CHAIN_FILE, REFERENCE_FILE, SENT_CHAIN_FILE, About
from pipelines.kept.store import KeptScans

log = logging.getLogger("genrecon")

CHUNK_BYTES = 2**20  # written at a time,
LONGEST_S = 1.0  # or what came in so many seconds: a process that is killed loses no more
QUEUED_BYTES = 64 * 2**20  # that wait for the disk
PATIENCE_S = 5.0  # for the disk to take some of them; then the scan is not kept
ROOM_BYTES = 64 * 2**20  # after how many bytes the limits are looked at again
SLOW = f"the disk took nothing for {PATIENCE_S:g} s"


class ScanRecorder:
    """Keeps one scan: its header, and then its messages as they come, as an MRD stream.

    When the disk is full or slow, or the scan alone is above the limit, a warning says so, what was written is removed,
    and the scan goes on.

    Parameters
    ----------
    store : all kept scans
    identifier : of this one
    header : its text, as it came
    about : what is known of it
    sent_chain : the chain that the client sent; None: it named one

    Attributes
    ----------
    failure : why the scan is not kept; empty while it is
    """

    def __init__(
        self, store: KeptScans, identifier: str, header: bytes, about: About, sent_chain: bytes | None = None
    ) -> None:
        self._store, self._kept = store, store.scan(identifier)
        self._about = about
        self._buffer = bytearray()
        self._flushed = time.monotonic()
        self._changed = threading.Condition()
        self._waiting: deque[bytes | Callable[[], None]] = deque()
        self._waiting_bytes = self._taken = 0  # bytes that wait; number of items that were written
        self._writing = False
        self._closed = False
        self.failure = ""
        begin = struct.pack("<HI", constants.GADGET_MESSAGE_HEADER, len(header)) + header
        self._put(begin, len(begin))
        if sent_chain is not None:
            self._put(lambda: self._kept.write(SENT_CHAIN_FILE, sent_chain), 0)
        self._thread = threading.Thread(target=self._run, name="keep raw", daemon=True)
        self._thread.start()

    @property
    def warning(self) -> str:
        """What is said where the scan is not kept."""
        return f"the raw data of this scan are not kept: {self.failure}"

    def add(self, data: bytes | bytearray) -> None:
        """Write data of the scan; they are copied."""
        if self.failure:
            return
        with self._changed:  # another thread may flush meanwhile
            self._buffer += data
        if len(self._buffer) >= CHUNK_BYTES or time.monotonic() - self._flushed > LONGEST_S:
            self._flush()

    def add_chain(self, name: str, xml: bytes, anonymize: bool) -> None:
        """Write the chain that runs."""
        self._put(lambda: self._kept.write(CHAIN_FILE, xml), 0)
        self._put(lambda: self._kept.change(chain=name, anonymize=anonymize), 0)

    def add_noise(self, noise: ChosenNoise) -> None:
        """Write the noise of another measurement that the scan is prewhitened with."""
        scan = noise.scan
        if scan is not None:
            self._put(lambda: self._kept.write_noise(scan), 0)
            self._put(lambda: self._kept.change(noise=noise.text, noise_name=noise.name), 0)

    def add_reference(self, reference: ChosenReference) -> None:
        """Write the reference scan whose calibration the scan may use."""
        self._put(lambda: self._kept.write(REFERENCE_FILE, reference.scan.to_bytes()), 0)
        self._put(lambda: self._kept.change(reference=reference.text, reference_name=reference.name), 0)

    def flush(self) -> bool:
        """Wait until all that was added so far is in the file. Returns whether it is."""
        self._flush()
        with self._changed:
            if not self.failure and not self._have(lambda: not self._waiting and not self._writing):
                self._give_up_locked(SLOW)
            return not self.failure

    def close(self) -> bool:
        """No more comes. Waits until all of it is written; returns whether it is."""
        self.flush()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(PATIENCE_S)
        return not self.failure

    def _flush(self) -> None:
        with self._changed:  # the answer to the client may flush while preliminary images do
            data, self._flushed = bytes(self._buffer), time.monotonic()
            self._buffer.clear()
            if data:
                self._put(data, len(data))

    def _put(self, item: bytes | Callable[[], None], size: int) -> bool:
        with self._changed:
            room = QUEUED_BYTES - size
            if not self.failure and not self._have(lambda: self._waiting_bytes <= max(room, 0)):
                self._give_up_locked(SLOW)
            if self.failure:
                return False
            self._waiting.append(item)
            self._waiting_bytes += size
            self._changed.notify_all()
            return True

    def _have(self, condition: Callable[[], bool]) -> bool:
        """Wait for a condition as long as the disk takes something; the lock is held."""
        while not condition() and not self.failure:
            before = self._taken
            self._changed.wait_for(lambda b=before: condition() or self.failure or self._taken != b, PATIENCE_S)  # type: ignore[misc]
            if self._taken == before and not condition():
                return False
        return True

    # --- the writing thread

    def _run(self) -> None:
        try:
            private_folder(self._kept.folder)
            self._kept.write_about(self._about)
            descriptor = os.open(self._kept.stream, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb", buffering=0) as file:
                self._write_all(file)
        except OSError as error:
            self._give_up(reason_of(error))
        except Exception as error:
            self._give_up(f"unexpected {type(error).__name__}")
        if self.failure:
            self._store.remove(self._kept)

    def _write_all(self, file: IO[bytes]) -> None:
        unchecked = ROOM_BYTES
        while (item := self._next()) is not None:
            if callable(item):
                item()
                self._has_taken(0)
                continue
            unchecked += len(item)
            if unchecked >= ROOM_BYTES:
                unchecked = 0
                if not self._store.make_room(len(item), spare=(self._kept.id,)):
                    self._give_up("with it the folder would be above its limit, see --keep-raw-size")
                    return
            rest = memoryview(item)
            while rest:
                rest = rest[file.write(rest) :]
            self._has_taken(len(item))

    def _next(self) -> bytes | Callable[[], None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed or self.failure)
            if self.failure or not self._waiting:
                return None
            self._writing = True
            return self._waiting.popleft()

    def _has_taken(self, size: int) -> None:
        with self._changed:
            self._waiting_bytes -= size
            self._taken += 1
            self._writing = False
            self._changed.notify_all()

    def _give_up(self, reason: str) -> None:
        with self._changed:
            self._give_up_locked(reason)

    def _give_up_locked(self, reason: str) -> None:
        if not self.failure:
            self.failure = reason
            self._waiting.clear()
            self._changed.notify_all()
            log.warning("%s", self.warning)
