"""One page (HTML) that shows what a benchmark measured, or what a replay left."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import h5py
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from scipy import ndimage

from gadgets.images import DEVIATION, DEVIATION_SERIES, SCALE_RATIO, meta_of, meta_values
from gadgets.stream import ReconError, one_line
from pipelines.replay import ACCOUNT_FILE, IMAGES_FILE, IMAGES_GROUP, MONTAGE_TILES, read_images, staged_folder

RESULTS_FILE = "results.json"
WHITE_PERCENTILE = 99.8
ERROR_GAIN = 5
ERROR_COLOURS = "inferno"
DEVIATION_COLOURS = "viridis"
OPEN_CASES = 3  # with more of them, only the first is unfolded

Array = np.ndarray[Any, Any]
Record = dict[str, Any]
Files = dict[str, bytes]  # the PNG files of a page, by name

_NUMBERS = {  # heading, format, which is best, whether a bar is drawn
    "psnr": ("PSNR (dB)", ".2f", max, True),
    "ssim": ("SSIM", ".4f", max, True),
    "nrmse": ("NRMSE", ".4f", min, False),
    "hfen": ("HFEN", ".4f", min, False),
    "psnr_object": ("PSNR in the object (dB)", ".2f", max, False),
    "ssim_object": ("SSIM in the object", ".4f", max, False),
    "nrmse_object": ("NRMSE in the object", ".4f", min, False),
    "hfen_object": ("HFEN in the object", ".4f", min, False),
    "seconds": ("seconds", ".3g", None, False),
    "memory_mb": ("memory (MB)", ".0f", None, False),
    "evaluations": ("evaluations", ".0f", None, False),
}
# Names of what a JSON object holds, by kind; what is missing or null is empty, or None where it is a number.
_RESULTS = {str: "version created", dict: "machine", list: "cases rows"}
_CASE = {str: "case data mask file", float: "slice acceleration noise coils", list: "matrix"}
_ROW = {str: "case method consistency error file", float: " ".join(_NUMBERS), list: "warnings"}
_REPLAY = {str: "raw chain", float: "seconds first_image_seconds", list: "timings warnings", dict: "header"}
_TIMING = {str: "name", float: "busy items_in items_out"}
_REQUIRED = {"cases", "rows", "case", "method", "raw", "name", "busy"}
# Folders can hold names of patients: of a path, only the file's name is shown.
_FOLDERS = re.compile(
    r"(?:(?<=[\s'\"=(`:])|^)(?:~|\.{1,2})?/(?:[^/:;,'\"()`]+/)+"
    r"|(?:[^\s/'\"=(`]+/)+(?=[^\s/]+\.(?:h5|xml|npy|npz|json|dcm|safetensors)\b)"
)


def report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page about the folder of a benchmark or a replay, and its images as PNG beside it.

    Parameters
    ----------
    folder : holds results.json (of a benchmark; taken where both are there) or replay.json and images.h5 (of a replay)
    out : page to write, .html; None writes report.html into `folder`. The PNGs go to a folder of its name beside it

    Returns
    -------
    The page. It loads nothing, and shows of a patient's data what can be seen in the images, no more.

    Raises
    ------
    ReconError
        One line: what is wrong with the folder's files or the place to write to, and the mend. An earlier page is left.
    """
    folder = Path(folder)
    out = Path(out) if out is not None else folder / "report.html"
    if out.suffix.lower() not in {".html", ".htm"}:
        raise ReconError(f"{out}: cannot become the report; choose a file that ends with .html")
    pages = {RESULTS_FILE: _benchmark, ACCOUNT_FILE: _replay}
    name = next((name for name in pages if (folder / name).is_file()), None)
    if name is None:
        raise ReconError(
            f"{folder}: holds neither {RESULTS_FILE} nor {ACCOUNT_FILE}; run `genrecon benchmark` or `genrecon replay` "
            "into it first"
        )
    files: Files = {}
    page = pages[name](folder / name, _read_json(folder / name), files)
    with staged_folder(out.absolute().parent) as staging:
        (staging / out.stem).mkdir()
        for file, content in files.items():
            (staging / out.stem / file).write_bytes(content)
        (staging / out.name).write_text(page, encoding="utf-8")
    return out


