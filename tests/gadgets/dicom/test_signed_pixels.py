"""Phase and signed parts as DICOM stores them: from chains with and without FloatToUShortGadget, right or wrong."""

from __future__ import annotations

import math
from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.dicom.pixels import Pixels, stored_pixels
from gadgets.image_values import values_of
from gadgets.stream import ReconError
from gadgets.twins import TWINS
from tests.gadgets.dicom.dicom_images import make_image

COMPLEX_VALUES = (np.linspace(-900, 900, 120) + 1j * np.linspace(300, -500, 120)).reshape(10, 12).astype(np.complex64)
META = {
    ismrmrd.IMTYPE_PHASE: {
        "GenreconOutput": "phase",
        "GADGETRON_ScaleRatio": f"{16384 / math.pi:.9g}",
        "GADGETRON_ScaleOffset": "16384",
    },
    ismrmrd.IMTYPE_REAL: {
        "GenreconOutput": "real",
        "GADGETRON_ScaleRatio": "2",
        "GADGETRON_ScaleOffset": "16384",
        "GADGETRON_WindowCenter": "0",
    },
}


def part(kind: int, offset: int | None = None, **meta: str) -> ismrmrd.Image:
    """The part of complex values as the chain makes it; `offset` of FloatToUShortGadget, None without it."""
    image = make_image(COMPLEX_VALUES, {**META[kind], **meta}, image_type=kind)
    gadget = TWINS["ComplexToFloatGadget"]()
    gadget.configure(None, {})
    (image,) = gadget.process(iter([image]))
    if offset is None:
        return image
    values = np.asarray(image.data, float)
    # What the C++ gadget does, whatever the meta states.
    steps = values / math.pi * offset + offset if kind == ismrmrd.IMTYPE_PHASE else values + offset
    pixels = np.clip(np.rint(steps), 0, 32767).astype(np.uint16)
    shifted = {**META[kind], **meta}
    if "GADGETRON_WindowCenter" in shifted:
        shifted["GADGETRON_WindowCenter"] = str(int(shifted["GADGETRON_WindowCenter"]) + offset)
    return make_image(pixels[0, 0], shifted, image_type=kind)


def shown(pixels: Pixels) -> Any:
    assert pixels.slope is not None
    return pixels.stored[0, 0] * pixels.slope + pixels.intercept


@pytest.mark.parametrize("offset", [16384, None])
@pytest.mark.parametrize("rescale", ["siemens", "radians"])
def test_phase(offset: int | None, rescale: str) -> None:
    pixels = stored_pixels(part(ismrmrd.IMTYPE_PHASE, offset), pytest.fail, rescale)
    unit = math.pi / 4096 if rescale == "siemens" else 1.0
    error = np.angle(np.exp(1j * shown(pixels) * unit) * np.exp(-1j * np.angle(COMPLEX_VALUES)))
    assert np.abs(error).max() < (1.1 * math.pi / 4096 if rescale == "siemens" else 1.1 * math.pi / 32768)
    assert pixels.stored.max() < 2**pixels.bits


def test_phase_of_pi_is_minus_pi() -> None:
    image = make_image(np.full((10, 12), math.pi, np.float32), META[ismrmrd.IMTYPE_PHASE], image_type=2)
    assert (shown(stored_pixels(image, pytest.fail)) == -4096).all()


@pytest.mark.parametrize("offset", [16384, 20000, None])
def test_signed_values_by_the_offset_that_was_used(offset: int | None) -> None:
    """The gadget adds its offset to the window's centre: what the meta announces does not count."""
    image = part(ismrmrd.IMTYPE_REAL, offset)
    np.testing.assert_allclose(shown(stored_pixels(image, pytest.fail)), COMPLEX_VALUES.real / 2, atol=0.3)
    np.testing.assert_allclose(values_of(image)[0, 0], COMPLEX_VALUES.real / 2, atol=0.3)


def test_an_offset_that_is_too_small_is_told() -> None:
    warnings: list[str] = []
    stored_pixels(part(ismrmrd.IMTYPE_REAL, 500), warnings.append)
    assert len(warnings) == 1 and "intensity_offset 500" in warnings[0] and "below -250 are lost" in warnings[0]


@pytest.mark.parametrize("offset", [0, 40000])
def test_phase_that_does_not_fit_to_its_offset_is_refused(offset: int) -> None:
    image = part(ismrmrd.IMTYPE_PHASE, offset)
    if offset:
        image.meta = ismrmrd.Meta({**META[ismrmrd.IMTYPE_PHASE], "GADGETRON_ScaleOffset": "2048"})
    with pytest.raises(ReconError, match="does not fit to the offset"):
        stored_pixels(image, pytest.fail)
