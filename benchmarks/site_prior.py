"""What a prior that a site trains on 20 slices in ten minutes is worth: `python -m benchmarks.site_prior`.

Twenty of the T2 training heads stand for a site's scans, heads of other volunteers for its next patients, with
simulated coils and noise. Methods: SigPy's L1-wavelet, tuned on the truth; svd_wkgm with the included weights, with
weights trained on the 20 slices alone, and with the included weights trained further on them (`--init`).
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.train_t2_heads import LEARNING_RATE, heads, prepared, run, seconds_a_step
from benchmarks.wkgm import Scan, ours, simulated, tuned_sigpy
from pipelines.train import TrainingJob, recipe_of
from priors.learning.checkpoints import shipped_checkpoint
from priors.learning.recipe import with_settings
from priors.registry import load_prior

SLICES, PATIENTS = 20, 4
COILS, NOISE = 8, 0.004
MASKS = ("poisson_4", "poisson_10", "random2D_4")
FURTHER = {"settings.learning_rate": "0.0002"}  # of weights that are trained further
INCLUDED, ALONE, FURTHER_TRAINED = "included weights", "20 slices alone", "included weights, then 20 slices"
console = Console(width=150)


def job_of(data: Path, out: Path, steps: int, initial: Path | None) -> TrainingJob:
    """Training on the site's slices."""
    settings = {"settings.steps": str(steps), "denoise": "false"} | (FURTHER if initial else LEARNING_RATE)
    return TrainingJob(
        kind="wkgm",
        data=(data,),
        out=out,
        options=with_settings(recipe_of("wkgm").options(), settings),
        initial=initial,
        description="of 20 T2 heads (SIAT)",
    )


def trained(seconds: float, data: Path, folder: Path, initial: Path | None) -> Path:
    """Weights after a time of training; those that are there already stay."""
    out = folder / ("further.safetensors" if initial else "alone.safetensors")
    if not out.exists():
        pace = seconds_a_step(lambda where, steps: job_of(data, where / "pilot.safetensors", steps, initial))
        run(out.stem, job_of(data, out, int(seconds / pace), initial))
    return out


def scans(data: Path, images: np.ndarray) -> dict[str, list[Scan]]:
    """Scans of the patients by mask."""
    masks = np.load(data / "masks.npz")
    found = {}
    for name in MASKS:
        mask = torch.from_numpy(masks[name])
        shape = (mask.shape[0], mask.shape[1])
        found[name] = [Scan(name, simulated(torch.from_numpy(one), COILS, shape), mask, NOISE) for one in images]
    return found


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the training data")
    parser.add_argument("--out", type=Path, default=Path("site_prior"), help="folder of slices and weights")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each training")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    everyone = heads(arguments.data)
    own = np.linspace(0, len(everyone) * 3 // 4, SLICES).astype(int)
    slices = prepared(arguments.out / "slices.npy", lambda: everyone[own])
    weights = {INCLUDED: shipped_checkpoint("wkgm")}
    weights[ALONE] = trained(60 * arguments.minutes, slices, arguments.out, None)
    weights[FURTHER_TRAINED] = trained(60 * arguments.minutes, slices, arguments.out, weights[INCLUDED])
    table = Table(
        title=f"{PATIENTS} heads of other volunteers, {COILS} coils, noise {NOISE}: PSNR inside the object (dB)"
    )
    for heading in ("mask", "SigPy L1-wavelet, tuned", *weights):
        table.add_column(heading)
    for name, of_mask in scans(arguments.data, everyone[-2 * PATIENTS :: 2]).items():
        cells = [np.mean([scan.score(tuned_sigpy(scan)[1])[2] for scan in of_mask])]
        for path in weights.values():
            prior, _ = load_prior(path, "svd_wkgm")
            cells.append(np.mean([scan.score(ours(scan, prior, True)[0])[2] for scan in of_mask]))
        table.add_row(name, *(f"{cell:.2f}" for cell in cells))
    console.print(table)


if __name__ == "__main__":
    main()
