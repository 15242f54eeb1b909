"""Images as the server sends them, with the meta attributes that Siemens FIRE reads, and their thumbnails."""

from __future__ import annotations

import ismrmrd
import numpy as np

from gadgets.image_values import grey_range, output_of, scale_of, values_of
from gadgets.images import meta_of
from pipelines.server.scan import Thumbnail

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
        windows[series] = _grey_levels(image)
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


def _grey_levels(image: ismrmrd.Image) -> tuple[float, float]:
    """Black and white of an image, in its pixels."""
    output = output_of(image)
    if not output.signed:
        low, high = np.percentile(np.abs(image.data), GREY_PERCENTILES)
        return float(low), float(high)
    ratio, offset = scale_of(image)
    low, high = grey_range(output, values_of(image))
    return low * ratio + offset, high * ratio + offset


def thumbnail(image: ismrmrd.Image, size: int = 192) -> Thumbnail:
    """The middle plane of an image with at most `size` pixels a side."""
    output = output_of(image)
    volume = image.data[0]
    step = max(1, -(-max(volume.shape[1:]) // size))
    if output.signed and not np.iscomplexobj(volume):
        plane = values_of(image)[0, len(volume) // 2, ::step, ::step]
        low, high = grey_range(output, plane)
    else:
        plane = np.abs(volume[len(volume) // 2, ::step, ::step]).astype(np.float32)
        low, high = 0.0, float(np.percentile(plane, GREY_PERCENTILES[1])) or 1.0
    grey = (255 * np.clip((plane - low) / (high - low), 0, 1)).astype(np.uint8)
    return Thumbnail(output.words or output.name, grey)
