"""Pictures of a page: arrays as 8-bit PNG, colour bars, the region that is enlarged."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from PIL import Image
from scipy import ndimage

WHITE_PERCENTILE = 99.8

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Picture:
    """A PNG on the page; `kind` holds its CSS classes, `uri` its content."""

    alt: str
    caption: str
    kind: str
    width: int
    height: int
    uri: Markup


@dataclass
class Pictures:
    """Makes the pictures of a page and keeps their PNG files by name."""

    clean: Callable[[str], str]  # for file names
    files: dict[str, bytes] = field(default_factory=dict)

    def png(self, name: str, png: bytes, alt: str, caption: str, kind: str) -> Picture:
        """A picture of a PNG."""
        self.files[name] = png
        width, height = Image.open(io.BytesIO(png)).size
        uri = Markup(f"data:image/png;base64,{base64.b64encode(png).decode()}")
        return Picture(alt, caption, kind, width, height, uri)

    def pixels(
        self, name: str, array: Array, top: float, alt: str, caption: str, kind: str = "", colours: str = ""
    ) -> Picture:
        """A picture of a float array (y, x): 0 to `top` from black to white, or through a colour map, in 8 bit."""
        image = Image.fromarray(np.rint(np.clip(array / top, 0, 1) * 255).astype(np.uint8))
        if colours:
            image.putpalette(matplotlib.colormaps[colours](np.arange(256), bytes=True)[:, :3].tobytes())
        buffer = io.BytesIO()
        image.save(buffer, "PNG", optimize=True)
        return self.png(name, buffer.getvalue(), alt, caption, f"pixels {kind}")


def white_level(array: Array) -> float:
    """The value that is shown white."""
    return float(np.percentile(array, WHITE_PERCENTILE)) or 1.0


def card_style(width: int, aspect: float = 0.0) -> str:
    """CSS for pictures `width` pixels wide: shown at a whole multiple of it, or at half of it when it is large."""
    shown = width * max(1, round(256 / width)) if width <= 400 else width // 2
    return f"--width: {shown}px{f'; --aspect: {aspect:.4f}' if aspect else ''}"


def colour_bar(colours: str) -> Markup:
    """A small bar of a colour map."""
    stops = matplotlib.colormaps[colours](np.linspace(0, 1, 9), bytes=True)[:, :3]
    gradient = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops)
    return Markup(f'<span class="bar" style="background: linear-gradient(to right, {gradient})"></span>')


def detailed_region(reference: Array) -> tuple[slice, slice]:
    """The square, a quarter of the image wide, with the steepest edges inside the object, its outline not counted.

    Parameters
    ----------
    reference : float (y, x), not negative
    """
    size = min(max(8, min(reference.shape) // 4), *reference.shape)
    smooth = ndimage.gaussian_filter(reference, 2.0)
    inside = ndimage.binary_erosion(ndimage.binary_fill_holes(smooth > 0.1 * smooth.max()), iterations=4)
    edges = ndimage.gaussian_gradient_magnitude(reference, 1.0) * inside
    valid = tuple(slice(size // 2, size // 2 + length - size + 1) for length in reference.shape)
    coverage, score = (ndimage.uniform_filter(a.astype(np.float64), size)[valid] for a in (inside, edges))
    score[coverage < 0.98 * coverage.max()] = -1.0
    y, x = map(int, np.unravel_index(np.argmax(score), score.shape))
    return slice(y, y + size), slice(x, x + size)


def coil_map_sheet(maps: Array) -> Array:
    """Coil maps (coil, y, x) side by side in one image (y, x), in about as many rows as columns."""
    step = math.ceil(max(maps.shape[1:]) / 96)  # they are smooth
    tiles = maps[:, ::step, ::step]
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    sheet = np.zeros((rows * columns, *tiles.shape[1:]), np.float32)
    sheet[: len(tiles)] = tiles
    return sheet.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2).reshape(rows * tiles.shape[1], -1)
