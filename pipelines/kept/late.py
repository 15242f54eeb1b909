"""Images of a kept scan that were not ready when its client had to have an answer."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gadgetron.external import writers

from gadgets.errors import counted
from gadgets.files import replace_file
from gadgets.stream import ReconError
from pipelines.kept.scan import KeptScan
from pipelines.kept.store import OWES_FILE

RUNS, DONE, FAILED = "runs", "done", "failed"
STATE_FILE = "late.json"
IMAGES_FILE = "late.mrd"  # messages of images, as they are sent
RETRIEVE = "retrieve"  # configuration of a connection that fetches late images, with _ID after it
FETCH_BY = f"with configuration {RETRIEVE}_"  # in the text that a client gets instead of them, before the id
MOST_ATTEMPTS = 3
COMMON = ("patient", "patient in measurementID")  # what the scans of one study have in common: one of these,
STUDY = ("study", "study ID", "study in measurementID")  # and one of these


@dataclass(frozen=True)
class LateState:
    """How far the late images of a scan are; nothing of a patient in it.

    Parameters
    ----------
    state : RUNS, DONE or FAILED
    sent : number of images that the client had before
    images : number of late images that are ready
    expected : number of all images, as the lines of the scan tell; 0: not known
    began : when the reconstruction began, in seconds since 1970
    error : why it failed
    warnings : of the gadgets
    peer : address of the client's host
    context : digests of what names scanner, patient and study (`gadgets.noise.scan.context_of`)
    attempts : how often the reconstruction was begun
    """

    state: str = RUNS
    sent: int = 0
    images: int = 0
    expected: int = 0
    began: float = 0.0
    error: str = ""
    warnings: tuple[str, ...] = ()
    peer: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    attempts: int = 1

    def progress(self) -> str:
        """How far it is, in words."""
        ready = self.sent + self.images
        all_ = counted(self.expected, "image")
        text = f"{ready} of {all_}" if self.expected >= ready else counted(ready, "image")
        if self.images and self.expected > ready:
            left = (time.time() - self.began) / ready * (self.expected - ready)
            text += f", about {left:.0f} s to go"
        return text

    def of_study(self, context: Mapping[str, str], peer: str) -> bool:
        """Whether a client's scan is of the same patient and study, and comes from the same host."""
        own, other = self.context, context
        alike = [name for name, value in own.items() if other.get(name) == value]
        differing = [name for name, value in own.items() if name in other and other[name] != value]
        known = any(name in alike for name in COMMON) and any(name in alike for name in STUDY)
        return peer == self.peer and known and not differing


def late_state(kept: KeptScan) -> LateState | None:
    """How far the late images of a scan are; None where it has none."""
    try:
        table = json.loads((kept.folder / STATE_FILE).read_bytes())
        known = {entry.name for entry in dataclasses.fields(LateState)}
        values = {name: value for name, value in table.items() if name in known}
        return LateState(**(values | {"warnings": tuple(values.get("warnings", ()))}))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write_late_state(kept: KeptScan, state: LateState) -> None:
    """Write how far they are. Raises OSError."""
    replace_file(kept.folder / STATE_FILE, json.dumps(dataclasses.asdict(state), indent=1).encode(), private=True)


def owes_images(kept: KeptScan) -> bool:
    """Whether somebody still waits for images of a scan."""
    return (kept.folder / OWES_FILE).exists()


def clear_due(kept: KeptScan) -> None:
    """Record that nobody waits for images of a scan: it may go when it is its turn."""
    (kept.folder / OWES_FILE).unlink(missing_ok=True)


class LateImages:
    """Keeps late images of a scan as they become ready.

    Parameters
    ----------
    kept : the scan
    state : how far it is; images before `state.sent` were sent and are left out of those that `add` gets, if `again`
    again : the reconstruction begins anew, after a restart: all images come

    Raises
    ------
    OSError
        Also in all methods: they cannot be written.
    """

    def __init__(self, kept: KeptScan, state: LateState, again: bool = False) -> None:
        self._kept, self.state = kept, state
        self._left_out = state.sent if again else 0
        descriptor = os.open(kept.folder / IMAGES_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = open(descriptor, "wb")  # noqa: SIM115
        self._change(state=RUNS, images=0)
        (kept.folder / OWES_FILE).touch(mode=0o600)

    def write(self, data: Any) -> None:
        """Write a part of a message."""
        self._file.write(data)

    def add(self, image: Any) -> None:
        """Keep an image, unless the client had it."""
        if self._left_out:
            self._left_out -= 1
            return
        writers.write_image(self, image)
        self._file.flush()
        self._change(images=self.state.images + 1)

    def finish(self, error: str, warnings: list[str], in_files: bool) -> None:
        """No more images come.

        Parameters
        ----------
        error : why the reconstruction failed; empty: it did not
        warnings : of the gadgets
        in_files : whether the images went to files and so need not be fetched
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._change(state=FAILED if error else DONE, error=error, warnings=tuple(warnings))
        if in_files or error:
            clear_due(self._kept)

    def _change(self, **changes: Any) -> None:
        self.state = dataclasses.replace(self.state, **changes)
        write_late_state(self._kept, self.state)


def fail(kept: KeptScan, error: str) -> None:
    """Record that the late images of a scan will not come."""
    if (state := late_state(kept)) is not None:
        write_late_state(kept, dataclasses.replace(state, state=FAILED, error=error))
    clear_due(kept)


def begin_again(kept: KeptScan) -> LateState:
    """The state of a scan whose reconstruction begins anew. Raises ReconError where that was tried too often."""
    state = late_state(kept) or LateState()
    if state.attempts >= MOST_ATTEMPTS:
        raise ReconError(f"its reconstruction was begun {state.attempts} times and never ended")
    return dataclasses.replace(state, attempts=state.attempts + 1, began=time.time())


def images_file(kept: KeptScan) -> Path:
    """The messages of the late images."""
    return kept.folder / IMAGES_FILE
