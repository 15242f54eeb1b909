"""Errors a user can meet, and the text that says what failed."""

from __future__ import annotations

from priors.extras import not_installed


class ReconError(Exception):
    """An error a user can meet: one line naming the file, gadget or property, what is wrong, and the mend."""


class PeerGone(ReconError):
    """The other end of a socket went away before it sent CLOSE."""


class Aborted(Exception):
    """Another stage failed or the reader of the results stopped; not an error of its own."""


def one_line(error: BaseException) -> str:
    """Text of an error on one line, with its type in front unless it was written for the user."""
    if isinstance(error, ModuleNotFoundError) and (text := not_installed(error.name or "")):
        return text
    text = " ".join(str(error).split())
    return (
        text if isinstance(error, ReconError) else f"{type(error).__name__}: {text}" if text else type(error).__name__
    )


def reason_of(error: BaseException) -> str:
    """Why something failed: the system's own words for an error of the system, else the text on one line."""
    return getattr(error, "strerror", None) or one_line(error)
