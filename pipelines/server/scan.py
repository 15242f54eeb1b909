"""What the server records of a scan, and how a scan ends."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

log = logging.getLogger("genrecon")

MOST_THUMBNAILS = 8  # of a scan, one a series
MOST_WARNINGS = 20


class Thumbnail(NamedTuple):
    """A small copy of an image.

    Parameters
    ----------
    name : kind of the image: "magnitude", "phase"
    pixels : uint8 (y, x)
    image : number of the image in its scan, from 1
    """

    name: str
    pixels: Any
    image: int = 0


@dataclass(eq=False)
class Scan:
    """What logs and status page may show of a scan: nothing that identifies the patient but a thumbnail.

    Attributes
    ----------
    peer : address of the client
    number : of the scan, counted from 1
    began : monotonic time at which it began to wait, then to run
    arrived : time at which it came, in seconds since 1970
    asked : name of the chain that the client asked for
    chain : name of its chain, once it is known
    method : how it is reconstructed
    state : "waits", "runs", "late" (in the background, its client had an answer), "done" or "failed"
    lines : lines for images that came
    announced_lines : of the header, about; 0: not known
    complete : whether all of its data came
    images : images sent
    announced_images : of the header; 0: not known
    first_image_s : seconds until the first of them
    last_image_s : seconds until the last of them
    budget_s : time budget of its method; 0: none
    seconds : how long it ran, once it has ended
    error : why it failed
    facts : texts about noise and calibration, by name
    warnings : of the gadgets
    thumbnails : last image of each series, by the number of the series
    kept_id : under which its raw data are kept; empty: they are not. Who knows it gets late images: not for logs
    """

    peer: str
    number: int = 0
    began: float = field(default_factory=time.monotonic)
    arrived: float = field(default_factory=time.time)
    asked: str = ""
    chain: str = ""
    method: str = ""
    state: str = "waits"
    lines: int = 0
    announced_lines: int = 0
    complete: bool = False
    images: int = 0
    announced_images: int = 0
    first_image_s: float = 0.0
    last_image_s: float = 0.0
    budget_s: float = 0.0
    seconds: float = 0.0
    error: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    thumbnails: dict[int, Thumbnail] = field(default_factory=dict)
    kept_id: str = ""

    def elapsed(self) -> float:
        """Seconds that it has run, or waited."""
        return self.seconds or time.monotonic() - self.began

    def add_image(self, series: int, thumbnail: Thumbnail) -> None:
        """Record an image that was sent."""
        self.images += 1
        self.last_image_s = self.elapsed()
        self.first_image_s = self.first_image_s or self.last_image_s
        if series in self.thumbnails or len(self.thumbnails) < MOST_THUMBNAILS:
            self.thumbnails[series] = thumbnail._replace(image=self.images)

    def add_warning(self, text: str) -> None:
        """Record a warning, each text once."""
        text = " ".join(text.split())
        if text not in self.warnings and len(self.warnings) < MOST_WARNINGS:
            self.warnings.append(text)

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
