"""Single images and the names of their meta attributes."""

from __future__ import annotations

import copy
from typing import Any

import ismrmrd
import numpy as np
from ismrmrd.image import get_data_type_from_dtype

Array = np.ndarray[Any, np.dtype[Any]]

WINDOW_CENTER = "GADGETRON_WindowCenter"
ENCODING = "encoding"  # number of the encoding in the header
NOISE = "GenreconNoise"  # which noise the data were prewhitened with, and its age
NOISE_NAME = "GenreconNoiseName"  # file or measurement of that noise
PARTIAL_FOURIER = "GenreconPartialFourier"  # which side of k-space did not come, and what was made of that
PARTIAL_FOURIER_DIRECTION = "GenreconPartialFourierDirection"  # each, by DICOM's terms (0018,9036)
REFERENCE = "GenreconReference"  # whose calibration lines the coil maps are of, where a reference scan is at hand
OWN_CALIBRATION = "own calibration lines"  # the scan has calibration of its own
REFERENCE_NAME = "GenreconReferenceName"  # file or measurement of that scan
SHADING = "GenreconShading"  # by what the intensities were corrected
WARNINGS = "GenreconWarning"  # what users must know of the image
COMPLETED_CALIBRATION = (  # one of these
    "no calibration lines were found: coil maps are from a k-space centre completed by low rank"
)
FOLDED = (  # and this, where samples are missing at regular intervals
    "samples are missing at regular intervals: without calibration lines or a reference scan, copies of the object may "
    "lie over each other in the image; do not rely on it"
)
SCALE_RATIO = "GADGETRON_ScaleRatio"  # what pixel values were multiplied by
SCALE_OFFSET = "GADGETRON_ScaleOffset"  # what was added to them then


def warnings_of(image: ismrmrd.Image) -> list[str]:
    """What users must know of an image."""
    return meta_values(meta_of(image.attribute_string), WARNINGS)


def meta_of(text: str | bytes | None) -> ismrmrd.Meta:
    """The meta attributes of an image, from their XML; empty when there are none."""
    return ismrmrd.Meta.deserialize(text) if text else ismrmrd.Meta()


def meta_values(meta: ismrmrd.Meta, name: str) -> list[str]:
    """All values of one meta attribute, as text."""
    value = meta.get(name, [])
    return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]


def encoding_of_image(image: ismrmrd.Image, header: Any) -> Any:
    """The encoding of a header that an image was made of, the first one where its meta names none; None without."""
    named = meta_values(meta_of(image.attribute_string), ENCODING)
    place = int(named[0]) if named and named[0].isdecimal() else 0
    return header.encoding[place if place < len(header.encoding) else 0] if header.encoding else None


def single_precision(image: ismrmrd.Image) -> ismrmrd.Image:
    """The image, complex64 where it was complex128: complex images pass ComplexToFloatGadget as that."""
    if image.data.dtype != np.complex128:
        return image
    return make_image(image.getHead(), image.data.astype(np.complex64), image.attribute_string)


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
