"""Images to another matrix or field of view, by way of k-space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.twins.fourier import centred_fft
from pipelines.simulation.header import encoding_space
from pipelines.simulation.settings import SimulationSettings


def crop_or_pad(array: NDArray[Any], shape: Sequence[int], axes: Sequence[int]) -> NDArray[Any]:
    """Crop or zero-pad axes about the centre (index n // 2)."""
    new_shape = list(array.shape)
    source, target = [slice(None)] * array.ndim, [slice(None)] * array.ndim
    for axis, size in zip(axes, shape, strict=True):
        shift = array.shape[axis] // 2 - size // 2
        length = min(array.shape[axis], size)
        begin = max(0, shift)
        source[axis] = slice(begin, begin + length)
        target[axis] = slice(begin - shift, begin - shift + length)
        new_shape[axis] = size
    result = np.zeros(new_shape, array.dtype)
    result[tuple(target)] = array[tuple(source)]
    return result


def resample(image: NDArray[Any], shape: Sequence[int], axes: Sequence[int]) -> NDArray[Any]:
    """Change the matrix over the same field of view by cropping or zero-filling k-space; intensities stay."""
    scale = math.sqrt(math.prod(shape) / math.prod(image.shape[axis] for axis in axes))
    kspace = crop_or_pad(centred_fft(image, axes), shape, axes)
    return np.complex64(scale) * centred_fft(kspace, axes, inverse=True)


def fold(image: NDArray[Any], size: int, axis: int) -> NDArray[Any]:
    """Fold an axis into a field of view of `size` pixels, as too few k-space lines do."""
    length = image.shape[axis]
    if length == size:
        return image
    source = np.moveaxis(image, axis, 0)
    folded = np.zeros((size, *source.shape[1:]), image.dtype)
    done, place = 0, (size // 2 - length // 2) % size
    while done < length:
        step = min(size - place, length - done)
        folded[place : place + step] += source[done : done + step]
        done, place = done + step, 0
    return np.moveaxis(folded, 0, axis)


def to_recon_grid(settings: SimulationSettings, image: NDArray[Any]) -> NDArray[Any]:
    """Bring an image (z, y, x) of the encoded grid to the reconstructed field of view and matrix.

    Each axis is interpolated in k-space to the pixel size of the recon space, then cropped to its matrix
    from pixel (n - size) // 2 on, as Gadgetron does.
    """
    encoded, recon = (encoding_space(settings, recon=recon) for recon in (False, True))
    for axis, name in enumerate("zyx"):
        size = getattr(recon.matrixSize, name)
        pixels = round(getattr(encoded.fieldOfView_mm, name) / getattr(recon.fieldOfView_mm, name) * size)
        if pixels != image.shape[axis]:
            image = resample(image, (pixels,), (axis,))
        if pixels > size:
            begin = (pixels - size) // 2
            image = image.take(range(begin, begin + size), axis)
        else:
            image = crop_or_pad(image, (size,), (axis,))
    return image
