"""The command line, one file a command; `entry` joins them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from pipelines.cli.interruption import end_now

if TYPE_CHECKING:
    from pipelines.cli.entry import app as app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line and exit code 130, also while modules are imported."""
    signal.signal(signal.SIGINT, end_now)
    from pipelines.cli.entry import main as run

    run()


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    from pipelines.cli.entry import app

    return app
