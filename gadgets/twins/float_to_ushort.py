"""Images in 16 bit."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np

from gadgets.images import SCALE_OFFSET, WINDOW_CENTER, make_image, meta_of, meta_values
from gadgets.outputs import OUTPUT
from gadgets.stream import Gadget, ReconError, parameter

log = logging.getLogger("genrecon")


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
        self._check_offset(item)
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
        # Phase of +pi is one step above what 16384 leaves room for.
        lost = int(np.count_nonzero(values > self.parameters.max_intensity + (item.image_type == ismrmrd.IMTYPE_PHASE)))
        if lost:
            log.warning("FloatToUShortGadget: %d pixels above max_intensity were cut to it", lost)
        lost = int(np.count_nonzero(values < self.parameters.min_intensity))
        if lost:
            log.warning("FloatToUShortGadget: %d pixels below min_intensity were cut to it", lost)
        pixels = np.floor(clipped + 0.5).astype(np.uint16)
        return make_image(item.getHead(), pixels, meta.serialize() if meta else "")

    def _check_offset(self, image: ismrmrd.Image) -> None:
        """Raise ReconError where the offset is not the one that the image's meta states: its values would be lost."""
        offset, ours = image.meta.get(SCALE_OFFSET), self.parameters.intensity_offset
        if OUTPUT in image.meta and offset is not None and float(offset) != ours:
            raise ReconError(
                f"gadget FloatToUShortGadget: property 'intensity_offset' is {ours}, but {image.meta[OUTPUT]} images "
                f"count on {offset}: set it to that, and max_intensity to twice that less 1 or more (or "
                "intensity_offset of generative_recon to the same)"
            )
