"""Pixels in 16 bit, with the rescale that gives the image's values back, and the window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ismrmrd
import numpy as np
from numpy.typing import NDArray

from gadgets.dicom.attributes import (
    SCALE_OFFSET_KEYS,
    SCALE_RATIO_KEYS,
    STORABLE,
    WINDOW_CENTER_KEYS,
    WINDOW_WIDTH_KEYS,
    attribute_number,
)
from gadgets.dicom.values import Warn
from gadgets.image_values import output_of, scale_of, values_of
from gadgets.images import SCALE_OFFSET
from gadgets.outputs import OUTPUT, PHASE
from gadgets.stream import ReconError

HALF_OF_SIEMENS = 2048  # steps from -pi to 0 in Siemens' phase images, of 12 bit


@dataclass(frozen=True)
class Pixels:
    """uint16 pixels (cha, z, y, x); value = slope * pixel + intercept, slope None for unscaled ones.

    `real_world` is the slope and intercept to values in the units of the output, None where it has none.
    """

    stored: NDArray[np.uint16]
    slope: float | None
    intercept: float
    window_center: float
    window_width: float
    bits: int = 16
    real_world: tuple[float, float] | None = None


def _name(image: ismrmrd.Image) -> str:
    counters = f"slice {image.slice}, contrast {image.contrast}, repetition {image.repetition}"
    return f"image {image.image_index} ({counters})"


def stored_pixels(image: ismrmrd.Image, warn: Warn, phase_rescale: str = "siemens") -> Pixels:
    """Pixels of an image as DICOM stores them. Raises ReconError for complex, colour, empty or NaN data.

    Parameters
    ----------
    image : image
    warn : takes one line for each thing that is wrong
    phase_rescale : property of the DICOM gadget, for phase images of this package
    """
    data = image.data
    if np.iscomplexobj(data) or image.image_type not in STORABLE:
        raise ReconError(
            f"DicomOutput: {_name(image)} is complex or colour, which MR Image Storage cannot hold; "
            "put a gadget that takes its magnitude or phase before DicomOutput"
        )
    if data.size == 0:
        raise ReconError(f"DicomOutput: {_name(image)} has no pixels; check the gadget before DicomOutput")
    low, high = float(data.min()), float(data.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ReconError(
            f"DicomOutput: {_name(image)} holds NaN or infinite values and is not written; "
            "check the raw data for damaged readouts and the settings of the reconstruction"
        )
    if OUTPUT in image.meta:
        output = output_of(image)
        if output is PHASE:
            return _phase(image, phase_rescale, warn)
        if output.signed:
            return _signed(image, warn)
    slope, intercept = 1.0, 0.0
    scaled = True
    if np.issubdtype(data.dtype, np.integer) and low >= 0 and high <= 65535:
        stored = data.astype(np.uint16)
        scaled = False
    else:
        bottom, top = min(low, 0.0), high
        if image.image_type == ismrmrd.IMTYPE_PHASE and max(-low, high) <= math.pi * (1 + 1e-5):
            bottom, top = -math.pi, math.pi  # the same scale for every image of the series
        elif np.issubdtype(data.dtype, np.integer) and high - bottom <= 65535:
            top = bottom + 65535
        slope = (top - bottom) / 65535 or 1.0
        intercept = bottom
        stored = np.clip(np.rint((data.astype(np.float64) - bottom) / slope), 0, 65535).astype(np.uint16)

    center, width = attribute_number(image, WINDOW_CENTER_KEYS), attribute_number(image, WINDOW_WIDTH_KEYS)
    if center is None or width is None or width <= 0:
        if image.image_type == ismrmrd.IMTYPE_PHASE:
            dark, bright = (intercept, intercept + 65535 * slope) if slope != 1.0 else (low, high)
        else:
            dark, bright = (float(edge) for edge in np.percentile(data, (1.0, 99.5)))
        center = (dark + bright) / 2
        width = max(bright - dark, slope)

    ratio, offset = attribute_number(image, SCALE_RATIO_KEYS), attribute_number(image, SCALE_OFFSET_KEYS) or 0.0
    if ratio is not None and ratio <= 0:
        warn(f"the image scale {ratio:g} in the image's meta attributes is not positive; it is left out")
        ratio = None
    if ratio is None and not scaled:
        return Pixels(stored, None, 0.0, center, width)
    ratio, offset = (1.0, 0.0) if ratio is None else (ratio, offset)
    intercept, center = (intercept - offset) / ratio, (center - offset) / ratio
    slope /= ratio
    real_world = (slope, intercept) if OUTPUT in image.meta and output_of(image).units else None
    return Pixels(stored, slope, intercept, center, width / ratio, real_world=real_world)


def _phase(image: ismrmrd.Image, phase_rescale: str, warn: Warn) -> Pixels:
    """Pixels of a phase image of this package. Raises ReconError where FloatToUShortGadget lost it."""
    whole = np.issubdtype(image.data.dtype, np.integer)
    ratio, offset = scale_of(image)
    if whole and (not image.data.any() or image.data.max() > 2 * offset):
        raise ReconError(
            f"DicomOutput: {_name(image)} of the phase does not fit to the offset {offset:g} that it states; set "
            "property intensity_offset of FloatToUShortGadget to that, and max_intensity to twice that less 1 or more"
        )
    if phase_rescale == "radians" and whole:
        slope, intercept = 1 / ratio, -offset / ratio
        stored = image.data.astype(np.uint16)
        return Pixels(stored, slope, intercept, 0.0, 2 * math.pi, real_world=(slope, intercept))
    turns = values_of(image).astype(np.float64) / math.pi  # -1 to 1
    if phase_rescale == "radians":
        slope = 2 * math.pi / 65536
        stored = (np.rint((turns + 1) * 32768).astype(np.int64) % 65536).astype(np.uint16)
        return Pixels(stored, slope, -math.pi, 0.0, 2 * math.pi, real_world=(slope, -math.pi))
    half = HALF_OF_SIEMENS  # +pi is -pi
    stored = (np.rint((turns + 1) * half).astype(np.int64) % (2 * half)).astype(np.uint16)
    return Pixels(stored, 2.0, -2.0 * half, 0.0, 4.0 * half, bits=12, real_world=(math.pi / half, -math.pi))


def _signed(image: ismrmrd.Image, warn: Warn) -> Pixels:
    """Pixels of a real or imaginary part of this package."""
    ratio, offset = scale_of(image)
    values = values_of(image)
    stated = attribute_number(image, (SCALE_OFFSET,)) or 0.0
    whole = np.issubdtype(image.data.dtype, np.integer)
    if whole and offset < stated:
        warn(
            f"FloatToUShortGadget has intensity_offset {offset:g}, and the images were scaled for {stated:g}: values "
            f"below {-offset / ratio:g} are lost; set both to the same"
        )
    width = 2 * float(np.percentile(np.abs(values), 99.5)) or 1.0
    if whole:
        return Pixels(image.data.astype(np.uint16), 1 / ratio, -offset / ratio, 0.0, width)
    most = float(np.abs(values).max()) or 1.0
    slope = most / 32767
    stored = np.rint(values / slope + 32768).astype(np.uint16)
    return Pixels(stored, slope, -32768 * slope, 0.0, width)
