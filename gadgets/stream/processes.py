"""Child processes that end with the thread that started them."""

from __future__ import annotations

import shutil


def killed_with_parent(command: list[str]) -> list[str]:
    """The command, prefixed so that the kernel kills its process when the thread that started it ends (Linux only)."""
    return ["setpriv", "--pdeathsig", "KILL", *command] if shutil.which("setpriv") else command
