"""Texts of errors that may be shown: short, printable, and without what a header may say of the patient."""

from __future__ import annotations

import traceback
from pathlib import Path

from gadgets.stream import one_line

MAX_CHARACTERS = 600
MAX_FRAMES = 8  # of a traceback


def printable(error: BaseException) -> str:
    """Text of an error for a client, a log and a page: one short line, whatever a client put into it."""
    return "".join(letter if letter.isprintable() else "?" for letter in one_line(error))[:MAX_CHARACTERS]


def where_raised(error: BaseException) -> str:
    """Kind of an unexpected error and the code it came from, without its text, which may quote a header."""
    frames = reversed(traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:])
    lines = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{type(error).__name__} at {lines}" if lines else type(error).__name__
