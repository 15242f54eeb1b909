"""The centred FFT of numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def centred_fft(array: Array, axes: Sequence[int] = (-1,), *, inverse: bool = False) -> Array:
    """Centred orthonormal FFT along some axes, the origin at index n // 2 of each; shape and precision stay.

    Numpy before version 2 computes in double precision.
    """
    transform = np.fft.ifftn if inverse else np.fft.fftn
    transformed = transform(np.fft.ifftshift(array, axes=axes), axes=axes, norm="ortho")
    return np.fft.fftshift(transformed, axes=axes).astype(np.result_type(array.dtype, np.complex64), copy=False)
