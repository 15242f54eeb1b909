"""Stability suite: what methods do with small changes of the object, of the samples and of the sampling mask."""

from __future__ import annotations

import csv
import datetime
import functools
import io
import itertools
import json
import math
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from rich.markup import escape
from rich.table import Table
from scipy.ndimage import gaussian_filter

from gadgets.files import replace_file
from gadgets.stream import ReconError, one_line
from pipelines.evaluation.arrays import ArrayReconstruction
from pipelines.evaluation.benchmark import (
    OBJECT,
    Array,
    Case,
    Entry,
    Progress,
    case_row,
    npz_bytes,
    seen_by_coils,
    task_key,
    writing,
)
from pipelines.simulation.sampling import PATTERNS, Mask, poisson, poisson_disc
from priors.signal.fourier import ifft2c

CONTRASTS = (0.05, 0.1, 0.2, 0.4)  # of the image's maximum
SHOWN = 0.2  # the contrast in the figures
RECOVERED, CORRELATED = 0.5, 0.7  # from here on a change counts as recovered
MARGIN = 2  # pixels around a detail that belong to its neighbourhood
PERTURBATION = 0.01  # norm of the perturbation over that of the samples
SPREAD = 2.0  # pixels
ACCELERATIONS = (2, 4, 6, 8, 12)
OTHER_PATTERNS = (("uniform", 4), ("random_lines", 4))
NESTED = (12, 8, 6, 4, 3, 2)
ALLOWED_DROP = 0.1  # dB
RESULTS = "stability.json"
PARTS = ("detail", "perturbation", "acceleration", "more_samples")

Reconstruct = Callable[[Array], Array]  # measured k-space (coil, y, x) to float32 image (y, x)
Part = Callable[[Reconstruct, Case], dict[str, Any]]  # what goes into the row
Details = dict[str, tuple[Array, tuple[slice, slice]]]


# --- details ---------------------------------------------------------------------------------------------------------


def place_details(reference: Array) -> Details:
    """A line (1 pixel wide, 20 long, oblique by 12 degrees), a disc (radius 2.5 pixels) and a text (8 pixels high).

    Each goes where the image deviates least within the detail's neighbourhood, which lies inside the object as far as
    it can and does not overlap that of another detail; the first such place in reading order.

    Parameters
    ----------
    reference : float32 (y, x), of maximum 1

    Returns
    -------
    By name: float32 (y, x), 0 to 1, of the whole image; rows and columns of the neighbourhood.

    Raises
    ------
    ReconError
        They do not fit into the image.
    """
    placed: Details = {}
    taken = np.zeros(reference.shape, bool)
    shapes = {"text": _text("SEE"), "line": _line(20, math.radians(12)), "disc": _disc(2.5)}  # the largest first
    for name, shape in shapes.items():
        height, width = (n + 2 * MARGIN for n in shape.shape)
        mean, square, inside, overlap = (
            _box_means(image, height, width) for image in (reference, reference**2, reference > OBJECT, taken)
        )
        deviation = np.sqrt(np.maximum(square - mean**2, 0)).round(4)  # so that rounding does not choose the place
        cost = np.where(overlap > 0, np.inf, deviation + 10 * (1 - inside))
        if not np.isfinite(cost).any():
            raise ReconError(
                f"stability: an image of {reference.shape[0]} x {reference.shape[1]} has no room for the details; "
                "take data of 48 x 48 or more"
            )
        row, column = np.unravel_index(int(cost.argmin()), cost.shape)
        box = slice(int(row), int(row) + height), slice(int(column), int(column) + width)
        whole = np.zeros(reference.shape, np.float32)
        whole[box] = np.pad(shape, MARGIN)
        taken[box] = True
        placed[name] = whole, box
    return {name: placed[name] for name in ("line", "disc", "text")}


def _line(length: int, angle: float) -> Array:
    half = math.ceil(length / 2 * math.tan(angle))
    y, x = np.mgrid[-half : half + 1, :length]
    return np.clip(1 - np.abs(y * math.cos(angle) - (x - (length - 1) / 2) * math.sin(angle)), 0, 1)


def _disc(radius: float) -> Array:
    half = math.floor(radius + 0.5)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return np.clip(radius + 0.5 - np.hypot(y, x), 0, 1)


