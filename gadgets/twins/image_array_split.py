"""Image arrays, split into single images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gadgetron.types import ImageArray

from gadgets.images import make_image
from gadgets.stream import Gadget


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
