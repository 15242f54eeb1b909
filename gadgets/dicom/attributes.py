"""Names of the image meta attributes and image types that DICOM values are taken from."""

from __future__ import annotations

import ismrmrd

from gadgets.dicom.values import finite
from gadgets.images import NOISE, NOISE_NAME, REFERENCE, REFERENCE_NAME, SHADING, WARNINGS
from gadgets.stream.digest import CHAIN_DIGEST, SCAN_DIGEST

# ISMRMRD image types that MR Image Storage can hold
STORABLE = (0, ismrmrd.IMTYPE_MAGNITUDE, ismrmrd.IMTYPE_PHASE, ismrmrd.IMTYPE_REAL, ismrmrd.IMTYPE_IMAG)

SCALE_RATIO_KEYS = ("GADGETRON_ScaleRatio", "GADGETRON_IMAGE_SCALE_RATIO")
SCALE_OFFSET_KEYS = ("GADGETRON_ScaleOffset", "GADGETRON_IMAGE_SCALE_OFFSET")
WINDOW_CENTER_KEYS = ("GADGETRON_WindowCenter", "WindowCenter")
WINDOW_WIDTH_KEYS = ("GADGETRON_WindowWidth", "WindowWidth")
COMMENT_KEYS = ("GADGETRON_ImageComment", "ImageComments", "ImageComment")
HISTORY_KEYS = ("GADGETRON_ImageProcessingHistory", "ImageProcessingHistory")
METHOD_KEYS = ("GenreconMethod",)
SETTINGS_KEYS = ("GenreconSettings",)
ENCODED_MATRIX_KEYS = ("encoded_matrix",)  # x, y, z; of the lines that came, which the header may contradict
CHAIN_KEYS = (CHAIN_DIGEST,)
SCAN_KEYS = (SCAN_DIGEST,)
NOISE_KEYS = (NOISE,)
NOISE_NAME_KEYS = (NOISE_NAME,)
REFERENCE_KEYS = (REFERENCE,)
REFERENCE_NAME_KEYS = (REFERENCE_NAME,)
SHADING_KEYS = (SHADING,)
WARNING_KEYS = (WARNINGS,)
ECHO_TIME_KEYS = ("GADGETRON_TE",)
INVERSION_TIME_KEYS = ("GADGETRON_TI",)


def attribute(image: ismrmrd.Image, keys: tuple[str, ...]) -> list[str]:
    """Values of the first of `keys` that the image's meta attributes hold; empty without."""
    for key in keys:
        value = image.meta.get(key)
        values = value if isinstance(value, list) else [value]
        texts = [str(text).strip() for text in values if text is not None and str(text).strip()]
        if texts:
            return texts
    return []


def attribute_number(image: ismrmrd.Image, keys: tuple[str, ...]) -> float | None:
    """The first of those values as a finite float, or None."""
    values = attribute(image, keys)
    return finite(values[0]) if values else None


def scan_of(image: ismrmrd.Image) -> str:
    """Digest of the data of the image's scan; empty when the image brings none."""
    return "".join(attribute(image, SCAN_KEYS)[:1])
