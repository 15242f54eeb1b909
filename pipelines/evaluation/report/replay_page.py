"""What the page of a replay shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gadgets.image_values import grey_range, output_of, values_of
from gadgets.images import WARNINGS, meta_of, meta_values
from gadgets.outputs import STANDARD_DEVIATION
from gadgets.stream import one_line
from pipelines.evaluation.report.pictures import (
    WHITE_PERCENTILE,
    Array,
    Pictures,
    card_style,
    colour_bar,
    white_level,
)
from pipelines.evaluation.report.reading import REPLAY, TIMING, broken, checked_record
from pipelines.replay import IMAGES_FILE, IMAGES_GROUP, MONTAGE_TILES, read_images

TEMPLATE = "replay.html.j2"
DEVIATION_COLOURS = "viridis"


def content(path: Path, record: Any, pictures: Pictures) -> dict[str, Any]:
    """What the template needs, from replay.json and the images next to it. Raises ReconError when it is broken."""
    run = checked_record(record, REPLAY, path, "the file")
    timings = [
        checked_record(timing, TIMING, path, f"timing {place}") for place, timing in enumerate(run["timings"], 1)
    ]
    images = path.with_name(IMAGES_FILE)
    try:
        with h5py.File(images) as file:
            numbers = sorted(int(name[6:]) for name in file[IMAGES_GROUP] if re.fullmatch(r"image_\d+", name))
            counts = [len(file[IMAGES_GROUP][f"image_{number}"]["header"]) for number in numbers]
        series = [_Series(path.parent, number, count) for number, count in zip(numbers, counts, strict=True) if count]
    except Exception as error:  # HDF5, ISMRMRD and XML each raise their own
        raise broken(images, f"cannot be read ({one_line(error)})") from None
    if not series:
        raise broken(images, "holds no image")
    whites = {entry.number: entry.white for entry in series}
    warnings = [str(text) for text in run["warnings"]] + [text for entry in series for text in entry.warnings]
    return {
        "title": Path(run["raw"]).name,
        "chain": Path(run["chain"]).name,
        "images": sum(entry.count for entry in series),
        "seconds": run["seconds"],
        "first_image_seconds": run["first_image_seconds"],
        "warnings": list(dict.fromkeys(warnings)),
        "series": [entry.content(pictures, whites.get(entry.number - STANDARD_DEVIATION.series)) for entry in series],
        "timings": timings,
        "longest": max((timing["busy"] for timing in timings), default=0.0),
        "header": run["header"],
        "percentile": WHITE_PERCENTILE,
    }


class _Series:
    """A series: at most 36 images, evenly spaced; of volumes, partitions of their middle half."""

    def __init__(self, folder: Path, number: int, count: int) -> None:
        self.number, self.count = number, count
        self.tiles: dict[str, Array] = {}  # float32 (y, x) by name
        self.warnings: list[str] = []
        chosen = np.unique(np.linspace(0, count - 1, min(count, MONTAGE_TILES)).round().astype(int)).tolist()
        for index, image in zip(chosen, read_images(folder, number, chosen), strict=True):
            meta = meta_of(image.attribute_string)
            if not self.tiles:
                self.matrix = image.data.shape[1:]  # z, y, x
                self.method, *settings = (
                    ", ".join(meta_values(meta, f"Genrecon{key}"))
                    for key in ("Method", "Settings", "DataConsistency", "Fallback")
                )
                self.settings = "; ".join(filter(None, settings))
                width, height, _ = image.field_of_view
                self.aspect = width / height if min(width, height) > 0 else 0.0
            self.warnings += meta_values(meta, WARNINGS)
            self.output = output_of(image)
            values = np.nan_to_num(values_of(image)[0], posinf=0.0)
            volume = values if self.output.signed else np.abs(values)
            first, middle = len(volume) // 4, len(volume) - 2 * (len(volume) // 4)
            shown = min(max(1, MONTAGE_TILES // len(chosen)), middle)
            for partition in (first + (np.arange(shown) + 0.5) * middle / shown).astype(int).tolist():
                name = f"image {index + 1}" + (f", partition {partition + 1}" if len(volume) > 1 else "")
                self.tiles[name] = volume[partition]
        tiles = np.stack(list(self.tiles.values()))
        signed = self.output.signed
        self.black, self.white = grey_range(self.output, tiles) if signed else (0.0, white_level(tiles))

    def content(self, pictures: Pictures, images_white: float | None) -> dict[str, Any]:
        """What the template needs; standard deviations are compared with the white level of their images."""
        is_deviation = self.method.endswith(STANDARD_DEVIATION.words)
        colours = DEVIATION_COLOURS if is_deviation else ""
        start, stem = f"Series {self.number}", f"series_{self.number:03d}"
        return {
            "title": f"{start}: {self.method}" if self.method else start,
            "settings": self.settings,
            "count": self.count,
            "size": " x ".join(str(length) for length in reversed(self.matrix) if length > 1),
            "black": self.black,
            "white": self.white,
            "units": self.output.units if self.output.signed else "",
            "bar": colour_bar(DEVIATION_COLOURS) if is_deviation else None,
            "part_of_white": self.white / images_white if images_white else None,
            "style": card_style(self.matrix[-1], self.aspect),
            "tiles": [
                pictures.pixels(
                    f"{stem}_{place:02d}.png",
                    tile - self.black,
                    self.white - self.black,
                    f"{start}, {name}",
                    name,
                    colours=colours,
                )
                for place, (name, tile) in enumerate(self.tiles.items(), 1)
            ],
        }
