"""Texts for the user: errors, any error on one line, numbers of things."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from priors.extras import not_installed


class ReconError(Exception):
    """An error for the user: one line that names the file, gadget or property, what is wrong, and how to fix it."""


class PeerGone(ReconError):
    """The peer closed the connection, or died, before it sent CLOSE."""


class Aborted(Exception):
    """Another stage failed, or nobody reads the results any more; not an error of its own."""


def counted(count: int, noun: str) -> str:
    """A number of things in words: "1 image", "3 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def did_you_mean(given: str, names: Iterable[str]) -> str:
    """Names that a wrong one may stand for, within an error: "; did you mean 'cg_sense'?" where there are, else ";"."""
    near = difflib.get_close_matches(given, names, 2)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ";"


def one_line(error: BaseException) -> str:
    """Text of an error on one line, preceded by its type unless it is a ReconError."""
    if isinstance(error, ModuleNotFoundError) and (text := not_installed(error.name or "")):
        return text
    text = " ".join(str(error).split())
    return (
        text if isinstance(error, ReconError) else f"{type(error).__name__}: {text}" if text else type(error).__name__
    )


def reason_of(error: BaseException) -> str:
    """Why something failed: the operating system's text if it has one, else the error on one line."""
    return getattr(error, "strerror", None) or one_line(error)