# --- reading -------------------------------------------------------------------------------------------------------


def _broken(path: Path, what: str) -> ReconError:
    command = "benchmark" if path.name == RESULTS_FILE else "replay"
    return ReconError(f"{path}: {what}; run `genrecon {command}` into its folder again")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(path, f"cannot be read as JSON ({one_line(error)})") from None


def _record(value: Any, fields: Mapping[Any, str], path: Path, what: str) -> Record:
    """The fields of a JSON object, checked."""
    if not isinstance(value, dict):
        raise _broken(path, f"{what} is not an object")
    found: Record = {}
    for kind, name in ((kind, name) for kind, names in fields.items() for name in names.split()):
        entry = value.get(name)
        if kind is float and isinstance(entry, int | float) and not isinstance(entry, bool):
            found[name] = entry if math.isfinite(entry) else None
        elif entry is None and name not in _REQUIRED:
            found[name] = None if kind is float else kind()
        elif isinstance(entry, kind):
            found[name] = entry
        else:
            raise _broken(path, f"{name} of {what} is {'missing' if entry is None else repr(entry)[:60]}")
    return found


def _arrays(folder: Path, file: str, dimensions: Mapping[str, int], optional: str = "") -> dict[str, Array]:
    """Arrays of an .npz file below `folder`, real and finite. Raises ValueError that says what is missing."""
    path = folder / file
    if not file or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path.name} lies outside of the folder" if file else "no file was written")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            found = {name: archive[name] for name in dimensions if name != optional or name in archive}
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except Exception as error:  # numpy, zip and zlib each raise their own
        raise ValueError(f"{path.name} cannot be read ({one_line(error)})") from None
    for name, array in found.items():
        if array.ndim != dimensions[name] or not array.size or array.dtype.kind not in "bcfiu":
            raise ValueError(f"{name} in {path.name} is {array.dtype} {array.shape}")
        found[name] = np.nan_to_num(np.abs(array).astype(np.float32), posinf=0.0)
    return found


# --- pictures ------------------------------------------------------------------------------------------------------


def _figure(files: Files, name: str, png: bytes, alt: str, caption: str, kind: str) -> str:
    """Keep a PNG; its <figure>, with the content as a data: URI."""
    files[name] = png
    width, height = Image.open(io.BytesIO(png)).size
    return (
        f'<figure class="{kind}"><img alt="{_text(alt)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"><figcaption>{caption}</figcaption></figure>'
    )


def _pixels(
    files: Files, name: str, array: Array, top: float, alt: str, caption: str, kind: str = "", colours: str = ""
) -> str:
    """<figure> of a float array (y, x): 0 to `top` from black to white, or through a colour map, in 8 bit."""
    image = Image.fromarray(np.rint(np.clip(array / top, 0, 1) * 255).astype(np.uint8))
    if colours:
        image.putpalette(matplotlib.colormaps[colours](np.arange(256), bytes=True)[:, :3].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return _figure(files, name, buffer.getvalue(), alt, caption, f"pixels {kind}")


def _white(array: Array) -> float:
    return float(np.percentile(array, WHITE_PERCENTILE)) or 1.0


def _cards(width: int, cards: Iterable[str], aspect: float = 0.0) -> str:
    """A grid of pictures `width` pixels wide, shown at a whole multiple of it, or at half of it when it is large."""
    shown = width * max(1, round(256 / width)) if width <= 400 else width // 2
    style = f"--width: {shown}px{f'; --aspect: {aspect:.4f}' if aspect else ''}"
    return f'<div class="cards" style="{style}">{"".join(cards)}</div>'


def _colour_bar(colours: str) -> str:
    stops = matplotlib.colormaps[colours](np.linspace(0, 1, 9), bytes=True)[:, :3]
    gradient = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops)
    return f'<span class="bar" style="background: linear-gradient(to right, {gradient})"></span>'


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


