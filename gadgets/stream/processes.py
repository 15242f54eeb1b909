"""Child processes that end with the thread that started them."""

from __future__ import annotations

import shutil


def killed_with_parent(command: list[str]) -> list[str]:
    """The command, so that what it starts is killed when the thread that started it ends, by whatever death."""
    return ["setpriv", "--pdeathsig", "KILL", *command] if shutil.which("setpriv") else command
