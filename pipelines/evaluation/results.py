"""Files of a benchmark or stability run: rows of finished tasks, tables, arrays."""

from __future__ import annotations

import contextlib
import csv
import datetime
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from gadgets.files import replace_file
from gadgets.stream import ReconError
from pipelines.evaluation.arrays import ArrayReconstruction
from pipelines.evaluation.cases import Array, Case
from pipelines.evaluation.entries import Entry
from pipelines.evaluation.metrics import METRICS, OBJECT_METRICS


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise ReconError for an OSError of the block, which writes below a folder."""
    try:
        yield
    except OSError as error:
        raise ReconError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); free space or choose another "
            "folder with --out"
        ) from None


def task_key(case: Case, entry: Entry, *settings: Any) -> str:
    """Hash of all that a result depends on: version, case, method, weights. Raises ReconError for missing weights."""
    try:
        method = entry.identity()
    except OSError as error:
        raise ReconError(f"{error.filename}: cannot be read ({error.strerror}); give the weights' file") from None
    text = repr((metadata.version("gadgetron-genrecon"), case.name, case.identity, method, *settings))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def case_row(case: Case) -> dict[str, Any]:
    """What the results say of a case."""
    return {
        "case": case.name,
        "data": case.data,
        "slice": case.slice,
        "mask": case.mask_name,
        "acceleration": float(case.mask.size / case.mask.sum()),
        "noise": case.noise,
        "matrix": list(case.mask.shape),
        "coils": case.kspace.shape[0],
        "file": f"cases/{case.name}.npz",
    }


def save_case(folder: Path, case: Case) -> None:
    """Write reference, mask and coil maps of a case for the report, unless they are there."""
    path = folder / "cases" / f"{case.name}.npz"
    if path.exists():
        return
    item = ArrayReconstruction({"method": "cg_sense"}).with_maps(case.measured())
    maps = item.bits[0].coil_maps[:, :, 0, :, 0, 0, 0].transpose(2, 1, 0)
    replace_file(path, npz_bytes({"reference": case.reference, "mask": case.mask, "maps": maps.astype(np.complex64)}))


def read_row(folder: Path, key: str) -> dict[str, Any] | None:
    """The row of a finished task; None for one that failed or whose image is missing, which is run again."""
    try:
        row = json.loads((folder / "rows" / f"{key}.json").read_text())
    except (OSError, ValueError):
        return None
    done = isinstance(row, dict) and not row.get("error") and (folder / str(row.get("file"))).is_file()
    return row if done else None


def results_of(
    cases: list[dict[str, Any]], rows: list[dict[str, Any]], machine: dict[str, Any], title: str = ""
) -> dict[str, Any]:
    """The content of results.json, which `genrecon report` shows."""
    return {
        "title": title,
        "version": metadata.version("gadgetron-genrecon"),
        "created": datetime.datetime.now(tz=datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "cases": cases,
        "rows": rows,
    }


def results_csv(results: Mapping[str, Any]) -> str:
    """The rows of a benchmark as CSV."""
    cases = {case["case"]: case for case in results["cases"]}
    columns = ["data", "slice", "mask", "acceleration", "noise", "method", *METRICS, *OBJECT_METRICS]
    columns += ["seconds", "memory_mb", "evaluations", "consistency", "processor", "threads", "warnings", "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    for row in results["rows"]:
        writer.writerow({**cases[row["case"]], **row, "warnings": "; ".join(row["warnings"])})
    return text.getvalue()


def npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    """Arrays as the content of an .npz file."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()