def _scatter(points: Sequence[tuple[str, float, float]]) -> bytes:
    """PNG of quality against time: one labelled marker for each (label, seconds, PSNR)."""
    figure = Figure((4.8, 3.8), dpi=192, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    seconds = np.maximum([point[1] for point in points], 1e-3)
    axes.plot(seconds, [point[2] for point in points], "o", color="#1f4e8c", markersize=6)
    axes.set_xscale("log")
    axes.set_xlim(seconds.min() / 2, seconds.max() * 8)  # room for labels
    axes.margins(y=0.15)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("seconds (logarithmic)")
    axes.set_ylabel("PSNR (dB)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e3e3", linewidth=0.6)
    axes.set_axisbelow(True)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label in a script the font does not have
        figure.draw_without_rendering()  # the place of the axes, for that of the labels
        _place_labels(figure, axes, [(label, x, psnr) for x, (label, _, psnr) in zip(seconds, points, strict=True)])
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _place_labels(figure: Figure, axes: Any, points: Sequence[tuple[str, float, float]]) -> None:
    """Write each label right or left of its marker where it is free, further up or down where it is crowded."""
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    centres = axes.transData.transform([point[1:] for point in points])
    taken = [Bbox.from_extents(x - 9, y - 9, x + 9, y + 9) for x, y in centres]
    sides = [(side * 6, rise) for rise in (0, 9, -9, 18, -18, 27, -27, 36, -36) for side in (1, -1)]
    for index, (label, x, y) in enumerate(points):
        for last, (dx, dy) in [*((False, side) for side in sides), (True, sides[0])]:
            text = axes.annotate(
                textwrap.fill(label[:60], 22), (x, y), (dx, dy),
                textcoords="offset points", ha="left" if dx > 0 else "right", va="center", fontsize=8, linespacing=1.0,
                parse_math=False, arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#888888"} if dy else None,
            )  # fmt: skip
            text.set_in_layout(False)
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and axes.bbox.y0 <= box.y0 <= axes.bbox.y1
            if last or (inside and not any(box.overlaps(b) for place, b in enumerate(taken) if place != index)):
                taken.append(box)
                break
            text.remove()


# --- page ----------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    return escape(_FOLDERS.sub("", str(value)))


def _number(value: float | None, form: str, best: float | None = None, unit: str = "") -> str:
    text = "–" if value is None else f"{value:{form}}{unit}"
    return f"<strong>{text}</strong>" if value is not None and value == best else text


def _meter(value: float | None, form: str, longest: float, best: float | None = None) -> str:
    """A number beside its bar, from 0 to `longest`."""
    part = 100 * max(value or 0.0, 0.0) / longest if longest > 0 else 0.0
    return f'<span class="meter" style="--part: {part:.1f}%">{_number(value, form, best)}</span>'


def _table(caption: str, heads: Iterable[str], rows: Iterable[Sequence[str]], kind: str = "numbers") -> str:
    """A table that scrolls within itself; cells are HTML, each row's first one its header."""
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table class="{kind}">'
        f"<caption>{caption}</caption>{f'<thead><tr>{columns}</tr></thead>' if columns else ''}"
        f"<tbody>{body}</tbody></table></div>"
    )


def _pairs(caption: str, pairs: Mapping[str, Any]) -> str:
    return _table(caption, (), [(_text(name), _text(text)) for name, text in pairs.items()], "texts")


def _notes(title: str, texts: Iterable[Any]) -> str:
    items = "".join(f"<li>{_text(text)}</li>" for text in texts)
    return f'<div class="note" role="note"><strong>{title}</strong><ul>{items}</ul></div>' if items else ""


