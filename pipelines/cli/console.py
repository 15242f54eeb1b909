"""What all commands print with: the terminal, the progress bar, the log, an error on one line."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gadgets.errors import ReconError, one_line, reason_of
from priors.extras import not_installed

console = Console(emoji=False)  # a text may hold :x:
errors = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc).isoformat(timespec="milliseconds")
        table: dict[str, Any] = {
            "time": when,
            "level": record.levelname.lower(),
            "message": " ".join(record.getMessage().split()),
        }
        if record.exc_info and record.exc_info[1] is not None:
            table["exception"] = type(record.exc_info[1]).__name__
        if (scan := getattr(record, "scan", None)) is not None:
            table["scan"] = scan
        return json.dumps(table)


class _StderrHandler(logging.StreamHandler):
    """A handler that `log_to_stderr` added."""


def log_to_stderr(json_lines: bool = False) -> None:
    """Print log lines of level INFO and above; a later call replaces an earlier one."""
    logger = logging.getLogger("genrecon")
    logger.setLevel(logging.INFO)
    for handler in [handler for handler in logger.handlers if isinstance(handler, _StderrHandler)]:
        logger.removeHandler(handler)
    handler = _StderrHandler()
    handler.setFormatter(JsonLines() if json_lines else logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)


@contextlib.contextmanager
def progress_bar(total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    """Show a progress bar on the terminal, nothing when the output is not one; yields update(done, text)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda done, text: progress.update(task, completed=done, description=text)


def print_line(text: object) -> None:
    """Print one line that is neither wrapped nor coloured."""
    console.print(escape(str(text)), highlight=False, soft_wrap=True)


def print_warning(text: str) -> None:
    """Print one yellow line."""
    console.print(escape(text), style="yellow", soft_wrap=True, highlight=False)


@contextlib.contextmanager
def printed_warnings() -> Iterator[None]:
    """Print the warnings of the block, also where it fails."""
    from gadgets.stream.logs import collected_warnings

    texts: list[str] = []
    try:
        with collected_warnings(texts):
            yield
    finally:
        for text in texts:
            print_warning(f"warning: {text}")


def print_error(error: Exception) -> None:
    """Print an error on one line.

    An error that is not the user's is marked as unexpected, and --verbose shows its traceback.
    """
    stage = getattr(error, "stage", "source")
    gadget = "" if stage == "source" else f"gadget {stage}: "
    if isinstance(error, ReconError):
        text = one_line(error)
    elif isinstance(error, ModuleNotFoundError) and (missing := not_installed(error.name or "")):
        text = gadget + missing
    elif isinstance(error, OSError) and not gadget:
        text = f"{error.filename or 'system'}: {reason_of(error)}"
    else:
        logging.getLogger("genrecon").info("traceback", exc_info=error)
        text = f"{gadget}{one_line(error)} (unexpected; run with --verbose for the traceback)"
    errors.print(f"[bold red]error:[/] {escape(text)}")
