"""Magnitude, phase, real or imaginary part of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ismrmrd
import numpy as np

from gadgets.images import make_image
from gadgets.stream import Gadget

Array = np.ndarray[Any, np.dtype[Any]]


class ComplexToFloatGadget(Gadget):
    """Magnitude, phase, real or imaginary part of complex images, by the image type in their header.

    Images of another type become magnitudes; those of double precision pass on as they are.
    """

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        parts: dict[int, Callable[[Array], Array]] = {
            ismrmrd.IMTYPE_PHASE: np.angle,
            ismrmrd.IMTYPE_REAL: np.real,
            ismrmrd.IMTYPE_IMAG: np.imag,
        }
        for item in items:
            if isinstance(item, ismrmrd.Image) and item.data.dtype == np.complex64:
                head = item.getHead()
                part = parts.get(head.image_type, np.abs)
                if head.image_type not in parts:
                    head.image_type = ismrmrd.IMTYPE_MAGNITUDE
                item = make_image(head, part(item.data).astype(np.float32), item.attribute_string)
            yield item
