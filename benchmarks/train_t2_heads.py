"""Training of the systems that `benchmarks.t2_heads` compares, on the public T2 heads and, where it helps, photographs.

python -m benchmarks.train_t2_heads hggdp                  # the denoiser of the modern variants: image.safetensors
python -m benchmarks.train_t2_heads hggdp:published ebm vae
python -m benchmarks.train_t2_heads --budget 840           # all of them in 14 minutes, for a GPU
python -m benchmarks.train_t2_heads --list

A run that was stopped goes on where it was; a log line every half minute. With --budget the steps of each follow from
its pace on this machine; the plan, training_plan.json, lies with the weights, and the same call goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gadgets.errors import ReconError, one_line
from gadgets.files import replace_file
from pipelines.train import TrainingJob, recipe_of, train
from priors.learning.checkpoints import shipped_checkpoint
from priors.learning.recipe import Progress, stage_text, with_settings
from priors.registry import RECONSTRUCTIONS, generative_method

HOLD_OUT = 8
LICENCE = (
    "MIT for the weights; they were made from public research data without a licence file (T2 heads of the group's "
    "repositories)"
)
LOG_S = 30.0
PLAN_FILE = "training_plan.json"
PILOT_STEPS = 30  # that the pace is measured with, less the first ten
MOST_STEPS = 4  # times those of an hour on two cores
LEAST_STEPS = 100  # below these a kind is left out: its time is too short
RESERVE = 0.9  # of the time is planned for steps: reading the data and measuring the quality take the rest
log = logging.getLogger("genrecon")


@dataclass(frozen=True)
class Plan:
    """How a kind is trained.

    Parameters
    ----------
    steps : optimiser steps of an hour at most on two cores
    photographs : whether photographs are added
    share : of a time budget, relative to the others
    weights : name of the weights; that of the method if empty
    settings : of the kind, by name
    """

    steps: int
    photographs: bool = False
    share: float = 1.0
    weights: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


# For the 4-coil brain; a network of two scales, a fifth of the time of the default one a step.
_UNROLLED = {
    "mask": "{data}/masks.npz:poisson_4", "coils": "4", "denoiser.network": "mwcnn", "denoiser.layers": "3",
    "denoiser.width": "32", "turns": "5", "cg_iterations": "6",
}  # fmt: skip

# A network at half the resolution, for an energy whose training evaluates it many times a step.
FAST = {"base_channels": "64", "multipliers": "1,1,2,4", "shuffle": "2", "learning_rate": "0.0007"}

LEARNING_RATE = {"learning_rate": "0.0006"}  # of the default network and crops
PATCHES = {"settings.crop": "40", "settings.batch": "8"}  # 40 x 40 as DAE and DnCNN were published, fewer at once

PLANS = {
    "hggdp": Plan(3000, photographs=True, share=3.0, settings=LEARNING_RATE),
    "hggdp:published": Plan(6000, settings={"settings.batch": "4"}),
    "daep:published": Plan(6000, settings=PATCHES),
    "edaep:published": Plan(4000, settings=PATCHES),
    "dmsp:published": Plan(6000, settings=PATCHES),
    "medmsp:published": Plan(3000, settings=PATCHES),
    "wdaep:published": Plan(4000, settings=PATCHES),
    "ebm": Plan(4000, photographs=True, share=2.0, settings=FAST | {"settings.crop": "64"}),
    "ebm:published": Plan(1000),
    "vae": Plan(8000, settings={"settings.crop": "64"}),
    "vae:published": Plan(8000),
    "gan": Plan(8000),
    "pixelcnn": Plan(4000, settings={"settings.crop": "40"}),
    "glow": Plan(4000),
    "glow:published": Plan(4000),
    "unrolled": Plan(4000, share=2.0, weights="unrolled", settings=_UNROLLED),
    "unrolled:ssdu": Plan(4000, share=2.0, weights="unrolled_ssdu", settings={**_UNROLLED, "supervision": "none"}),
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


def prepared(path: Path, make: Callable[[], np.ndarray]) -> Path:
    """The path of an array (.npy), which is made where it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, make())
    return path


def job_of(name: str, data: Path, out: Path, cache: Path, steps: int, device: str = "auto") -> TrainingJob:
    """Training of a kind of `PLANS`; its data are prepared in the cache.

    Parameters
    ----------
    data : folder of the evaluation data
    out : folder of the weights
    steps : optimiser steps
    """
    plan = PLANS[name]
    kind = next((kind for kind in RECONSTRUCTIONS if name.partition(":")[0] == kind), name)
    settings = {key: text.replace("{data}", str(data)) for key, text in plan.settings.items()}
    return TrainingJob(
        kind=kind,
        data=(prepared(cache / "heads.npy", lambda: heads(data)),),
        auxiliary=(prepared(cache / "photographs.npy", lambda: photographs(data)),) if plan.photographs else (),
        out=out / f"{plan.weights or generative_method(kind).weights}.safetensors",
        options=with_settings(recipe_of(kind).options(), settings | {"settings.steps": str(steps)}),
        hold_out=HOLD_OUT,
        description="public T2 heads (SIAT)" + (" and photographs (CC0)" if plan.photographs else ""),
        licence=LICENCE,
        device=device,
    )


