"""Images of a series as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def square_pixels(tile: Any, pixel: list[float]) -> Any:
    """The tile with square pixels: the axis with the larger pixels is interpolated."""
    from PIL import Image

    if min(pixel) <= 0 or abs(pixel[0] / pixel[1] - 1) < 0.01:
        return tile
    rows, columns = (round(size * spacing / min(pixel)) for size, spacing in zip(tile.shape, pixel, strict=True))
    return np.asarray(Image.fromarray(tile).resize((columns, rows), Image.Resampling.BICUBIC))


def write_montage(path: Path, tiles: list[Any], black: float, white: float) -> None:
    """Write float32 tiles (y, x) of one size as one grey PNG."""
    from PIL import Image

    columns = int(np.ceil(np.sqrt(len(tiles))))
    height, width = tiles[0].shape
    sheet: Any = np.zeros((-(-len(tiles) // columns) * height, columns * width), dtype=np.float32)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    Image.fromarray(np.clip((sheet - black) / (white - black) * 255, 0, 255).astype(np.uint8)).save(path)
