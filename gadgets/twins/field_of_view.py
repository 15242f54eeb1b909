"""Images on the header's matrix and field of view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types import ImageArray

from gadgets.images import meta_of, meta_values
from gadgets.stream import Gadget, ReconError, parameter
from gadgets.twins.fourier import centred_fft

Array = np.ndarray[Any, np.dtype[Any]]


class GenericReconFieldOfViewAdjustmentGadget(Gadget):
    """Brings image arrays to the header's reconSpace: interpolates to its pixel size and cuts its field of view.

    Odd sizes along E1 and E2 are done right here; the C++ gadget's FFT shuffles their lines.
    """

    @dataclass(frozen=True)
    class Parameters:
        debug_folder: str = parameter("", "accepted for Gadgetron; not used", same_image=True)
        perform_timing: bool = parameter(False, "accepted for Gadgetron; not used", same_image=True)
        verbose: bool = parameter(False, "accepted for Gadgetron; not used", same_image=True)

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, ImageArray):
                item.data = self._adjusted(item.data, meta_of(item.meta[0]))
                for header in item.headers.flat:
                    header.matrix_size[:] = item.data.shape[:3]
            yield item

    def _adjusted(self, data: Array, meta: ismrmrd.Meta) -> Array:
        """The data on the reconSpace grid; as they are when the encoded field of view is the smaller one."""
        encoding = int(float((meta_values(meta, "encoding") or ["0"])[0]))
        space = self.header.encoding[encoding].reconSpace.matrixSize
        announced = [str(space.x), str(space.y), str(space.z)]
        recon = [int(float(size)) for size in meta_values(meta, "recon_matrix") or announced]
        encoded_fov = [float(value) for value in meta_values(meta, "encoding_FOV")]
        recon_fov = [float(value) for value in meta_values(meta, "recon_FOV")]
        if len(encoded_fov) != 3 or len(recon_fov) != 3:
            raise ReconError(
                "gadget GenericReconFieldOfViewAdjustmentGadget: the image array has no encoding_FOV and recon_FOV "
                "in its meta; put it behind a reconstruction gadget"
            )
        steps = adjustment_steps(data.shape, encoded_fov, recon_fov, recon)
        if not steps:
            return data
        for shape in steps:
            data = resize_image(data, shape)
        return centre_resized(data, (*recon[:2], 1 if data.shape[2] == 1 else recon[2]))


def resize_image(image: Array, shape: tuple[int, int, int]) -> Array:
    """Interpolate an image to another matrix over the same field of view, by zero-filling or cropping its k-space.

    Parameters
    ----------
    image : complex array [RO, E1, E2, ...]
    shape : new sizes of the three leading axes

    Returns
    -------
    complex64 array. Zero-filling keeps the intensity in 2D and multiplies it by sqrt(E2) in 3D; cropping multiplies
    it by sqrt(old size / new size), as Gadgetron's C++ does: the images are the same on either way in.
    """
    old = image.shape[:3]
    if old == shape:
        return image
    axes = (0, 1, 2) if shape[2] > 1 else (0, 1)
    resized = centred_fft(centre_resized(centred_fft(image, axes), shape), axes, inverse=True)
    if all(new >= was for new, was in zip(shape, old, strict=True)):
        resized = resized * np.sqrt(np.prod(shape) / np.prod(old[:2]))
    return resized.astype(np.complex64)


def adjustment_steps(
    shape: Sequence[int], encoded_fov: Sequence[float], recon_fov: Sequence[float], matrix: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Matrices an image is interpolated to, one axis after another, before its field of view is cut.

    Parameters
    ----------
    shape : sizes [RO, E1, E2] of the image
    encoded_fov, recon_fov : fields of view in mm along the same axes
    matrix : recon matrix

    Returns
    -------
    Three shapes; none when the encoded field of view is smaller than the reconstructed one, which Gadgetron leaves.
    """
    two_d = shape[2] == 1
    if encoded_fov[1] < recon_fov[1] or (not two_d and encoded_fov[2] < recon_fov[2]):
        return []
    current = [shape[0], shape[1], shape[2]]
    steps = []
    for axis in (1, 2, 0):  # the order matters to the intensity, as each crop of k-space scales it
        size = 1 if two_d and axis == 2 else matrix[axis]
        if axis == 1 or (axis == 2 and not two_d):
            spacing = recon_fov[axis] / size
            if encoded_fov[axis] > recon_fov[axis]:
                size = 2 * int(np.floor(encoded_fov[axis] / (2 * spacing) + 0.5))
        current[axis] = size
        steps.append((current[0], current[1], current[2]))
    return steps


def adjustment_gain(shape: Sequence[int], steps: Sequence[tuple[int, int, int]]) -> float:
    """What `resize_image` multiplies the intensity of an image [RO, E1, E2] by on its way through `steps`."""
    gain = 1.0
    for old, new in zip([tuple(shape[:3]), *steps], steps, strict=False):
        if old == new:
            continue
        grows = all(size >= was for size, was in zip(new, old, strict=True))
        axes = 3 if new[2] > 1 else 2  # the transformed ones
        gain *= np.sqrt(old[2] if axes == 3 else 1) if grows else np.sqrt(np.prod(old[:axes]) / np.prod(new[:axes]))
    return float(gain)


def centre_shift(size: int, kept: int) -> int:
    """Pixels by which cropping `size` to `kept` moves the centre (index n // 2): 1 from even to odd, else 0."""
    return size // 2 - (size - kept) // 2 - kept // 2


def centre_resized(array: Array, shape: tuple[int, ...]) -> Array:
    """Crop or zero-fill the leading axes about their centres, rounded as Gadgetron does."""
    for axis, size in enumerate(shape):
        have = array.shape[axis]
        if size < have:
            start = (have - size) // 2
            array = np.take(array, range(start, start + size), axis=axis)
        elif size > have:
            before = size // 2 - have // 2
            widths = [(0, 0)] * array.ndim
            widths[axis] = (before, size - have - before)
            array = np.pad(array, widths)
    return array
