"""What the server records of a scan, and how a scan ends."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

log = logging.getLogger("genrecon")


@dataclass(eq=False)
class Scan:
    """What logs and status page may show of a scan: nothing that identifies the patient but a thumbnail.

    Attributes
    ----------
    peer : address of the client
    number : of the scan, counted from 1
    began : monotonic time at which it began to wait, then to run
    chain : name of its chain
    state : "waits", "runs", "done" or "failed"
    images : images sent
    first_image_s : seconds until the first of them
    seconds : how long it ran, once it has ended
    error : why it failed
    thumbnail : last image, uint8 (y, x)
    """

    peer: str
    number: int = 0
    began: float = field(default_factory=time.monotonic)
    chain: str = ""
    state: str = "waits"
    images: int = 0
    first_image_s: float = 0.0
    seconds: float = 0.0
    error: str = ""
    thumbnail: Any = None

    def elapsed(self) -> float:
        """Seconds that it has run, or waited."""
        return self.seconds or time.monotonic() - self.began

    def log(self, level: int, text: str) -> None:
        """Write a log line about it."""
        log.log(level, "scan %d: %s", self.number, text, extra={"scan": self.number})


class ScanResult(NamedTuple):
    """How a scan ended.

    Parameters
    ----------
    error : for the log; empty if it succeeded
    client_error : for the client, where the connection still takes an error
    reusable : whether its process can run another scan
    """

    error: str = ""
    client_error: str = ""
    reusable: bool = True
