"""`genrecon train`: learn a prior from fully sampled scans."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from gadgets.errors import ReconError, one_line
from pipelines.cli.console import console, progress_bar

train_app = typer.Typer(help="Learn a prior from fully sampled scans.", no_args_is_help=True, rich_markup_mode=None)

# What the trainings of all priors are told.
_Out = Annotated[
    Path, typer.Option("--out", "-o", help="Weights to write; card (.json) and loss curve (.png) beside them.")
]
_DenoisingSteps = Annotated[int, typer.Option(min=10, help="Optimiser steps of that.")]
_Steps = Annotated[int, typer.Option(min=10, help="Optimiser steps.")]
_LearningRate = Annotated[float, typer.Option(help="Learning rate.")]
_Channels = Annotated[int, typer.Option(min=8, help="Channels of the finest level, a multiple of 8.")]
_Multipliers = Annotated[str, typer.Option(help="Channels of every level in these units.")]
_Bf16 = Annotated[bool, typer.Option(help="Convolutions in bfloat16.")]
_Seed = Annotated[int, typer.Option(min=0, help="Seed.")]
_Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
_SaveEvery = Annotated[float, typer.Option(min=1.0, help="Seconds between saved states.")]
_Licence = Annotated[str, typer.Option(help="Of the weights, for the card.")]
_IntendedUse = Annotated[str, typer.Option(help="For the card.")]


@train_app.command("wkgm")
def train_wkgm(
    data: Annotated[
        list[Path],
        typer.Option(
            "--data", help="Fully sampled raw file (.h5) or complex images (.npy; slice, y, x); may be repeated."
        ),
    ],
    out: _Out = Path("prior.safetensors"),
    kspace: Annotated[bool, typer.Option("--kspace", help="Arrays are k-space (slice, coil, y, x).")] = False,
    hold_out: Annotated[int, typer.Option(min=0, help="Images at the end to measure the quality on.")] = 0,
    denoise: Annotated[bool, typer.Option(help="Learn from the images without their noise.")] = True,
    denoising_steps: _DenoisingSteps = 1500,
    steps: _Steps = 8000,
    batch: Annotated[int, typer.Option(min=1, help="Images a step (of each process).")] = 4,
    crop: Annotated[int, typer.Option(min=16, help="Width and height of the crops.")] = 128,
    learning_rate: _LearningRate = 5e-4,
    channels: _Channels = 32,
    multipliers: _Multipliers = "1,2,4,8",
    parameterisation: Annotated[
        str, typer.Option(help="fourier_conjugate, or kspace: the network sees k-space itself, as published.")
    ] = "fourier_conjugate",
    copies: Annotated[int, typer.Option(min=1, help="Channels of the high-dimensional embedding; published: 3.")] = 1,
    phase_width: Annotated[
        int, typer.Option(min=0, help="K-space window whose low-resolution phase is taken away; 0: none.")
    ] = 24,
    bf16: _Bf16 = True,
    seed: _Seed = 0,
    device: _Device = "auto",
    save_every: _SaveEvery = 120.0,
    description: Annotated[str, typer.Option(help="Of the data, for the card.")] = "",
    licence: _Licence = "not given: ask the author",
    intended_use: _IntendedUse = "",
) -> None:
    """Learn a score prior of weighted k-space (WKGM) from fully sampled scans.

    The same command goes on where it was killed. On several GPUs or machines:
    torchrun --nproc-per-node 4 -m pipelines.cli train wkgm --data ...
    """
    from pipelines.train import INTENDED_USE, WkgmTraining
    from pipelines.train import train_wkgm as run
    from priors.learning.networks import Architecture
    from priors.learning.training import TrainingSettings

    with _training_values():
        job = WkgmTraining(
            data=tuple(data),
            out=out,
            kspace=kspace,
            hold_out=hold_out,
            denoise=denoise,
            denoising_steps=denoising_steps,
            architecture=Architecture(channels, _levels(multipliers), copies=copies, parameterisation=parameterisation),  # type: ignore[arg-type]
            settings=TrainingSettings(
                steps=steps,
                batch=batch,
                crop=crop,
                learning_rate=learning_rate,
                bf16=bf16,
                phase_width=phase_width,
                seed=seed,
                save_every_s=save_every,
            ),
            description=description,
            licence=licence,
            intended_use=intended_use or INTENDED_USE,
            device=device,
        )
    _train(lambda progress: run(job, progress), job, "svd_wkgm")


@train_app.command("hkgm")
def train_hkgm(
    scan: Annotated[
        Path,
        typer.Option("--scan", help="One fully sampled multi-coil scan: raw file (.h5) or k-space (.npy; coil, y, x)."),
    ],
    out: _Out = Path("hkgm.safetensors"),
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Learn from the fully sampled centre of an undersampled scan.")
    ] = False,
    patches: Annotated[
        str, typer.Option(help="image; kspace; hankel: patches of the Hankel matrix, as published.")
    ] = "image",
    window: Annotated[int, typer.Option(min=2, help="Window of the Hankel matrix, for its patches.")] = 8,
    steps: _Steps = 1500,
    batch: Annotated[int, typer.Option(min=1, help="Patches a step.")] = 16,
    crop: Annotated[int, typer.Option(min=16, help="Width and height of the patches; published: 256.")] = 64,
    learning_rate: _LearningRate = 5e-4,
    channels: _Channels = 32,
    multipliers: _Multipliers = "1,2,2,4",
    power: Annotated[float, typer.Option(min=0.0, help="Exponent p of the weighting; 0: none.")] = 0.5,
    denoise: Annotated[bool, typer.Option(help="Learn from the image without its noise (patches of images).")] = False,
    denoising_steps: _DenoisingSteps = 500,
    bf16: _Bf16 = True,
    seed: _Seed = 0,
    device: _Device = "auto",
    save_every: _SaveEvery = 60.0,
    description: Annotated[str, typer.Option(help="Of the scan, for the card.")] = "",
    licence: _Licence = "not given: ask the author",
    intended_use: _IntendedUse = "",
) -> None:
    """Learn a prior from one scan (HKGM), in minutes. The same command goes on where it was killed."""
    from pipelines.train import INTENDED_USE, HkgmTraining
    from pipelines.train import train_hkgm as run
    from priors.learning.networks import Architecture
    from priors.learning.training import TrainingSettings
    from priors.signal.weighting import Weighting

    with _training_values():
        job = HkgmTraining(
            scan=scan,
            out=out,
            patches=patches,  # type: ignore[arg-type]
            window=window,
            calibration=calibration,
            denoise=denoise,
            denoising_steps=denoising_steps,
            architecture=Architecture(channels, _levels(multipliers)),
            weighting=Weighting.of_power(power),
            settings=TrainingSettings(
                steps=steps,
                batch=batch,
                crop=crop,
                learning_rate=learning_rate,
                bf16=bf16,
                seed=seed,
                save_every_s=save_every,
            ),
            description=description,
            licence=licence,
            intended_use=intended_use or INTENDED_USE,
            device=device,
        )
    _train(lambda progress: run(job, progress), job, "hkgm")


@contextlib.contextmanager
def _training_values() -> Iterator[None]:
    """Raise ReconError for a value that a training cannot have."""
    try:
        yield
    except ValueError as error:
        raise ReconError(f"train: {one_line(ReconError(str(error)))}") from None


def _levels(multipliers: str) -> tuple[int, ...]:
    if not all(part.strip().isdigit() for part in multipliers.split(",")):
        raise ReconError(f"train: --multipliers is '{multipliers}'; give whole numbers, for instance 1,2,4,8")
    return tuple(int(part) for part in multipliers.split(","))


def _train(run: Callable[[Any], Any], job: Any, chain: str) -> None:
    """Run a training with a bar, and show the card's quality."""
    if os.environ.get("RANK", "0") != "0":  # of a torchrun: the first process tells
        run(None)
        return
    steps = job.settings.steps
    with progress_bar(steps, "steps") as update:
        card = run(lambda stage, done, all_, loss: update(done * steps // all_, f"{stage}, loss {loss:.3f}"))
    table = Table(title=f"{job.out}: {card.training_data}", title_justify="left", show_header=False)
    for name, value in card.quality.items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    console.print(f"use it: genrecon replay scan.h5 -c {chain} --set generative_recon.prior={job.out}", soft_wrap=True)
