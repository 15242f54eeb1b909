"""Files that appear whole or not at all, and folders and files that only their user can read."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def private_folder(folder: Path) -> None:
    """Make a folder and the missing ones above it, each with mode 0700 whatever the umask. Raises OSError."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def replace_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file so that its name holds the whole content or what it held before.

    Parameters
    ----------
    path : file; missing folders above it are made
    content : what it holds from now on
    private : the file has mode 0600 and folders that are made have 0700, whatever the umask

    Raises
    ------
    OSError
        It cannot be written; the file is as it was.
    """
    if private:
        private_folder(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
