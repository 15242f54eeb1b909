"""Python twins of the C++ gadgets that take reconstructed image arrays to images for the user."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
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


def meta_of(text: str | bytes | None) -> ismrmrd.Meta:
    """The meta attributes of an image, from their XML; empty when there are none."""
    return ismrmrd.Meta.deserialize(text) if text else ismrmrd.Meta()


def meta_values(meta: ismrmrd.Meta, name: str) -> list[str]:
    """All values of one meta attribute, as text."""
    value = meta.get(name, [])
    return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]


class GenericReconFieldOfViewAdjustmentGadget(Gadget):
    """Brings image arrays to the header's reconSpace: interpolates to its pixel size and cuts its field of view."""

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
        encoding = int(float((meta_values(meta, "encoding") or ["0"])[0]))
        recon = self.header.encoding[encoding].reconSpace.matrixSize
        encoded_fov = [float(value) for value in meta_values(meta, "encoding_FOV")]
        recon_fov = [float(value) for value in meta_values(meta, "recon_FOV")]
        if len(encoded_fov) != 3 or len(recon_fov) != 3:
            raise ReconError(
                "gadget GenericReconFieldOfViewAdjustmentGadget: the image array has no encoding_FOV and recon_FOV "
                "in its meta; put it behind a reconstruction gadget"
            )
        two_d = data.shape[2] == 1
        final = (recon.x, recon.y, 1 if two_d else recon.z)
        if two_d:
            recon_fov[2] = encoded_fov[2]
        if encoded_fov[1] < recon_fov[1] or encoded_fov[2] < recon_fov[2]:
            return data
        for axis in (1, 2, 0):  # the order matters to the intensity, as each crop of k-space scales it
            size = final[axis]
            if axis and encoded_fov[axis] > recon_fov[axis]:
                spacing = recon_fov[axis] / size
                size = 2 * int(np.floor(encoded_fov[axis] / (2 * spacing) + 0.5))
            shape = list(data.shape[:3])
            shape[axis] = size
            data = resize_image(data, (shape[0], shape[1], shape[2]))
        return _centre_resized(data, final)


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
        else:
            values = values + offset
            if WINDOW_CENTER in meta:
                meta[WINDOW_CENTER] = str(int(float(meta_values(meta, WINDOW_CENTER)[0])) + offset)
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