def _page(title: str, lead: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main><h1>{_text(title)}</h1><p>{_text(lead)}</p>\n{body}\n<footer>Made by genrecon; the pictures lie "
        "as PNG files beside this page. Research software, not for diagnosis.</footer></main></body></html>\n"
    )


# --- benchmark -----------------------------------------------------------------------------------------------------


def _benchmark(path: Path, record: Any, files: Files) -> str:
    results = _record(record, _RESULTS, path, "the file")
    cases = [_record(case, _CASE, path, f"case {place}") for place, case in enumerate(results["cases"], 1)]
    rows = [_record(row, _ROW, path, f"row {place}") for place, row in enumerate(results["rows"], 1)]
    unknown = {row["case"] for row in rows} - {case["case"] for case in cases}
    if unknown or not rows:
        raise _broken(path, f"case '{min(unknown)}' of its rows is not listed" if unknown else "it has no rows")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    means = {method: _mean(method, rows) for method in methods}
    notes = [
        f"{count} of {len(rows)} reconstructions {what}: see their cases"
        for key, what in (("error", "failed"), ("warnings", "have warnings"))
        if (count := sum(bool(row[key]) for row in rows))
    ]
    body = _notes("Note", notes) + _summary([case["case"] for case in cases], methods, rows, means)
    body += _quality_against_time(means, len(cases), files)
    for place, case in enumerate(cases, 1):
        unfolded = " open" if place == 1 or len(cases) <= OPEN_CASES else ""
        own = [row for row in rows if row["case"] == case["case"]]
        body += (
            f"<details{unfolded}><summary><h2>{_text(case['case'])}</h2></summary>"
            f'<div id="case-{place}">{_case(path.parent, case, own, files, f"{place:02d}")}</div></details>\n'
        )
    body += f"<h2>Machine</h2>{_pairs('Where it was measured', results['machine'])}" if results["machine"] else ""
    lead = f"Cases: {len(cases)}; methods: {len(methods)}; genrecon {results['version']}, {results['created']}"
    return _page("Benchmark of reconstructions", lead, body)


def _mean(method: str, rows: list[Record]) -> Record:
    """Means of a method over the cases that it finished (`count` of them), as a row."""
    found = [row for row in rows if row["method"] == method and not row["error"] and row["psnr"] is not None]
    values = {key: [row[key] for row in found if row[key] is not None] for key in ("psnr", "ssim", "seconds")}
    means: Record = {key: float(np.mean(entries)) if entries else None for key, entries in values.items()}
    return {**means, "error": "", "count": len({row["case"] for row in found})}


def _best(rows: Iterable[Record], key: str) -> float | None:
    choose: Any = _NUMBERS[key][2]
    values = [row[key] for row in rows if row[key] is not None and not row["error"]]
    return choose(values) if choose and values else None


def _summary(cases: list[str], methods: list[str], rows: list[Record], means: dict[str, Record]) -> str:
    """Methods by cases: PSNR, SSIM and seconds."""
    columns = {
        f'<a href="#case-{place}">{_text(case)}</a>': {row["method"]: row for row in rows if row["case"] == case}
        for place, case in enumerate(cases, 1)
    }
    if len(cases) > 1:  # means over different cases cannot be compared
        columns["mean"] = {method: row for method, row in means.items() if row["count"] == len(cases)}
    best = {head: [_best(column.values(), key) for key in ("psnr", "ssim")] for head, column in columns.items()}

    def cell(head: str, method: str) -> str:
        row = columns[head].get(method)
        if row is None or row["error"]:
            return '<span class="failed">failed</span>' if row else "–"
        psnr, ssim = _number(row["psnr"], ".2f", best[head][0]), _number(row["ssim"], ".4f", best[head][1])
        return f"{psnr} / {ssim}<br><small>{_number(row['seconds'], '.3g', unit=' s')}</small>"

    lines = [(_text(method), *(cell(head, method) for head in columns)) for method in methods]
    return "<h2>Summary</h2>" + _table("PSNR (dB) / SSIM, and time; the best in bold", ("method", *columns), lines)


