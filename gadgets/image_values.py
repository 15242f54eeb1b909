"""What the pixels of an image mean: its true values, and the greys that show them."""

from __future__ import annotations

import math
from typing import Any

import ismrmrd
import numpy as np

from gadgets.images import SCALE_OFFSET, SCALE_RATIO, WINDOW_CENTER, meta_of, meta_values
from gadgets.outputs import COMPLEX, OUTPUT, PHASE, Output, output_named

Array = np.ndarray[Any, np.dtype[Any]]

WHITE_PERCENTILE = 99.8  # of magnitudes and of the size of signed values, shown as white


def output_of(image: ismrmrd.Image) -> Output:
    """What kind of image it is."""
    return output_named(meta_values(meta_of(image.attribute_string), OUTPUT), image.image_type)


def is_complex_output(image: ismrmrd.Image) -> bool:
    """Whether it is a complex image of this package, which files of magnitudes and parts leave out."""
    return np.iscomplexobj(image.data) and output_of(image) is COMPLEX and OUTPUT in image.meta


def scale_of(image: ismrmrd.Image) -> tuple[float, float]:
    """Ratio r and offset o of an image: its values are (pixel - o) / r; (1, 0) where its meta says nothing usable.

    FloatToUShortGadget shifts signed images and makes phase a number of steps. In a chain without it pixels are floats:
    phase is in radians then, and real and imaginary parts have no offset, whatever their meta announces.
    """
    meta = meta_of(image.attribute_string)
    output = output_named(meta_values(meta, OUTPUT), image.image_type)
    ratio, offset = _number(meta, SCALE_RATIO, 1.0), _number(meta, SCALE_OFFSET, 0.0)
    if output.signed and OUTPUT in meta:
        if not np.issubdtype(image.data.dtype, np.integer):
            return (1.0 if output is PHASE else ratio or 1.0), 0.0
        if output is not PHASE:  # the gadget adds the offset that it used to the centre, which was 0
            offset = _number(meta, WINDOW_CENTER, offset)
    return (ratio, offset) if ratio > 0 else (1.0, offset)


def values_of(image: ismrmrd.Image) -> Array:
    """True values of an image, float32 or complex64 (cha, z, y, x): phase in radians, quantities in their units."""
    ratio, offset = scale_of(image)
    pixels = image.data
    kind = np.complex64 if np.iscomplexobj(pixels) else np.float32
    return ((pixels.astype(np.complex128 if kind is np.complex64 else np.float64) - offset) / ratio).astype(kind)


def grey_range(output: Output, values: Array) -> tuple[float, float]:
    """The values shown as black and white: phase from -pi to pi, signed values about 0, others from 0."""
    if output is PHASE:
        return -math.pi, math.pi
    white = float(np.percentile(np.abs(values), WHITE_PERCENTILE)) or 1.0
    return (-white if output.signed else 0.0), white


def _number(meta: ismrmrd.Meta, name: str, default: float) -> float:
    try:
        value = float((meta_values(meta, name) or [""])[0])
    except ValueError:
        return default
    return value if math.isfinite(value) else default
