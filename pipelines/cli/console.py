"""What all commands print with: the terminal, progress, the log, an error on one line."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gadgets.errors import ReconError, counted, one_line, reason_of
from priors.extras import not_installed

WIDTH = 160  # of tables where there is no terminal: with rich's 80 those of benchmarks lose their figures

console = Console(emoji=False)  # a text may hold :x:; with --quiet it prints nothing
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = WIDTH
errors = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

PROGRESS_INTERVAL_S = 30.0  # between two lines of progress, where there is no terminal


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON: time (UTC), level, message, and what is known of exception and scan."""
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
def progress_bar(total: int | None, unit: str) -> Iterator[Callable[[int, str], None]]:
    """Show a progress bar on a terminal, and elsewhere a line every half minute; yields update(done, text).

    `total` is None where it is not known.
    """
    if console.quiet:
        yield lambda _done, _text: None
    elif errors.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=errors, transient=True) as progress:
            task = progress.add_task("", total=total)
            yield lambda done, text: progress.update(task, completed=done, description=text)
    else:
        with _progress_lines(total, unit) as update:
            yield update


def replay_text(name: str, read: int, total: int | None, images: int) -> str:
    """What a progress bar says of a replay, by its acquisitions read and images back."""
    return f"{name}: {'all data are read, ' if read == total else ''}{counted(images, 'image')} so far"


@contextlib.contextmanager
def _progress_lines(total: int | None, unit: str) -> Iterator[Callable[[int, str], None]]:
    state: list[Any] = [0, "waiting"]
    ended, began = threading.Event(), time.monotonic()
    all_ = "" if total is None else f" of {total}"

    def print_now_and_then() -> None:
        while not ended.wait(PROGRESS_INTERVAL_S):
            seconds = datetime.timedelta(seconds=round(time.monotonic() - began))
            errors.print(escape(f"{state[1]}: {state[0]}{all_} {unit} after {seconds}"))

    def update(done: int, text: str) -> None:
        state[:] = done, text

    thread = threading.Thread(target=print_now_and_then, name="progress", daemon=True)
    thread.start()
    try:
        yield update
    finally:
        ended.set()
        thread.join()


def print_json(value: Any) -> None:
    """Print one JSON document on one line, with --quiet too."""
    print(json.dumps(value, default=str), flush=True)


def print_line(text: object) -> None:
    """Print one line that is neither wrapped nor coloured."""
    console.print(escape(str(text)), highlight=False, soft_wrap=True)


def print_warning(text: str) -> None:
    """Print one yellow line."""
    (errors if console.quiet else console).print(escape(text), style="yellow", soft_wrap=True, highlight=False)


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
