"""Intensity correction of the images of a scan: one field a slice, for all images of it."""

from __future__ import annotations

from torch import Tensor

from gadgets.buffers import keep
from gadgets.images import SHADING
from gadgets.outputs import MAGNITUDE, STANDARD_DEVIATION, Output
from gadgets.pixel_scale import has_signal
from gadgets.solvers.work import ImageWork
from priors.signal.shading import ShadingField, fit_shading

CHOICES = ("off", "fit")
NOT_FOUND = "shading: too little signal, or less than 16 partitions, to find it; intensities are not corrected"
CORRECTED = (MAGNITUDE, STANDARD_DEVIATION)  # all else stays as measured


class Shading:
    """Finds the shading of each slice in its first image with signal, and keeps it for the slice's other images.

    Parameters
    ----------
    choice : of property `shading`
    all_slices : whether slices come again, so that the fields of all of them are kept
    """

    def __init__(self, choice: str, all_slices: bool) -> None:
        self._on, self._all_slices = choice != "off", all_slices
        self._fields: dict[tuple[int, int], ShadingField] = {}  # of each encoding space and slice

    def of(self, image: ImageWork, output: Output) -> ShadingField | None:
        """The field that an output of an image is to be corrected with, None where it is not."""
        if not self._on or output not in CORRECTED or image.outcome is None or NOT_FOUND in image.remarks:
            return None
        place = (image.counters[0], image.counters[1])
        field = self._fields.get(place)
        if field is None or (len(field.logarithm) == 1) != (len(image.outcome.images) == 1):
            signal = has_signal(image.kspace, image.mask)  # the shading of noise says nothing of later images
            field = fit_shading(image.outcome.images) if signal else None
            if field is not None:
                keep(self._fields, place, field, self._all_slices)
        if field is None:
            image.remarks.append(NOT_FOUND)
        return field


def corrected(pixels: Tensor, field: ShadingField | None) -> Tensor:
    """Pixels (batch, y, x) without the shading; the same where there is no field."""
    return pixels if field is None else pixels * field.gain(tuple(pixels.shape))


def shading_notes(field: ShadingField | None) -> dict[str, str]:
    """Meta attributes of an image that was corrected."""
    if field is None:
        return {}
    low, high = field.limits
    return {SHADING: f"fit, gain {low:.2f} to {high:.2f}"}
