"""All queues of a spool: delivery, status, and files that were set aside."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from gadgets.dicom.sender import POLL_S, RetryPolicy, Sender
from gadgets.dicom.spool import DELIVERED_FOLDER, FAILED_FOLDER, queue_folders, waiting_files
from gadgets.stream import ReconError

_senders: dict[Path, Sender] = {}
_senders_lock = threading.Lock()


def deliver_in_background(folder: Path) -> Sender:
    """The process's sender of a queue, started if it does not run already."""
    with _senders_lock:
        sender = _senders.setdefault(folder, Sender(folder))
    sender.start()
    return sender


def deliver(spool: Path, stop: threading.Event, policy: RetryPolicy | None = None, grace_s: float = 10.0) -> None:
    """Deliver all queues of a spool, and what is added to it, until `stop` is set; then end within `grace_s`.

    Raises ReconError when the spool cannot be read.
    """
    senders: dict[Path, Sender] = {}
    try:
        while not stop.is_set():
            for folder in queue_folders(spool):
                if waiting_files(folder):
                    senders.setdefault(folder, Sender(folder, policy)).start()
            stop.wait(POLL_S)
    finally:
        deadline = time.monotonic() + grace_s
        for sender in senders.values():
            sender.stop(max(deadline - time.monotonic(), 0.0))


def deliver_once(spool: Path) -> int:
    """One attempt at every file of a spool; how many are left. Raises ReconError when the spool cannot be read."""
    for folder in queue_folders(spool):
        Sender(folder).attempt(at_once=True)
    return sum(len(waiting_files(folder)) for folder in queue_folders(spool))


@dataclass(frozen=True)
class QueueStatus:
    """One queue: its PACS, the files in it, why the last attempt failed, and when the next one is."""

    pacs: str
    folder: Path
    waiting: int
    failed: int
    delivered: int
    reason: str
    next_attempt_s: float

    def text(self) -> str:
        """The status as one line, without the folder."""
        text = f"{self.waiting} files wait"
        if self.waiting and self.next_attempt_s:
            text += f" ({self.reason}; the next attempt is in {self.next_attempt_s:.0f} s)"
        if self.failed:
            text += f", {self.failed} were set aside"
        return f"{text}, {self.delivered} kept after delivery" if self.delivered else text


def spool_status(spool: Path) -> list[QueueStatus]:
    """The queues of a spool, without patient data. Raises ReconError when it cannot be read."""
    statuses = []
    for folder in queue_folders(spool):
        sender = Sender(folder)
        state = sender.load_state()
        statuses.append(
            QueueStatus(
                pacs=sender.pacs,
                folder=folder,
                waiting=len(waiting_files(folder)),
                failed=len(waiting_files(folder / FAILED_FOLDER)),
                delivered=len(waiting_files(folder / DELIVERED_FOLDER)),
                reason=state.reason,
                next_attempt_s=max(0.0, state.due - time.monotonic()),
            )
        )
    return statuses


def retry_failed(spool: Path) -> int:
    """Put the files that were set aside back into their queues; their number. Raises ReconError when it cannot."""
    count = 0
    for folder in queue_folders(spool):
        for path in waiting_files(folder / FAILED_FOLDER):
            try:
                path.with_suffix(".txt").unlink(missing_ok=True)  # first: it may be set aside again at once
                os.replace(path, folder / path.name)
            except OSError as error:
                raise ReconError(
                    f"{path}: cannot be moved back ({error.strerror}); run as the user the spool belongs to"
                ) from None
            count += 1
    return count
