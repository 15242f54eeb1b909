"""The logger of all gadgets, and a way to collect its warnings."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

log = logging.getLogger("genrecon")


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
