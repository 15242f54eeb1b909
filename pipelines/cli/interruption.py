"""What Ctrl-C does before the commands are imported; nothing here takes time to import."""

from __future__ import annotations

import os
from typing import Any, NoReturn

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


def end_now(*_: Any) -> NoReturn:
    """A handler of SIGINT: there is nothing to clean up yet."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
