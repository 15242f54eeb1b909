"""What the page of a benchmark shows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from pipelines.evaluation.report.pictures import (
    WHITE_PERCENTILE,
    Array,
    Picture,
    Pictures,
    card_style,
    coil_map_sheet,
    colour_bar,
    detailed_region,
    white_level,
)
from pipelines.evaluation.report.reading import (
    CASE,
    NUMBERS,
    RESULTS,
    ROW,
    Record,
    broken,
    checked_record,
    read_arrays,
)
from pipelines.evaluation.report.scatter import scatter

TEMPLATE = "benchmark.html.j2"
ERROR_GAIN = 5
ERROR_COLOURS = "inferno"
DEVIATION_COLOURS = "viridis"
OPEN_CASES = 3  # with more cases, only the first is unfolded


def content(path: Path, record: Any, pictures: Pictures) -> dict[str, Any]:
    """What the template needs, from results.json and the arrays next to it. Raises ReconError when it is broken."""
    results = checked_record(record, RESULTS, path, "the file")
    cases = [checked_record(case, CASE, path, f"case {place}") for place, case in enumerate(results["cases"], 1)]
    rows = [checked_record(row, ROW, path, f"row {place}") for place, row in enumerate(results["rows"], 1)]
    unknown = {row["case"] for row in rows} - {case["case"] for case in cases}
    if unknown or not rows:
        raise broken(path, f"case '{min(unknown)}' of its rows is not listed" if unknown else "it has no rows")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    means = {method: _mean(method, rows) for method in methods}
    return {
        "title": results["title"] or "Benchmark of reconstructions",
        "lead": f"Cases: {len(cases)}; methods: {len(methods)}; genrecon {results['version']}, {results['created']}",
        "notes": [
            f"{count} of {len(rows)} reconstructions {what}: see their cases"
            for key, what in (("error", "failed"), ("warnings", "have warnings"))
            if (count := sum(bool(row[key]) for row in rows))
        ],
        "methods": methods,
        "columns": _columns([case["case"] for case in cases], rows, means),
        "chart": _chart(means, len(cases), pictures),
        "cases": [
            _case(path.parent, case, [row for row in rows if row["case"] == case["case"]], pictures, f"{place:02d}")
            for place, case in enumerate(cases, 1)
        ],
        "all_open": len(cases) <= OPEN_CASES,
        "numbers": NUMBERS,
        "percentile": WHITE_PERCENTILE,
        "gain": ERROR_GAIN,
        "error_bar": colour_bar(ERROR_COLOURS),
        "machine": results["machine"],
    }


def _mean(method: str, rows: list[Record]) -> Record:
    """Means of a method over the cases that it finished (`count` of them), as a row."""
    found = [row for row in rows if row["method"] == method and not row["error"] and row["psnr"] is not None]
    values = {key: [row[key] for row in found if row[key] is not None] for key in ("psnr", "ssim", "seconds")}
    means: Record = {key: float(np.mean(entries)) if entries else None for key, entries in values.items()}
    return {**means, "error": "", "count": len({row["case"] for row in found})}


def _best(rows: Iterable[Record]) -> dict[str, float | None]:
    """The best value of every number that has one."""
    rows, found = list(rows), {}
    for key, (_, _, choose, _) in NUMBERS.items():
        values = [row[key] for row in rows if row.get(key) is not None and not row["error"]]
        found[key] = choose(values) if choose and values else None
    return found


def _columns(cases: list[str], rows: list[Record], means: dict[str, Record]) -> list[dict[str, Any]]:
    """Columns of the summary: a heading, the number of the case, rows by method, and the best of them."""
    columns: list[dict[str, Any]] = [
        {"head": case, "case": place, "rows": {row["method"]: row for row in rows if row["case"] == case}}
        for place, case in enumerate(cases, 1)
    ]
    if len(cases) > 1:  # means over different cases cannot be compared
        finished = {method: row for method, row in means.items() if row["count"] == len(cases)}
        columns.append({"head": "mean", "case": None, "rows": finished})
    return [{**column, "best": _best(column["rows"].values())} for column in columns]


def _chart(means: dict[str, Record], cases: int, pictures: Pictures) -> Picture | None:
    points = []
    for method, row in means.items():
        if row["seconds"] is not None and row["psnr"] is not None:
            label = method if row["count"] == cases else f"{method} ({row['count']} of {cases} cases)"
            points.append((pictures.clean(label), row["seconds"], row["psnr"]))
    if not points:
        return None
    alt = "PSNR against time. " + "; ".join(f"{name}: {time:.3g} s, {psnr:.2f} dB" for name, time, psnr in points)
    caption = "Means over the cases; better is up and to the left."
    return pictures.png("time.png", scatter(points), alt, caption, "chart")


def _case(folder: Path, case: Record, rows: list[Record], pictures: Pictures, number: str) -> dict[str, Any]:
    """A case: its data, the images and numbers of each method, the coil maps."""
    shown: dict[str, Any] = {
        **case,
        "missing": "",
        "reference": [],
        "maps": None,
        "white": 1.0,
        "zoom": None,
        "rows": rows,
        "best": _best(rows),
        "longest": {key: max((row[key] or 0.0 for row in rows), default=0.0) for key in NUMBERS},
    }
    reference = None
    try:
        given = read_arrays(folder, case["file"], {"reference": 2, "mask": 2, "maps": 3})
    except ValueError as error:
        shown["missing"] = f"no reference, sampling mask, error and coil maps: {error}"
    else:
        reference = given["reference"]
        shown |= {"white": white_level(reference), "zoom": detailed_region(reference)}
        shown["reference"] = _reference_pictures(given, shown["white"], shown["zoom"], pictures, number)
        top = float(given["maps"].max()) or 1.0
        caption = f"magnitude of the {len(given['maps'])} coil maps, black 0, white {top:.3g}"
        sheet = coil_map_sheet(given["maps"])
        shown["maps"] = pictures.pixels(f"{number}_maps.png", sheet, top, caption, caption, "maps")
    shown["style"] = card_style(256 if reference is None else reference.shape[1])
    shown["cards"] = []
    for place, row in enumerate(rows, 1):
        label = re.sub(r"[^\w.=-]+", "_", pictures.clean(row["method"]), flags=re.ASCII)[:60]
        name = f"{number}_{place:02d}_{label}"
        shown["cards"].append(_card(folder, row, reference, shown["white"], shown["zoom"], pictures, name))
    return shown


def _reference_pictures(
    given: dict[str, Array], white: float, zoom: Any, pictures: Pictures, number: str
) -> list[Picture]:
    reference, mask = given["reference"], given["mask"] != 0
    frame = np.zeros(reference.shape, bool)
    frame[zoom] = True
    frame[zoom][1:-1, 1:-1] = False
    framed = np.where(frame, white, reference)
    sampled = f"sampling mask, {mask.mean():.1%} sampled (white)"
    return [
        pictures.pixels(f"{number}_reference.png", framed, white, "reference", "image, the zoom framed", "image"),
        pictures.pixels(f"{number}_mask.png", mask, 1.0, sampled, sampled, "error"),
        pictures.pixels(f"{number}_zoom.png", reference[zoom], white, "reference, zoom", "zoom", "zoom"),
    ]


def _card(
    folder: Path, row: Record, reference: Array | None, white: float, zoom: Any, pictures: Pictures, name: str
) -> dict[str, Any]:
    """A method's image, error, zoom and standard deviation, or why there are none, and its warnings."""
    card: dict[str, Any] = {"row": row, "pictures": [], "failure": "", "notes": list(row["warnings"])}

    def show(part: str, array: Array, top: float, caption: str, colours: str = "") -> None:
        alt = f"{row['method']}, {part}"
        card["pictures"].append(pictures.pixels(f"{name}_{part}.png", array, top, alt, caption, part, colours))

    try:
        if row["error"]:
            raise ValueError(row["error"])
        found = read_arrays(folder, row["file"], {"image": 2, "deviation": 2}, "deviation")
    except ValueError as error:
        card["failure"] = f"{'failed' if row['error'] else 'no image'}: {error}"
        return card
    image = found["image"]
    show("image", image, white, "image")
    if reference is not None and image.shape != reference.shape:
        card["notes"].append(f"the image is {image.shape}, the reference {reference.shape}")
    elif reference is not None:
        show("error", np.abs(image - reference), white / ERROR_GAIN, f"error ×{ERROR_GAIN}", ERROR_COLOURS)
        show("zoom", image[zoom], white, "zoom")
    if "deviation" in found:
        top = white_level(found["deviation"])
        caption = Markup("standard deviation: 0 {} {}").format(colour_bar(DEVIATION_COLOURS), f"{top:.2g}")
        show("deviation", found["deviation"], top, caption, DEVIATION_COLOURS)
    return card
