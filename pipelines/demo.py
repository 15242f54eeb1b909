"""Chains compared on a simulated scan with known truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gadgets.files import replace_file
from gadgets.images import SCALE_RATIO, meta_of, meta_values
from pipelines.evaluation.benchmark import RESULTS
from pipelines.evaluation.metrics import measures
from pipelines.evaluation.results import npz_bytes, results_of, writing
from pipelines.evaluation.task import processor
from pipelines.replay import ReplayResult, read_images
from pipelines.simulation.arrays import scan_arrays
from pipelines.simulation.scan import Simulation
from priors.api import espirit_maps

CHAINS = ("cg_sense", "l1_wavelet", "svd_wkgm")


def compare(scan: Simulation, replays: Mapping[str, ReplayResult], folder: Path) -> dict[str, Any]:
    """Compare replays of a simulated scan with its truth.

    Parameters
    ----------
    scan : of one repetition, see `scan_arrays`
    replays : of its raw file, by the name of the chain
    folder : gets results.json and the images, for `genrecon report`

    Returns
    -------
    The content of results.json: a case a slice, PSNR and SSIM of images divided by the truth's maximum.

    Raises
    ------
    ReconError
        The folder cannot be written to.
    """
    kspace, mask, truth = scan_arrays(scan)
    settings = scan.settings
    cases, rows = [], []
    images = {name: _images(replay, truth) for name, replay in replays.items()}
    with writing(folder):
        for name in ("cases", "images"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for number, reference in enumerate(truth):
            case = {
                "case": f"slice {number + 1}",
                "data": settings.series_description,
                "slice": number,
                "mask": f"{settings.sampling}, R = {settings.acceleration:g}",
                "acceleration": mask.size / float(mask.sum()),
                "noise": settings.noise_level,
                "matrix": list(mask.shape),
                "coils": settings.coils,
                "file": f"cases/{number + 1}.npz",
            }
            cases.append(case)
            maps = espirit_maps(kspace[number], mask, sets=1)[0]
            top = truth.max()
            replace_file(
                folder / str(case["file"]), npz_bytes({"reference": reference / top, "mask": mask, "maps": maps})
            )
            for name, replay in replays.items():
                image = images[name][number] / top
                file = f"images/{number + 1}_{name}.npz"
                replace_file(folder / file, npz_bytes({"image": image}))
                row = {"case": case["case"], "method": name, **measures(image, reference / top), "file": file}
                row |= {"seconds": replay.seconds / len(truth), "warnings": replay.warnings, "error": ""}
                rows.append(row)
        machine = {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        results = results_of(cases, rows, machine, "Demo: three slices of a brain, and the truth")
        replace_file(folder / RESULTS, json.dumps(results, indent=1).encode())
    return results


def _images(replay: ReplayResult, truth: np.ndarray) -> np.ndarray:
    """Images of a replay, float32 (slice, y, x), in the unit of the truth."""
    images = np.zeros_like(truth)
    for image in read_images(replay.folder, series=1):
        scale = float((meta_values(meta_of(image.attribute_string), SCALE_RATIO) or ["1"])[0])
        images[image.slice] = image.data[0, 0] / scale
    return images
