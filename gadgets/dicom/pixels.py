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
from gadgets.stream import ReconError


@dataclass(frozen=True)
class Pixels:
    """uint16 pixels (cha, z, y, x); value = slope * pixel + intercept, slope None for unscaled ones."""

    stored: NDArray[np.uint16]
    slope: float | None
    intercept: float
    window_center: float
    window_width: float


def _name(image: ismrmrd.Image) -> str:
    counters = f"slice {image.slice}, contrast {image.contrast}, repetition {image.repetition}"
    return f"image {image.image_index} ({counters})"


def stored_pixels(image: ismrmrd.Image, warn: Warn) -> Pixels:
    """Pixels of an image as DICOM stores them. Raises ReconError for complex, colour, empty or NaN data."""
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
    return Pixels(stored, slope / ratio, intercept, center, width / ratio)
