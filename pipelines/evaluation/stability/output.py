"""What a stability run leaves for people: a figure a case, a CSV table, tables of the terminal."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from pipelines.evaluation.cases import Array, Case
from pipelines.evaluation.stability.details import detail_changes, place_details
from pipelines.evaluation.stability.parts import ALLOWED_DROP, PERTURBATION


def read_arrays(path: Path) -> dict[str, Array]:
    """Arrays of a row: image and change, float32 (y, x)."""
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        return {name: file[name] for name in ("image", "change")}


def figure_name(case: Case) -> str:
    """File of a case's figure below the output folder."""
    return f"stability/{case.name}.png"


def case_figure(case: Case, contrast: float, pictures: Mapping[str, Path]) -> bytes:
    """PNG: the truth and the images with the details, above the differences to those without."""
    changed = detail_changes(case, place_details(case.reference), contrast)
    columns = {"truth": {"image": changed.reference, "change": changed.reference - case.reference}}
    columns |= {label: read_arrays(path) for label, path in pictures.items()}
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


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for every value of every row."""
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