def _quality_against_time(means: dict[str, Record], cases: int, files: Files) -> str:
    points = []
    for method, row in means.items():
        if row["seconds"] is not None and row["psnr"] is not None:
            label = method if row["count"] == cases else f"{method} ({row['count']} of {cases} cases)"
            points.append((_FOLDERS.sub("", label), row["seconds"], row["psnr"]))
    if not points:
        return ""
    alt = "PSNR against time. " + "; ".join(f"{name}: {time:.3g} s, {psnr:.2f} dB" for name, time, psnr in points)
    caption = "Means over the cases; better is up and to the left."
    return "<h2>Quality against time</h2>" + _figure(files, "time.png", _scatter(points), alt, caption, "chart")


def _case(folder: Path, case: Record, rows: list[Record], files: Files, number: str) -> str:
    """What one case looks like: its data, each method's images and numbers, the coil maps."""
    about = [case["data"], f"mask {case['mask']}", f"matrix (y, x) {' x '.join(map(str, case['matrix']))}"]
    about += [f"{key} {_number(case[key], '.4g')}" for key in ("slice", "acceleration", "noise", "coils")]
    try:
        given = _arrays(folder, case["file"], {"reference": 2, "mask": 2, "maps": 3})
    except ValueError as error:
        reference = zoom = None
        white, cards, maps = 1.0, [], ""
        legend = _notes("Missing", [f"no reference, sampling mask, error and coil maps: {error}"])
        legend += "<p>Images: black 0, white 1.</p>"
    else:
        reference = given["reference"]
        white, zoom = _white(reference), detailed_region(reference)
        cards = [_reference_card(given, white, zoom, files, number)]
        maps = _coil_maps(given["maps"], files, number)
        rows_shown, columns_shown = (f"{part.start} to {part.stop - 1}" for part in zoom)
        legend = (
            f"<p>Images: black 0, white {white:.3g} ({WHITE_PERCENTILE}th percentile of the reference). Error "
            f"×{ERROR_GAIN}: |image − reference|, 0 {_colour_bar(ERROR_COLOURS)} {white / ERROR_GAIN:.3g}. Zoom: the "
            f"most detailed region, rows {rows_shown}, columns {columns_shown}.</p>"
        )
    for place, row in enumerate(rows, 1):
        slug = re.sub(r"[^\w.=-]+", "_", _FOLDERS.sub("", row["method"]), flags=re.ASCII)[:60]
        cards.append(_card(folder, row, reference, white, zoom, files, f"{number}_{place:02d}_{slug}"))
    best = {key: _best(rows, key) for key in _NUMBERS}
    longest = {key: max((row[key] or 0.0 for row in rows), default=0.0) for key in _NUMBERS}
    lines = [
        (
            _text(row["method"]),
            *(
                _meter(row[key], form, longest[key], best[key]) if bar else _number(row[key], form, best[key])
                for key, (_, form, _, bar) in _NUMBERS.items()
            ),
        )
        for row in rows
    ]
    table = _table("All numbers; the best in bold", ("method", *(heading for heading, *_ in _NUMBERS.values())), lines)
    width = 256 if reference is None else reference.shape[1]
    return f"<p>{_text(', '.join(filter(None, about)))}</p>{legend}{_cards(width, cards)}{table}{maps}"


