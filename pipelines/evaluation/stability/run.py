"""Run the stability suite, and go on where an earlier run ended."""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gadgets.files import replace_file
from gadgets.stream import ReconError, one_line
from pipelines.evaluation.arrays import ArrayReconstruction
from pipelines.evaluation.benchmark import Progress
from pipelines.evaluation.cases import Array, Case
from pipelines.evaluation.entries import Entry
from pipelines.evaluation.results import case_row, npz_bytes, task_key, writing
from pipelines.evaluation.stability.output import case_figure, csv_text, figure_name, read_arrays
from pipelines.evaluation.stability.parts import (
    CONTRASTS,
    PARTS,
    Part,
    acceleration_part,
    detail_part,
    more_samples_part,
    perturbation_part,
    shown_contrast,
)

RESULTS = "stability.json"


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
    """Measure how stable methods are; an earlier run in the folder is continued.

    Parameters
    ----------
    cases, entries : every method runs on every case; coil maps are estimated from the samples of each run
    folder : stability.json, stability.csv and stability/ (finished parts, and a figure of each case) go there
    contrasts : see `detail_part`
    steps : see `perturbation_part`
    threads : of torch; 0: one a core
    progress : called after every part

    Returns
    -------
    What stability.json holds: version, created, cases and rows, one a case, method and part (detail, perturbation,
    acceleration, more_samples). A row has what the function of its part returns, warnings, file (arrays
    of details) and error, which is empty unless the method failed.

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
                    replace_file(folder / figure_name(case), case_figure(case, shown_contrast(contrasts), pictures))
    finally:
        torch.set_num_threads(before)
    results = {
        "version": metadata.version("gadgetron-genrecon"),
        "created": datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds"),
        "cases": [case_row(case) | {"file": figure_name(case)} for case in cases],
        "rows": rows,
    }
    with writing(folder):
        replace_file(folder / "stability.csv", csv_text(rows).encode())
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
            read_arrays(folder / row["file"])
    except Exception:  # there are many ways to be broken
        return None
    return row
