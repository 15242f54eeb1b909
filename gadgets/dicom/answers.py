"""The answers of a PACS to a file that is sent to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

DUPLICATE_INSTANCE = 0x0111
# Statuses of PS3.4 Table B.2-1 and PS3.18 Table I.2-2 by which the PACS refuses this instance, now and later.
REFUSED_STATUSES = frozenset((0x0117, 0x0122, *range(0xA900, 0xAA00), *range(0xC000, 0xD000)))
REFUSED_HTTP_CODES = frozenset((400, 409, 413, 415, 422))


class PacsError(Exception):
    """The PACS cannot be reached or broke off: try again later. The text is one line, without patient data."""


@dataclass(frozen=True)
class Answer:
    """Answer to one file: stored (`text` is empty or a warning) or refused for good (`text` says why)."""

    stored: bool
    text: str = ""


def answer_of(status: int) -> Answer:
    """The answer a C-STORE status or a STOW-RS reason stands for. Raises PacsError for a failure that may pass."""
    text = f"status 0x{status:04X}"
    if status == 0:
        return Answer(True)
    if status == DUPLICATE_INSTANCE:
        return Answer(True, f"{text}: it had this SOP Instance already")
    if status in {0x0001, 0x0107, 0x0116} or 0xB000 <= status <= 0xBFFF:
        return Answer(True, f"{text}: stored, with a warning")
    if status in REFUSED_STATUSES:
        return Answer(False, text)
    raise PacsError(f"it cannot store now ({text})")


class PacsConnection(Protocol):
    """An open connection to a PACS."""

    def store(self, path: Path) -> Answer:
        """Send one file and wait for the answer. Raises PacsError, and OSError when the file cannot be read."""

    def close(self) -> None:
        """Release the connection."""