def _reference_card(given: dict[str, Array], white: float, zoom: Any, files: Files, number: str) -> str:
    reference, mask = given["reference"], given["mask"] != 0
    frame = np.zeros(reference.shape, bool)
    frame[zoom] = True
    frame[zoom][1:-1, 1:-1] = False
    framed = np.where(frame, white, reference)
    sampled = f"sampling mask, {mask.mean():.1%} sampled (white)"
    return (
        '<article class="card"><h3>reference</h3>'
        + _pixels(files, f"{number}_reference.png", framed, white, "reference", "image, the zoom framed", "image")
        + _pixels(files, f"{number}_mask.png", mask, 1.0, sampled, sampled, "error")
        + _pixels(files, f"{number}_zoom.png", reference[zoom], white, "reference, zoom", "zoom", "zoom")
        + "</article>"
    )


def _card(folder: Path, row: Record, reference: Array | None, white: float, zoom: Any, files: Files, name: str) -> str:
    """A method's image, error, zoom and uncertainty, and what is to be said of them."""
    notes, shown = list(row["warnings"]), ""

    def show(part: str, array: Array, top: float, caption: str, colours: str = "") -> None:
        nonlocal shown
        shown += _pixels(files, f"{name}_{part}.png", array, top, f"{row['method']}, {part}", caption, part, colours)

    try:
        if row["error"]:
            raise ValueError(row["error"])
        found = _arrays(folder, row["file"], {"image": 2, "deviation": 2}, "deviation")
        image = found["image"]
        show("image", image, white, "image")
        if reference is not None and image.shape != reference.shape:
            notes.append(f"the image is {image.shape}, the reference {reference.shape}")
        elif reference is not None:
            show("error", np.abs(image - reference), white / ERROR_GAIN, f"error ×{ERROR_GAIN}", ERROR_COLOURS)
            show("zoom", image[zoom], white, "zoom")
        if "deviation" in found:
            top = _white(found["deviation"])
            caption = f"standard deviation: 0 {_colour_bar(DEVIATION_COLOURS)} {top:.2g}"
            show("deviation", found["deviation"], top, caption, DEVIATION_COLOURS)
    except ValueError as error:
        shown = f'<p class="failed">{"failed" if row["error"] else "no image"}: {_text(error)}</p>'
    numbers = (
        f"PSNR&nbsp;{_number(row['psnr'], '.2f', unit='&nbsp;dB')}, SSIM&nbsp;{_number(row['ssim'], '.4f')}<br>"
        f"in the object {_number(row['psnr_object'], '.2f', unit='&nbsp;dB')}, {_number(row['ssim_object'], '.4f')}<br>"
        f"{_number(row['seconds'], '.3g', unit=' s')}{', ' * bool(row['consistency'])}{_text(row['consistency'])}"
    )
    return (
        f'<article class="card"><h3>{_text(row["method"])}</h3>{shown}'
        f'<div class="numbers">{"" if row["error"] else numbers}{_notes("Warning", notes)}</div></article>'
    )


def _coil_maps(maps: Array, files: Files, number: str) -> str:
    """Their magnitudes, (coil, y, x), in about as many rows as columns."""
    step = math.ceil(max(maps.shape[1:]) / 96)  # they are smooth
    tiles = maps[:, ::step, ::step]
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    sheet = np.zeros((rows * columns, *tiles.shape[1:]), np.float32)
    sheet[: len(tiles)] = tiles
    sheet = sheet.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2).reshape(rows * tiles.shape[1], -1)
    top = float(maps.max()) or 1.0
    caption = f"magnitude of the {len(maps)} coil maps, black 0, white {top:.3g}"
    return _pixels(files, f"{number}_maps.png", sheet, top, caption, caption, "maps")


# --- replay --------------------------------------------------------------------------------------------------------


