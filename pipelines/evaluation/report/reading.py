"""The files that a report reads, checked field by field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gadgets.stream import ReconError, one_line

RESULTS_FILE = "results.json"
NUMBERS = {  # heading, format, which is best, whether a bar is drawn
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
# Fields of JSON objects by kind; one that is missing or null is empty, or None where it is a number.
RESULTS = {str: "title version created", dict: "machine", list: "cases rows"}
CASE = {str: "case data mask file", float: "slice acceleration noise coils", list: "matrix"}
ROW = {str: "case method consistency error file", float: " ".join(NUMBERS), list: "warnings"}
REPLAY = {str: "raw chain", float: "seconds first_image_seconds", list: "timings warnings", dict: "header"}
TIMING = {str: "name", float: "busy items_in items_out"}
_REQUIRED = {"cases", "rows", "case", "method", "raw", "name", "busy"}

Array = np.ndarray[Any, Any]
Record = dict[str, Any]


def broken(path: Path, what: str) -> ReconError:
    """The error for a file of a benchmark or replay that cannot be used."""
    command = "benchmark" if path.name == RESULTS_FILE else "replay"
    return ReconError(f"{path}: {what}; run `genrecon {command}` into its folder again")


def read_json(path: Path) -> Any:
    """Content of a JSON file. Raises ReconError when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise broken(path, f"cannot be read as JSON ({one_line(error)})") from None


def checked_record(value: Any, fields: Mapping[Any, str], path: Path, what: str) -> Record:
    """The fields of a JSON object. Raises ReconError for one that is missing or of another kind."""
    if not isinstance(value, dict):
        raise broken(path, f"{what} is not an object")
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
            raise broken(path, f"{name} of {what} is {'missing' if entry is None else repr(entry)[:60]}")
    return found


def read_arrays(folder: Path, file: str, dimensions: Mapping[str, int], optional: str = "") -> dict[str, Array]:
    """Magnitudes of arrays of an .npz file below `folder`, float32 and finite.

    Parameters
    ----------
    dimensions : number of axes by name of the array
    optional : name of an array that may be missing

    Raises
    ------
    ValueError
        The file or an array is missing or broken, or lies elsewhere.
    """
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
