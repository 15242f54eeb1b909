"""The logger of all gadgets, a way to collect its warnings, and facts that a status page shows."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

log = logging.getLogger("genrecon")

fact_listeners: list[Callable[[str, str], None]] = []  # called by `log_fact`, whatever the level of the log


def log_fact(name: str, text: str) -> None:
    """Log what a technologist wants to know of a scan; `genrecon serve` shows the last text of each name.

    Parameters
    ----------
    name : what it is about: "noise", "calibration"
    text : nothing in it identifies anyone
    """
    log.debug("%s: %s", name, text)
    for listener in fact_listeners:
        listener(name, text)


def facts_are_wanted() -> bool:
    """Whether a fact that takes time to find would be seen by anyone."""
    return bool(fact_listeners) or log.isEnabledFor(logging.DEBUG)


class _Collector(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if text not in self._lines:
            self._lines.append(text)


@contextlib.contextmanager
def collected_warnings(lines: list[str], leave_out: str = "") -> Iterator[None]:
    """Append warnings logged during the block to a list, each once, but not those of threads named `leave_out`."""
    handler = _Collector(lines)
    handler.addFilter(lambda record: record.threadName != leave_out)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