def _replay(path: Path, record: Any, files: Files) -> str:
    run = _record(record, _REPLAY, path, "the file")
    timings = [_record(timing, _TIMING, path, f"timing {place}") for place, timing in enumerate(run["timings"], 1)]
    texts = [str(text) for text in run["warnings"]]
    images = path.with_name(IMAGES_FILE)
    try:
        with h5py.File(images) as file:
            numbers = sorted(int(name[6:]) for name in file[IMAGES_GROUP] if re.fullmatch(r"image_\d+", name))
            counts = [len(file[IMAGES_GROUP][f"image_{number}"]["header"]) for number in numbers]
        series = [_Series(path.parent, number, count) for number, count in zip(numbers, counts, strict=True) if count]
    except Exception as error:  # HDF5, ISMRMRD and XML each raise their own
        raise _broken(images, f"cannot be read ({one_line(error)})") from None
    if not series:
        raise _broken(images, "holds no image")
    texts += [text for entry in series for text in entry.warnings]
    body = _notes("Warnings", dict.fromkeys(texts))
    whites = {entry.number: entry.white for entry in series}
    body += "".join(entry.html(files, whites.get(entry.number - DEVIATION_SERIES)) for entry in series)
    longest = max((timing["busy"] for timing in timings), default=0.0)
    lines = [
        (
            _text(timing["name"]),
            _meter(timing["busy"], ".2f", longest),
            *(_number(timing[key], ".0f") for key in ("items_in", "items_out")),
        )
        for timing in timings
    ]
    body += "<h2>Time</h2>" + (
        _table("Seconds each gadget worked; they work side by side", ("gadget", "seconds", "items in", "out"), lines)
        if lines
        else "<p>No timings: the chain ran on a server.</p>"
    )
    body += f"<h2>Scan</h2>{_pairs('What the raw file says', run['header'])}" if run["header"] else ""
    lead = (
        f"Chain {Path(run['chain']).name}, {sum(entry.count for entry in series)} images, "
        f"{_number(run['seconds'], '.3g', unit=' s')}, the first one after "
        f"{_number(run['first_image_seconds'], '.3g', unit=' s')}"
    )
    return _page(Path(run["raw"]).name, lead, body)