def _text(letters: str) -> Array:
    image = Image.new("L", (20 * len(letters), 40))
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"
    draw.text((5, 5), letters, fill=1, font=ImageFont.load_default())
    return np.asarray(image.crop(image.getbbox()), float)


def _box_means(image: Array, height: int, width: int) -> Array:
    """Means over all boxes of a size, by the place of their upper left corner."""
    sums = np.pad(image.astype(float).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    return (boxes / (height * width)).round(12)


def sensitivities(kspace: Array) -> Array:
    """Coil images over their root-sum-of-squares, complex64 (coil, y, x): they have the phase of the object."""
    coils = ifft2c(torch.from_numpy(kspace)).numpy()
    norm = np.linalg.norm(coils, axis=0)
    return np.divide(coils, norm, out=np.zeros_like(coils), where=norm > 0)


def detail_changes(case: Case, details: Details, contrast: float) -> Case:
    """The case with details added to its object; its reference is brighter there by `contrast`."""
    change = contrast * np.sum([shape for shape, _ in details.values()], axis=0)
    return replace(case, kspace=case.kspace + seen_by_coils(change, sensitivities(case.kspace)))


def recovery(change: Array, truth: Array) -> tuple[float, float]:
    """How much of the true change a change has (least-squares projection, 1: all), and their correlation."""
    if not truth.any():
        return 0.0, 0.0
    fraction = float(np.vdot(truth, change) / np.vdot(truth, truth))
    change, truth = change - change.mean(), truth - truth.mean()
    norms = float(np.linalg.norm(change) * np.linalg.norm(truth))
    return fraction, float(np.vdot(truth, change)) / norms if norms else 0.0


# --- sampling --------------------------------------------------------------------------------------------------------


def _centre(shape: tuple[int, int]) -> int:
    """Samples of the fully sampled centre along an axis: 24, or what takes half of the samples of the sparsest mask."""
    return min(24, max(4, 2 * int(math.sqrt(math.prod(shape) / NESTED[0] / 2) / 2)), *shape)


@functools.lru_cache(maxsize=4)
def other_masks(shape: tuple[int, int]) -> dict[str, Mask]:
    """Masks (y, x) by PATTERN:ACCELERATION that the methods are tried with."""
    wanted = [*(("poisson", acceleration) for acceleration in ACCELERATIONS), *OTHER_PATTERNS]
    return {f"{name}:{factor}": PATTERNS[name](shape, factor, centre=_centre(shape)) for name, factor in wanted}


@functools.lru_cache(maxsize=4)
def nested_masks(shape: tuple[int, int]) -> dict[str, Mask]:
    """Poisson-disc masks (y, x), each the one before with samples added, of the accelerations `NESTED`."""
    mask = poisson(shape, NESTED[0], centre=_centre(shape))
    masks = {f"poisson:{NESTED[0]}": mask}
    random = np.random.default_rng(1)
    for acceleration in NESTED[1:]:
        mask = mask | poisson_disc(~mask, round(mask.size / acceleration) - int(mask.sum()), random)
        masks[f"poisson:{acceleration}"] = mask
    return masks


# --- the parts -------------------------------------------------------------------------------------------------------


def detail_part(reconstruct: Reconstruct, case: Case, contrasts: Sequence[float]) -> dict[str, Any]:
    """Which small changes of the object arrive in the image.

    Line, disc and text are inserted together, apart from each other, and looked at one by one. The change of the image
    is the reconstruction with them less that without. A detail is recovered from the smallest contrast on at which, and
    at all larger ones, at least half of it is there with a correlation of at least 0.7 (see `recovery`).

    Parameters
    ----------
    contrasts : of the details, in units of the image's maximum

    Returns
    -------
    values; smallest (contrast or None, by detail); arrays (image and change, float32 (y, x), of the contrast nearest to
    20 %)
    """
    details = place_details(case.reference)
    without = reconstruct(case.measured())
    result: dict[str, Any] = {"values": [], "smallest": dict.fromkeys(details)}
    for contrast in sorted(contrasts):
        changed = detail_changes(case, details, contrast)
        image = reconstruct(changed.measured())
        change, truth = image - without, changed.reference - case.reference
        for name, (_, box) in details.items():
            part, correlation = recovery(change[box], truth[box])
            value = {"what": name, "contrast": contrast, "recovered": part, "correlation": correlation}
            result["values"].append(value)
            recovered = part >= RECOVERED and correlation >= CORRELATED
            result["smallest"][name] = (result["smallest"][name] or contrast) if recovered else None
        if contrast == _shown(contrasts):
            result["arrays"] = {"image": image, "change": change}
    return result


def _shown(contrasts: Sequence[float]) -> float:
    return min(contrasts, key=lambda contrast: abs(contrast - SHOWN))


def perturbation_part(reconstruct: Reconstruct, case: Case, steps: int) -> dict[str, Any]:
    """How much a method amplifies a small perturbation of the samples: a random one, and the worst that was found.

    With measured samples y and a method A, the amplification of a perturbation e with ‖e‖ = 0.01 ‖y‖ is

        (‖A(y + e) - A(y)‖ / ‖A(y)‖) / (‖e‖ / ‖y‖),

    of magnitude images. The search starts at complex white noise (seed 0) and ascends by e ← e + M F S w d, both terms
    normalised, with d = A(y + e) - A(y), the mask M, the Fourier transform F, the coil sensitivities S of the fully
    sampled data, and w, |d| smoothed over 2 pixels, which gathers e where the method amplifies most.

    Notes
    -----
    The gradient of ‖A(y + e) - A(y)‖ needs the adjoint of A's derivative, but methods are black boxes, some of them not
    differentiable, and each has its coil maps estimated from the same samples. M F S, the adjoint of the plain
    reconstruction, stands in for it, so the steps need not ascend. The best of all is kept; it is a **lower bound** of
    the worst case: a method that looks stable here may be unstable against perturbations that are not found.

    Parameters
    ----------
    steps : of the ascent

    Returns
    -------
    values, random and worst
    """
    measured = case.measured()
    maps = sensitivities(case.kspace)
    image = reconstruct(measured)
    size = PERTURBATION * float(np.linalg.norm(measured))
    random = np.random.default_rng(0).standard_normal((2, *measured.shape))
    direction = _normalised((random[0] + 1j * random[1]) * case.mask)
    values: list[dict[str, Any]] = []
    for step in range(steps + 1):
        change = reconstruct((measured + size * direction).astype(np.complex64)) - image
        amplification = float(np.linalg.norm(change) / max(float(np.linalg.norm(image)), 1e-12)) / PERTURBATION
        values.append({"what": f"step {step}" if step else "random", "amplification": amplification})
        ascent = seen_by_coils(change * gaussian_filter(np.abs(change), SPREAD), maps) * case.mask
        direction = _normalised(direction + _normalised(ascent))
    worst = max(value["amplification"] for value in values)
    return {"values": values, "random": values[0]["amplification"], "worst": worst}


def _normalised(direction: Array) -> Array:
    return direction / max(float(np.linalg.norm(direction)), 1e-12)


def acceleration_part(reconstruct: Reconstruct, case: Case) -> dict[str, Any]:
    """PSNR with other accelerations and patterns than the case's."""
    return {"values": _with_masks(reconstruct, case, other_masks(case.mask.shape))}


def more_samples_part(reconstruct: Reconstruct, case: Case) -> dict[str, Any]:
    """Whether the image is never worse with more samples: PSNR with nested masks.

    Returns
    -------
    values; largest_drop (dB, of a mask against any one that it contains, 0 when there is none); passed (it is at most
    0.1 dB)
    """
    values = _with_masks(reconstruct, case, nested_masks(case.mask.shape))
    best = np.maximum.accumulate([value["psnr"] for value in values])
    drop = max(float(before) - value["psnr"] for before, value in zip(best, values, strict=True))
    return {"values": values, "largest_drop": drop, "passed": drop <= ALLOWED_DROP}


def _with_masks(reconstruct: Reconstruct, case: Case, masks: Mapping[str, Mask]) -> list[dict[str, Any]]:
    values = []
    for name, mask in masks.items():
        error = np.square(reconstruct(replace(case, mask=mask).measured()) - case.reference).mean()
        psnr = -10 * math.log10(max(float(error), 1e-12))
        values.append({"what": name, "acceleration": float(mask.size / mask.sum()), "psnr": psnr})
    return values


# --- the run ---------------------------------------------------------------------------------------------------------


def stability(
    cases: Sequence[Case],
    entries: Sequence[Entry],
    folder: Path,
    *,
    contrasts: Sequence[float] = CONTRASTS,
    steps: int = 4,
    threads: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Try how stable methods are, after Antun et al. (PNAS 117, 2020), and go on where an earlier run ended.

    Parameters
    ----------
    cases, entries : every method is tried on every case; coil maps are estimated anew from whatever was measured
    folder : stability.json, stability.csv and stability/ (what is done, and a figure of each case) go there
    contrasts : see `detail_part`
    steps : see `perturbation_part`
    threads : of torch; 0: as many as there are processors
    progress : told of every part that ends

    Returns
    -------
    What stability.json holds: version, created, cases and rows, one a case, method and part (detail, perturbation,
    acceleration, more_samples). A row has what its part's function says, warnings, file (arrays of details) and error,
    which is empty unless the method failed.

    Raises
    ------
    ReconError
        A contrast or the number of steps is wrong, a method's weights cannot be read, or the folder not written to.
    """
    if not contrasts or not all(0 < contrast <= 1 for contrast in contrasts):
        raise ReconError("stability: contrasts must be above 0 and at most 1, in units of the image's maximum")
    if steps < 1:
        raise ReconError(f"stability: steps is {steps}; give 1 or more")
    parts: dict[str, tuple[Part, Any]] = {
        "detail": (functools.partial(detail_part, contrasts=contrasts), sorted(contrasts)),
        "perturbation": (functools.partial(perturbation_part, steps=steps), steps),
        "acceleration": (acceleration_part, None),
        "more_samples": (more_samples_part, None),
    }
    rows: list[dict[str, Any]] = []
    total = len(cases) * len(entries) * len(PARTS)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or os.cpu_count() or 1)
    try:
        with writing(folder):
            (folder / "stability").mkdir(parents=True, exist_ok=True)
        for case in cases:
            done = len(rows)
            for entry, name in itertools.product(entries, PARTS):
                rows.append(_row(case, entry, name, *parts[name], folder))
                if progress:
                    progress(len(rows), total, f"{case.name}: {entry.label}: {name}")
            pictures = {row["method"]: folder / row["file"] for row in rows[done:] if row["file"]}
            if pictures:
                with writing(folder):
                    replace_file(folder / _figure_name(case), _figure(case, _shown(contrasts), pictures))
    finally:
        torch.set_num_threads(before)
    results = {
        "version": metadata.version("gadgetron-genrecon"),
        "created": datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds"),
        "cases": [case_row(case) | {"file": _figure_name(case)} for case in cases],
        "rows": rows,
    }
    with writing(folder):
        replace_file(folder / "stability.csv", _csv(rows).encode())
        replace_file(folder / RESULTS, json.dumps(results, indent=1).encode())
    return results


def _row(case: Case, entry: Entry, name: str, part: Part, settings: Any, folder: Path) -> dict[str, Any]:
    """The row of one part, saved in the folder or found there; a method that failed leaves its error in it."""
    key = f"stability/{task_key(case, entry, name, settings)}"
    if (found := _read_row(folder, key)) is not None:
        return found
    row: dict[str, Any] = {"case": case.name, "method": entry.label, "part": name}
    row |= {"values": [], "warnings": [], "file": "", "error": ""}
    try:
        reconstruction = ArrayReconstruction(entry.all_properties)

        def reconstruct(measured: Array) -> Array:
            result = reconstruction(reconstruction.with_maps(measured))
            row["warnings"] += [text for text in result.warnings if text not in row["warnings"]]
            return np.abs(result.image).astype(np.float32)

        row |= part(reconstruct, case)
    except ReconError as error:
        row["error"] = one_line(error)
    except Exception as error:  # the others go on
        row["error"] = f"{one_line(error)} (unexpected)"
    with writing(folder):
        if arrays := row.pop("arrays", None):
            row["file"] = f"{key}.npz"
            replace_file(folder / row["file"], npz_bytes(arrays))
        replace_file(folder / f"{key}.json", json.dumps(row).encode())
    return row


def _read_row(folder: Path, key: str) -> dict[str, Any] | None:
    """The row of a part that is done; one that failed, or whose files are broken, is done again."""
    try:
        row = json.loads((folder / f"{key}.json").read_text())
        if not isinstance(row, dict) or row["error"] or not row["values"]:
            return None
        if row["file"]:
            _arrays(folder / row["file"])
    except Exception:  # there are many ways to be broken
        return None
    return row


def _arrays(path: Path) -> dict[str, Array]:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        return {name: file[name] for name in ("image", "change")}


# --- what people see -------------------------------------------------------------------------------------------------


def _figure_name(case: Case) -> str:
    return f"stability/{case.name}.png"


def _figure(case: Case, contrast: float, pictures: Mapping[str, Path]) -> bytes:
    """PNG: the truth and the images with the details, above the differences to those without."""
    changed = detail_changes(case, place_details(case.reference), contrast)
    columns = {"truth": {"image": changed.reference, "change": changed.reference - case.reference}}
    columns |= {label: _arrays(path) for label, path in pictures.items()}
    height, width = case.mask.shape
    figure = Figure((2.4 * len(columns) + 0.8, 4.8 * height / width + 0.8), layout="compressed")
    axes = figure.subplots(2, len(columns), squeeze=False)
    for (label, arrays), (above, below) in zip(columns.items(), axes.T, strict=True):
        above.imshow(arrays["image"], cmap="gray", vmin=0, vmax=1)
        shown = below.imshow(arrays["change"], cmap="RdBu_r", vmin=-contrast, vmax=contrast)
        above.set_title(textwrap.fill(label, 24), fontsize=9, parse_math=False)
    for one in axes.flat:
        one.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel(f"with details of {100 * contrast:g} %", fontsize=9)
    axes[1, 0].set_ylabel("less the image without them", fontsize=9)
    figure.colorbar(shown, ax=list(axes[1]), shrink=0.8)
    figure.suptitle(case.name, fontsize=9, parse_math=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=max(120, width // 2))
    return content.getvalue()


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = ["case", "method", "part", "what", "contrast", "recovered", "correlation", "amplification"]
    columns += ["acceleration", "psnr", "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerows({**row, **value} for value in row["values"] or [{}])
    return text.getvalue()


def tables(results: Mapping[str, Any]) -> list[Table]:
    """What `stability` returns, as one table a part for the terminal; every method is a row, a failure below it."""
    titles = {
        "detail": "details: contrast from which they are recovered (fraction of the strongest that is)",
        "perturbation": f"perturbations of {PERTURBATION:.0%} of the samples: amplification",
        "acceleration": "other masks: PSNR (dB)",
        "more_samples": f"more samples: PSNR (dB), it must not drop by more than {ALLOWED_DROP:g}",
    }
    found = []
    for part, title in titles.items():
        rows = [(row, _cells(row)) for row in results["rows"] if row["part"] == part]
        names = list(dict.fromkeys(name for _, cells in rows for name in cells))
        failed = "\n".join(f"{row['case']}: {row['method']}: {row['error']}" for row, _ in rows if row["error"])
        table = Table("case", "method", title=title, title_justify="left", caption_justify="left")
        table.caption = escape(failed) or None
        for name in names:
            table.add_column(name, justify="right")
        for row, cells in rows:
            table.add_row(escape(row["case"]), escape(row["method"]), *(cells.get(name, "") for name in names))
        found.append(table)
    return found


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Cells of a table by their column."""
    if row["error"]:
        return {}
    if row["part"] == "detail":
        strongest = {value["what"]: value["recovered"] for value in row["values"]}  # the last is the strongest
        smallest = {name: f"{100 * at:g} %" if at else "never" for name, at in row["smallest"].items()}
        return {name: f"{text} ({strongest[name]:.2f})" for name, text in smallest.items()}
    if row["part"] == "perturbation":
        return {"random": f"{row['random']:.2f}", "worst found": f"{row['worst']:.2f}"}
    cells = {value["what"].replace(":", " "): f"{value['psnr']:.2f}" for value in row["values"]}
    if row["part"] == "more_samples":
        cells |= {"largest drop": f"{row['largest_drop']:.2f}", "passed": "yes" if row["passed"] else "no"}
    return cells
