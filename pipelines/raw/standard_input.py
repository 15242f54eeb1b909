"""Raw data from standard input."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gadgets.stream import ReconError


@contextlib.contextmanager
def raw_file(path: Path) -> Iterator[Path]:
    """The path itself; of "-" a temporary file with all of standard input, so that memory does not hold it.

    Errors of the block name standard input instead of that file.
    """
    if str(path) != "-":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="genrecon-") as folder:
        copy = Path(folder) / "stdin"
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield copy
        except ReconError as error:
            raise ReconError(str(error).replace(str(copy), "standard input")) from error
