"""Python twins of the C++ gadgets that take reconstructed image arrays to images for the user."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types import ImageArray
from ismrmrd.image import get_data_type_from_dtype

from gadgets.stream import Gadget, ReconError, parameter

log = logging.getLogger("genrecon")

Array = np.ndarray[Any, np.dtype[Any]]

WINDOW_CENTER = "GADGETRON_WindowCenter"
DEVIATION = "standard deviation"  # ends the GenreconMethod of images of standard deviations
DEVIATION_SERIES = 100  # added to their series index
SCALE_RATIO = "GADGETRON_ScaleRatio"  # what pixel values were multiplied by


# --- field of view -------------------------------------------------------------------------------------------------


def _centre_resized(array: Array, shape: tuple[int, ...]) -> Array:
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


def _fft(array: Array, axes: tuple[int, ...], inverse: bool) -> Array:
    transform = np.fft.ifftn if inverse else np.fft.fftn
    return np.fft.fftshift(transform(np.fft.ifftshift(array, axes=axes), axes=axes, norm="ortho"), axes=axes)


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
    resized = _fft(_centre_resized(_fft(image, axes, inverse=False), shape), axes, inverse=True)
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


def meta_of(text: str | bytes | None) -> ismrmrd.Meta:
    """The meta attributes of an image, from their XML; empty when there are none."""
    return ismrmrd.Meta.deserialize(text) if text else ismrmrd.Meta()


def meta_values(meta: ismrmrd.Meta, name: str) -> list[str]:
    """All values of one meta attribute, as text."""
    value = meta.get(name, [])
    return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]


class GenericReconFieldOfViewAdjustmentGadget(Gadget):
    """Brings image arrays to the header's reconSpace: interpolates to its pixel size and cuts its field of view.

    Odd sizes along E1 and E2 are done right here; the C++ gadget's FFT shuffles their lines.
    """

    @dataclass(frozen=True)
    class Parameters:
        debug_folder: str = parameter("", "accepted for Gadgetron; not used")
        perform_timing: bool = parameter(False, "accepted for Gadgetron; not used")
        verbose: bool = parameter(False, "accepted for Gadgetron; not used")

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
        recon = self.header.encoding[encoding].reconSpace.matrixSize
        encoded_fov = [float(value) for value in meta_values(meta, "encoding_FOV")]
        recon_fov = [float(value) for value in meta_values(meta, "recon_FOV")]
        if len(encoded_fov) != 3 or len(recon_fov) != 3:
            raise ReconError(
                "gadget GenericReconFieldOfViewAdjustmentGadget: the image array has no encoding_FOV and recon_FOV "
                "in its meta; put it behind a reconstruction gadget"
            )
        matrix = (recon.x, recon.y, recon.z)
        steps = adjustment_steps(data.shape, encoded_fov, recon_fov, matrix)
        if not steps:
            return data
        for shape in steps:
            data = resize_image(data, shape)
        return _centre_resized(data, (recon.x, recon.y, 1 if data.shape[2] == 1 else recon.z))


# --- images --------------------------------------------------------------------------------------------------------


class ImageArraySplitGadget(Gadget):
    """Splits image arrays [X, Y, Z, CHA, N, S, LOC] into single images, LOC outermost, N innermost."""

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if not isinstance(item, ImageArray):
                yield item
                continue
            _, _, _, _, n_count, s_count, locations = item.data.shape
            for location in range(locations):
                for s in range(s_count):
                    for n in range(n_count):
                        pixels = item.data[..., n, s, location].T  # CHA, Z, Y, X
                        meta = item.meta[location * n_count * s_count + s * n_count + n] if item.meta else ""
                        yield make_image(item.headers[n, s, location], pixels, meta)


def make_image(header: ismrmrd.ImageHeader, pixels: Array, meta: str) -> ismrmrd.Image:
    """An image from a header (copied), pixels (cha, z, y, x) and meta XML; sizes and data type follow the pixels."""
    head = copy.copy(header)
    head.data_type = get_data_type_from_dtype(pixels.dtype)
    head.channels = pixels.shape[0]
    head.matrix_size[:] = pixels.shape[:0:-1]
    image = ismrmrd.Image(head)
    image.data[:] = pixels
    image.attribute_string = meta
    return image


class ComplexToFloatGadget(Gadget):
    """Magnitude, phase, real or imaginary part of complex images, by the image type in their header."""

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        parts: dict[int, Callable[[Array], Array]] = {
            ismrmrd.IMTYPE_PHASE: np.angle,
            ismrmrd.IMTYPE_REAL: np.real,
            ismrmrd.IMTYPE_IMAG: np.imag,
        }
        for item in items:
            if isinstance(item, ismrmrd.Image) and np.iscomplexobj(item.data):
                head = item.getHead()
                part = parts.get(head.image_type, np.abs)
                if head.image_type not in parts:
                    head.image_type = ismrmrd.IMTYPE_MAGNITUDE
                item = make_image(head, part(item.data).astype(np.float32), item.attribute_string)
            yield item


class FloatToUShortGadget(Gadget):
    """Rounds float images to uint16 within the allowed range; phase is mapped so that -pi..pi is 0..2 offset."""

    @dataclass(frozen=True)
    class Parameters:
        max_intensity: int = parameter(4095, "largest value", minimum=0, maximum=32767)
        min_intensity: int = parameter(0, "smallest value", minimum=0, maximum=32767)
        intensity_offset: int = parameter(2048, "value of zero in real, imaginary and phase images", minimum=0)

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, ismrmrd.Image) and item.data.dtype == np.float32:
                item = self._rounded(item)
            yield item

    def _rounded(self, item: ismrmrd.Image) -> ismrmrd.Image:
        offset = self.parameters.intensity_offset
        values = item.data.astype(np.float64)
        meta = meta_of(item.attribute_string)
        if item.image_type == ismrmrd.IMTYPE_MAGNITUDE:
            values = np.abs(values)
        elif item.image_type == ismrmrd.IMTYPE_PHASE:
            values = values * offset / np.pi + offset
        elif item.image_type in (ismrmrd.IMTYPE_REAL, ismrmrd.IMTYPE_IMAG):
            values = values + offset
            if WINDOW_CENTER in meta:
                whole = re.match(r"\s*[-+]?\d+", meta_values(meta, WINDOW_CENTER)[0])
                meta[WINDOW_CENTER] = str(int(whole[0] if whole else 0) + offset)
        else:
            raise ReconError(
                f"gadget FloatToUShortGadget: image {item.image_index} has image_type {item.image_type}; it must be 1 "
                "to 4 (magnitude, phase, real, imaginary part): set it where the image is made"
            )
        clipped = np.clip(values, self.parameters.min_intensity, self.parameters.max_intensity)
        lost = int(np.count_nonzero(values > self.parameters.max_intensity))
        if lost:
            log.warning("FloatToUShortGadget: %d pixels above max_intensity were cut to it", lost)
        pixels = np.floor(clipped + 0.5).astype(np.uint16)
        return make_image(item.getHead(), pixels, meta.serialize() if meta else "")


class ImageFinishGadget(Gadget):
    """Passes images to the writers; text messages end here."""

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, str):
                log.info("%s", item)
            else:
                yield item
