"""Images as the server sends them, with the meta attributes that Siemens FIRE reads, and their thumbnails."""

from __future__ import annotations

from typing import Any

import ismrmrd
import numpy as np

from gadgets.images import meta_of

GREY_PERCENTILES = (1, 99.5)  # of an image's magnitudes, shown as black and white


def with_fire_meta(image: ismrmrd.Image, windows: dict[int, tuple[float, float]]) -> ismrmrd.Image:
    """Add the meta attributes that FIRE reads to an image, except those it has.

    Parameters
    ----------
    image : is changed
    windows : black and white of each series, from its first image; all images of a series are shown with these
    """
    meta = meta_of(image.attribute_string)
    series = image.image_series_index
    if series not in windows:
        low, high = np.percentile(np.abs(image.data), GREY_PERCENTILES)
        windows[series] = (float(low), float(high))
    low, high = windows[series]
    head = image.getHead()
    for name, value in {
        "DataRole": "Image",
        "ImageProcessingHistory": ["GENRECON"],
        "WindowCenter": f"{(low + high) / 2:.0f}",
        "WindowWidth": f"{max(high - low, 1):.0f}",
        "ImageRowDir": [f"{value:.18f}" for value in head.read_dir],
        "ImageColumnDir": [f"{value:.18f}" for value in head.phase_dir],
        "Keep_image_geometry": "1",
    }.items():
        if name not in meta:
            meta[name] = value
    image.attribute_string = str(meta.serialize())
    return image


def thumbnail(image: ismrmrd.Image, size: int = 128) -> Any:
    """The middle plane of an image, uint8 (y, x), with at most `size` pixels a side."""
    volume = np.abs(image.data[0])
    plane = volume[len(volume) // 2].astype(np.float32)
    step = max(1, -(-max(plane.shape) // size))
    plane = plane[::step, ::step]
    white = float(np.percentile(plane, GREY_PERCENTILES[1])) or 1.0
    return (255 * np.clip(plane / white, 0, 1)).astype(np.uint8)