def log_lines(name: str) -> Progress:
    """Progress of a training as a line in the log every half minute."""
    began = said = time.monotonic()

    def progress(stage: str, done: int, all_: int, loss: float) -> None:
        nonlocal said
        if time.monotonic() - said > LOG_S:
            said = time.monotonic()
            log.info("%s: %s, %d of %d, %.0f s", name, stage_text(stage, loss), done, all_, said - began)

    return progress


def run(name: str, job: TrainingJob) -> None:
    """Train one kind and write its weights."""
    began = time.monotonic()
    card = train(job, log_lines(name))
    log.info("%s: %d steps, %.0f s; %s", name, card.steps, time.monotonic() - began, card.quality)


class _Enough(Exception):
    """The pace is known."""


def seconds_a_step(make_job: Callable[[Path, int], TrainingJob]) -> float:
    """Seconds of an optimiser step, measured in a run that is thrown away.

    Parameters
    ----------
    make_job : makes the job of a folder of weights and a number of steps
    """
    times: list[float] = []

    def progress(_stage: str, _done: int, _all: int, _loss: float) -> None:
        times.append(time.monotonic())
        if 10 * len(times) >= PILOT_STEPS:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        train(make_job(Path(folder), 10 * PILOT_STEPS), progress)
    return (times[-1] - times[0]) / (10 * (len(times) - 1))


def within_budget(
    names: Sequence[str],
    budget: float,
    out: Path,
    make_job: Callable[[str, Path, int], TrainingJob],
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Train kinds one after another within a time, and go on where an earlier call was stopped.

    The time left is shared over the kinds left. A kind that fails costs the others nothing.

    Parameters
    ----------
    budget : seconds
    out : folder of the weights and of the plan
    make_job : makes the job of a kind, a folder of weights and a number of steps

    Returns
    -------
    Names of the kinds without weights at the end.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / PLAN_FILE
    plan: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    end = clock() + budget
    missing = []
    done = {name for name in names if plan.get(name, {}).get("done") and make_job(name, out, 1).out.exists()}
    todo = [name for name in names if name not in done]
    log.info("%d of %d kinds were done before", len(done), len(names))
    for index, name in enumerate(todo):
        known = plan.setdefault(name, {})
        began = clock()
        seconds = (end - began) * PLANS[name].share / sum(PLANS[other].share for other in todo[index:])
        try:
            if "steps" not in known:
                pace = seconds_a_step(lambda folder, steps, name=name: make_job(name, folder, steps))
                steps = int(RESERVE * (seconds - (clock() - began)) / pace)
                if steps < LEAST_STEPS:
                    log.warning("%s: left out: %d steps in its %.0f s are too few", name, max(steps, 0), seconds)
                    missing.append(name)
                    continue
                known["steps"] = min(steps, MOST_STEPS * PLANS[name].steps)
                replace_file(file, json.dumps(plan, indent=1).encode())
            run(name, make_job(name, out, known["steps"]))
            known["done"] = True
            replace_file(file, json.dumps(plan, indent=1).encode())
        except ReconError as error:
            log.error("%s: %s", name, one_line(error))
            missing.append(name)
    return missing


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="what to train; all if none is named")
    parser.add_argument("--list", action="store_true", help="list the kinds, and end")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the training data")
    parser.add_argument("--out", type=Path, default=shipped_checkpoint("").parent, help="folder of the weights")
    parser.add_argument("--cache", type=Path, default=Path("training_data"), help="folder of the prepared arrays")
    parser.add_argument("--steps", type=int, default=0, help="optimiser steps instead of the planned ones")
    parser.add_argument("--budget", type=float, default=0.0, help="seconds for all of them together; 0: no limit")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if unknown := set(arguments.kinds) - set(PLANS):
        parser.error(f"unknown kinds {', '.join(sorted(unknown))}; --list names them")
    if arguments.budget and arguments.steps:
        parser.error("--budget chooses the steps; leave --steps out")
    names = arguments.kinds or list(PLANS)

    def make_job(name: str, out: Path, steps: int) -> TrainingJob:
        return job_of(name, arguments.data, out, arguments.cache, steps, arguments.device)

    if arguments.list:
        for name in names:
            print(name, PLANS[name].steps)
    elif arguments.budget:
        missing = within_budget(names, arguments.budget, arguments.out, make_job)
        if missing:
            sys.exit(f"without weights: {', '.join(missing)}; the same call goes on")
    else:
        for name in names:
            run(name, make_job(name, arguments.out, arguments.steps or PLANS[name].steps))


if __name__ == "__main__":
    main()
