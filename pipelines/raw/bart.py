"""BART's arrays: complex64 values in a .cfl file, their dimensions in a .hdr file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from gadgets.stream import ReconError, reason_of

# Names of the dimensions, by their places (BART's README).
DIMENSIONS = (
    *("READ", "PHS1", "PHS2", "COIL", "MAPS", "TE", "COEFF", "COEFF2"),
    *("ITER", "CSHIFT", "TIME", "TIME2", "LEVEL", "SLICE", "AVG", "BATCH"),
)
SLICE = DIMENSIONS.index("SLICE")
BYTES = np.dtype(np.complex64).itemsize

Array = np.ndarray[Any, np.dtype[Any]]


def cfl_of(path: Path) -> Path | None:
    """The .cfl file that is meant by NAME.cfl, NAME.hdr or, as BART itself has it, NAME; None where none is."""
    if path.suffix in {".cfl", ".hdr"}:
        return path.with_suffix(".cfl")
    named = [path.with_name(path.name + suffix) for suffix in (".cfl", ".hdr")]
    return named[0] if not path.exists() and any(file.exists() for file in named) else None


def read_cfl(path: Path, kspace: bool) -> Array:
    """A BART array, mapped into memory.

    Parameters
    ----------
    path : its .cfl file; the .hdr file is in the same folder
    kspace : k-space may have coils; images may not

    Returns
    -------
    complex64 (READ, PHS1, PHS2, COIL, SLICE)

    Raises
    ------
    ReconError
        A file of the two is missing or damaged, they do not fit each other, or another dimension is not 1.
    """
    shape = _shape(path.with_suffix(".hdr"))
    size = math.prod(shape) * BYTES
    try:
        found = path.stat().st_size
        if found != size:
            sizes = " x ".join(str(extent) for extent in shape)
            raise ReconError(
                f"{path}: it has {found} bytes, its .hdr says {sizes} values of {BYTES} bytes, which are {size}; copy "
                "both files again"
            )
        array = np.memmap(path, "<c8", "r", shape=shape, order="F")
    except OSError as error:
        raise ReconError(
            f"{path}: cannot be read ({reason_of(error)}); a BART array is a .cfl and a .hdr of one name"
        ) from None
    used = {0, 1, 2, SLICE} | ({3} if kspace else set())
    for place, extent in enumerate(shape):
        if extent > 1 and place not in used:
            name = DIMENSIONS[place] if place < len(DIMENSIONS) else f"number {place}"
            advice = "k-space needs --kspace" if place == 3 else f"take one: bart slice {place} 0 {path.stem} one"
            raise ReconError(f"{path}: its dimension {name} is {extent}; {advice}")
    read, phase_1, phase_2, coils, *rest = *shape, *[1] * (SLICE + 1 - len(shape))
    return array.reshape(read, phase_1, phase_2, coils, rest[SLICE - 4], order="F")


def _shape(path: Path) -> tuple[int, ...]:
    """The dimensions in a .hdr file: the line after `# Dimensions`."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError as error:
        raise ReconError(
            f"{path}: cannot be read ({reason_of(error)}); a BART array is a .cfl and a .hdr of one name"
        ) from None
    named = lines[lines.index("# Dimensions") + 1 :] if "# Dimensions" in lines else lines
    words = next((line.split() for line in named if line and not line.startswith("#")), [])
    if not words or not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise ReconError(f"{path}: it has no line of dimensions after '# Dimensions'; copy or write the file again")
    return tuple(map(int, words))
