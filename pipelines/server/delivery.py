"""Sends DICOM files from the server's spool to their PACS as long as the server runs."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path

from gadgets.dicom.delivery import deliver, spool_status
from gadgets.dicom.sender import DELIVERY
from gadgets.stream import ReconError

log = logging.getLogger("genrecon")

RETRY_S = 30.0  # after a failure of the delivery itself; a PACS that is away has delays of its own
CHECK_INTERVAL_S = 0.05


class SpoolDelivery:
    """A thread that delivers what earlier processes left in a spool, and what scans add to it.

    Parameters
    ----------
    spool : folder
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name=DELIVERY, daemon=True)

    def stop(self, patience_s: float) -> None:
        """End the thread soon, but wait so long for files whose PACS can be reached."""
        deadline = time.monotonic() + patience_s
        with contextlib.suppress(ReconError, OSError):  # the thread logs them
            while self.thread.is_alive() and time.monotonic() < deadline:
                if not any(queue.waiting and not queue.next_attempt_s for queue in spool_status(self._spool)):
                    break
                time.sleep(CHECK_INTERVAL_S)
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                deliver(self._spool, self._stopping)
            except Exception as error:  # the next attempt may succeed
                log.error("%s", error if isinstance(error, ReconError) else f"delivery: {type(error).__name__}")
                self._stopping.wait(RETRY_S)
        with contextlib.suppress(ReconError, OSError):  # logged above
            for queue in spool_status(self._spool):
                if queue.waiting:
                    log.warning("PACS %s: %s until the server's next start", queue.pacs, queue.text())
