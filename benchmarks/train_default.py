"""Training of the included weights `wkgm`, from magnitude images and photographs whose licences allow it to ship them.

python -m benchmarks.train_default                 # weights, card and loss curve into priors/checkpoints
python -m benchmarks.train_default --out /tmp/new  # or elsewhere
python -m benchmarks.train_default --init wkgm_contrasts --steps 5000   # going on from given weights

The magnitudes lose their noise first (Noisier2Noise); phases are synthesised in training. A run that was stopped goes
on where it was; a log line every half minute.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

import numpy as np
import torch

from benchmarks.train_t2_heads import LEARNING_RATE, log_lines, photographs, prepared, run
from pipelines.train import TrainingJob, recipe_of
from priors.learning.checkpoints import shipped_checkpoint, weights_file
from priors.learning.networks import Architecture
from priors.learning.recipe import with_settings
from priors.learning.self_denoising import self_denoised

DENOISING_STEPS = 1500
GOING_ON = {"learning_rate": "0.0005", "settings.decay": "0.4"}  # of a run with --init
PHOTOGRAPHS = 2  # copies of each: 296 of 885 images
DESCRIPTION = (
    "589 magnitude images of heads without their noise (T1, T2 and FLAIR of open_ms_data, M. Lesjak et al., CC-BY; "
    "sagittal T1, MIT; axial T1 of datalad's example-dicom-structural, PDDL), phases synthesised, and 148 photographs "
    "(CC0 or public domain) at half their size"
)


def magnitudes(data: Path, state: Path) -> np.ndarray:
    """Magnitude images without their noise, complex64 (slice, y, x); a file keeps the state of their denoising."""
    stored = np.load(data / "mr_magnitude.npy").astype(np.float32)
    images = torch.from_numpy(stored / stored.max((1, 2), keepdims=True)).to(torch.complex64)
    progress = log_lines("magnitudes")
    clean = self_denoised(
        images,
        steps=DENOISING_STEPS,
        architecture=Architecture(shuffle=2),
        state_path=state,
        progress=lambda step, loss: progress("learning their noise", step, DENOISING_STEPS, loss),
        cleaned=lambda done: progress("taking it away", done, len(images), math.nan),
    )
    return clean.real.clamp_min(0).to(torch.complex64).numpy()


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the training data")
    parser.add_argument("--out", type=Path, default=shipped_checkpoint("").parent, help="folder of the weights")
    parser.add_argument("--cache", type=Path, default=Path("training_data"), help="folder of the prepared arrays")
    parser.add_argument("--steps", type=int, default=5000, help="optimiser steps")
    parser.add_argument("--init", help="weights to go on from: a file, or a name of included weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    data, cache = arguments.data, arguments.cache
    cache.mkdir(parents=True, exist_ok=True)
    settings = LEARNING_RATE | {"denoise": "false", "settings.steps": str(arguments.steps)}
    if arguments.init:
        settings |= GOING_ON
    job = TrainingJob(
        kind="wkgm",
        data=(prepared(cache / "magnitudes.npy", lambda: magnitudes(data, cache / "denoising.safetensors")),),
        auxiliary=(prepared(cache / "photographs.npy", lambda: photographs(data)),) * PHOTOGRAPHS,
        out=arguments.out / "wkgm.safetensors",
        options=with_settings(recipe_of("wkgm").options(), settings),
        hold_out=8,
        description=DESCRIPTION,
        licence="MIT",
        device=arguments.device,
        initial=weights_file(arguments.init) if arguments.init else None,
    )
    run("wkgm", job)


if __name__ == "__main__":
    main()
