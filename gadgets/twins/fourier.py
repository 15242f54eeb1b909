"""The centred FFT of numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import fft  # keeps single precision, as numpy does from version 2 on only

Array = np.ndarray[Any, np.dtype[Any]]


def centred_fft(array: Array, axes: Sequence[int] = (-1,), *, inverse: bool = False) -> Array:
    """Centred orthonormal FFT along some axes, the origin at index n // 2 of each; shape and precision stay."""
    transform = fft.ifftn if inverse else fft.fftn
    shifted = fft.ifftshift(array, axes=axes)
    return fft.fftshift(transform(shifted, axes=axes, norm="ortho", overwrite_x=True), axes=axes)