class _Series:
    """What is shown of a series: at most 36 images, evenly chosen; of volumes, partitions of their middle half."""

    def __init__(self, folder: Path, number: int, count: int) -> None:
        self.number, self.count = number, count
        self.tiles: dict[str, Array] = {}  # float32 (y, x), by what they are called
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
            self.warnings += meta_values(meta, "GenreconWarning")
            scale = float((meta_values(meta, SCALE_RATIO) or ["1"])[0]) or 1.0
            volume = np.nan_to_num(np.abs(image.data[0]).astype(np.float32), posinf=0.0) / scale
            first, middle = len(volume) // 4, len(volume) - 2 * (len(volume) // 4)
            shown = min(max(1, MONTAGE_TILES // len(chosen)), middle)
            for partition in (first + (np.arange(shown) + 0.5) * middle / shown).astype(int).tolist():
                name = f"image {index + 1}" + (f", partition {partition + 1}" if len(volume) > 1 else "")
                self.tiles[name] = volume[partition]
        self.white = _white(np.stack(list(self.tiles.values())))

    def html(self, files: Files, images_white: float | None) -> str:
        """Heading, scale and tiles; uncertainty maps are compared with the white of their images."""
        colours, scale = "", f"black 0, white {self.white:.3g} ({WHITE_PERCENTILE}th percentile of what is shown)"
        if self.method.endswith(DEVIATION):
            colours, scale = DEVIATION_COLOURS, f"uncertainty, 0 {_colour_bar(DEVIATION_COLOURS)} {self.white:.3g}"
            scale += f" ({self.white / images_white:.1%} of the images' white)" if images_white else ""
        size = " x ".join(str(length) for length in reversed(self.matrix) if length > 1)
        count = f"{self.count} image{'s' * (self.count > 1)} of {size}"
        count += f", {len(self.tiles)} pictures shown" if len(self.tiles) != self.count else ""
        start, stem = f"Series {self.number}", f"series_{self.number:03d}"
        tiles = [
            _pixels(files, f"{stem}_{place:02d}.png", tile, self.white, f"{start}, {name}", name, colours=colours)
            for place, (name, tile) in enumerate(self.tiles.items(), 1)
        ]
        return (
            f"<h2>{_text(f'{start}: {self.method}' if self.method else start)}</h2><p>{count}; {scale}.</p>"
            f"<p>{_text(self.settings)}</p>{_cards(self.matrix[-1], tiles, self.aspect)}"
        )


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #5a636e; --line: #d5dae0; --fill: #eef1f4;
  --link: #1f4e8c; --meter: #b9d0ec; --bad: #a40e26; --note: #fff4d6; --edge: #d9a400 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --paper: #14171a; --soft: #a3acb6; --line: #3a4148;
  --fill: #262c32; --link: #8ab8f0; --meter: #2c4a6e; --bad: #ff8a95; --note: #3a3010; --edge: #b98d00 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.45 system-ui, sans-serif;
  overflow-wrap: anywhere }
main { max-width: 1280px; margin: 0 auto; padding: 1rem clamp(.75rem, 2.5vw, 2rem) 2rem }
h1 { font-size: 1.6rem; margin: .4rem 0 } h2 { font-size: 1.2rem; margin: 1.6rem 0 .5rem }
h3 { font-size: .95rem; margin: 0 0 .4rem; line-height: 1.25 }
p { margin: .4rem 0 } a { color: var(--link) } small, figcaption, footer { color: var(--soft); font-size: .8rem }
footer { margin-top: 2rem; border-top: 1px solid var(--line); padding-top: .6rem }
details { border-top: 1px solid var(--line); margin-top: 1.2rem } summary { cursor: pointer; padding: .6rem 0 }
summary h2 { display: inline }
figure { margin: 0 0 .5rem } img { display: block; height: auto; max-width: 100% }
.cards { display: grid; gap: 0 .9rem; margin: .8rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--width), 46%), 1fr)) }
.card { display: grid; grid-template-rows: subgrid; grid-row: span 6; min-width: 0; padding-bottom: 1rem }
.image, .card > .failed { grid-row: 2 } .error { grid-row: 3 } .zoom { grid-row: 4 } .deviation { grid-row: 5 }
.card > .numbers { grid-row: 6; font-size: .85rem }
.pixels img { background: #000; image-rendering: pixelated }
.cards img { width: 100%; max-width: var(--width); aspect-ratio: var(--aspect, auto) }
@media (max-width: 640px) { .pixels:not(.zoom) img { image-rendering: auto } }
.chart img { width: 100%; max-width: 34rem; background: #fff }
.scroll { overflow-x: auto; margin: .6rem 0 }
table { border-collapse: collapse; font-size: .88rem; overflow-wrap: normal }
caption { text-align: left; color: var(--soft); font-size: .8rem; padding-bottom: .3rem }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
td strong { text-decoration: underline; text-underline-offset: .2em }
thead th { background: var(--fill); vertical-align: bottom; min-width: 4.5rem }
table.numbers :is(td, thead th + th) { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
table.numbers thead th + th { white-space: normal }
tbody th { font-weight: 600; max-width: clamp(9rem, 38vw, 18rem); overflow-wrap: break-word }
.texts td { overflow-wrap: anywhere; min-width: 9rem }
table.numbers tbody th { position: sticky; left: 0; background: var(--paper) }
.meter { display: inline-grid; grid-template-columns: clamp(3rem, 12vw, 6rem) 4em; gap: .3rem; align-items: center }
.meter::before { content: ""; height: .9em; width: var(--part); background: var(--meter) }
.bar { display: inline-block; width: 5rem; height: .8em; vertical-align: -.1em; border: 1px solid var(--line) }
.note { background: var(--note); border-left: 4px solid var(--edge); padding: .5rem .8rem; margin: .6rem 0 }
.note ul { margin: .2rem 0 0; padding-left: 1.1rem } .failed { color: var(--bad) }
.card > .failed { font-size: .9rem; margin: 0 }
"""
