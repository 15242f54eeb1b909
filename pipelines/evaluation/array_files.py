"""Arrays of k-space and of images in files: .npy, and BART's .cfl."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gadgets.buffers import kspace_problems, sampled
from gadgets.stream import ReconError, one_line
from pipelines.raw.bart import cfl_of, read_cfl

Array = np.ndarray[Any, np.dtype[Any]]


def is_array(path: Path) -> bool:
    """Whether a path names an array, and no raw file."""
    return path.suffix == ".npy" or cfl_of(path) is not None


def read_images(path: Path) -> Array:
    """Images of any number type: those of an .npy file as they are, those of BART as (slice, y, x).

    BART's dimensions are READ for x, PHS1 for y, and PHS2 (a volume) or SLICE for the slices. Raises ReconError when
    the file cannot be read, or has other dimensions of BART's.
    """
    cfl = cfl_of(path)
    if cfl is None:
        return _read_npy(path)
    array = read_cfl(cfl, kspace=False)[:, :, :, 0]
    return array.transpose(3, 2, 1, 0).reshape(-1, *array.shape[1::-1])


def kspace_slices(path: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """k-space of every slice, or of the readout positions of a BART volume, and which of its samples are not zero.

    Parameters
    ----------
    path : .npy, complex (slice, coil, y, x) or (coil, y, x); or BART's array of READ (x), PHS1 (y), PHS2, COIL, SLICE

    Yields
    ------
    complex64 (1 or readout position, coil, y, x) and bool (y, x)

    Raises
    ------
    ReconError
        The file cannot be read, or does not hold such an array.
    """
    cfl = cfl_of(path)
    if cfl is not None:
        array = read_cfl(cfl, kspace=True)
        for number in range(array.shape[-1]):
            part = array[..., number]
            if not np.isfinite(part).all():
                raise ReconError(f"{path}, slice {number}: it has NaN or infinite samples; correct the data")
            yield kspace_problems(part), sampled(part)[0]
        return
    array = _read_npy(path)
    if array.ndim not in (3, 4) or array.dtype.kind != "c":
        raise ReconError(
            f"{path}: shape {array.shape} of {array.dtype} is not k-space: complex (slice, coil, y, x) or (coil, y, x)"
        )
    for number in range(len(array) if array.ndim == 4 else 1):
        part = array[number] if array.ndim == 4 else array
        one = torch.from_numpy(part.astype(np.complex64))
        yield one[None], (one != 0).any(0)


def _read_npy(path: Path) -> Array:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ReconError(f"{path}: cannot be read as .npy ({one_line(error)}); give an array of numbers") from None
