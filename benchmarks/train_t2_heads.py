"""Training of the systems that `benchmarks.t2_heads` compares, on the public T2 heads and, where it helps, photographs.

python -m benchmarks.train_t2_heads hggdp                  # the denoiser of the modern variants: image.safetensors
python -m benchmarks.train_t2_heads hggdp:published ebm vae
python -m benchmarks.train_t2_heads --list

A run that was stopped goes on where it was; a log line every half minute.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.train import TrainingJob, recipe_of, train
from priors.learning.checkpoints import shipped_checkpoint
from priors.learning.recipe import with_settings
from priors.registry import generative_method

HOLD_OUT = 8
LICENCE = (
    "MIT for the weights; they were made from public research data without a licence file (T2 heads of the group's "
    "repositories)"
)
LOG_S = 30.0
log = logging.getLogger("genrecon")


@dataclass(frozen=True)
class Plan:
    """How a kind is trained: optimiser steps of an hour at most on two cores, and whether photographs are added."""

    steps: int
    photographs: bool = False


PLANS = {
    "hggdp": Plan(9000, photographs=True),
    "hggdp:published": Plan(6000),
    "daep:published": Plan(6000),
    "edaep:published": Plan(4000),
    "dmsp:published": Plan(6000),
    "medmsp:published": Plan(3000),
    "wdaep:published": Plan(4000),
    "ebm": Plan(4000, photographs=True),
    "ebm:published": Plan(1000),
    "vae": Plan(8000),
    "vae:published": Plan(8000),
    "gan": Plan(8000),
    "pixelcnn": Plan(4000),
    "glow": Plan(4000),
    "glow:published": Plan(4000),
}


def heads(data: Path) -> np.ndarray:
    """T2 heads, complex64 (slice, y, x); some orientations and volunteers last, which are held out."""
    parts = np.load(data / "siat_t2_head.npy").astype(np.float32)
    return (parts[..., 0] + 1j * parts[..., 1]).astype(np.complex64)


def photographs(data: Path) -> np.ndarray:
    """Photographs at half their size, complex64 (slice, y, x); their phase is that of the training's variation."""
    pictures = np.load(data / "photographs.npy").astype(np.float32) / 255
    count, height, width = pictures.shape
    return pictures.reshape(count, height // 2, 2, width // 2, 2).mean((2, 4)).astype(np.complex64)


def run(kind: str, data: Path, out: Path, cache: Path, steps: int) -> None:
    """Train one kind and write its weights."""
    plan = PLANS[kind]
    cache.mkdir(parents=True, exist_ok=True)
    files = []
    makers = ([("photographs", photographs)] if plan.photographs else []) + [("heads", heads)]
    for name, make in makers:
        path = cache / f"{name}.npy"
        if not path.exists():
            np.save(path, make(data))
        files.append(path)
    options = with_settings(recipe_of(kind).options(), {"settings.steps": str(steps or plan.steps)})
    job = TrainingJob(
        kind=kind,
        data=tuple(files),
        out=out / f"{generative_method(kind).weights}.safetensors",
        options=options,
        hold_out=HOLD_OUT,
        description="public T2 heads (SIAT)" + (" and photographs (CC0)" if plan.photographs else ""),
        licence=LICENCE,
    )
    began = said = time.monotonic()

    def progress(stage: str, done: int, all_: int, loss: float) -> None:
        nonlocal said
        if time.monotonic() - said > LOG_S:
            said = time.monotonic()
            log.info("%s: %s, step %d of %d, loss %.4f, %.0f s", kind, stage, done, all_, loss, said - began)

    card = train(job, progress)
    log.info("%s: %.0f s; %s", kind, time.monotonic() - began, card.quality)


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="what to train; all if none is named")
    parser.add_argument("--list", action="store_true", help="list the kinds, and end")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the training data")
    parser.add_argument("--out", type=Path, default=shipped_checkpoint("").parent, help="folder of the weights")
    parser.add_argument("--cache", type=Path, default=Path("training_data"), help="folder of the prepared arrays")
    parser.add_argument("--steps", type=int, default=0, help="optimiser steps instead of the planned ones")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if unknown := set(arguments.kinds) - set(PLANS):
        parser.error(f"unknown kinds {', '.join(sorted(unknown))}; --list names them")
    for kind in arguments.kinds or PLANS:
        if arguments.list:
            print(kind, PLANS[kind].steps)
        else:
            run(kind, arguments.data, arguments.out, arguments.cache, arguments.steps)


if __name__ == "__main__":
    main()
