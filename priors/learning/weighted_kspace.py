"""The training that WKGM and HKGM share: a denoiser of weighted k-space, from images with or without their noise."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, distributed

from priors.learning.cards import images_sha256
from priors.learning.networks import Architecture, EdmDenoiser
from priors.learning.recipe import Run, Trained, TrainingSet
from priors.learning.self_denoising import self_denoised
from priors.learning.training import (
    MULTIPLIERS,
    Examples,
    TrainingSettings,
    denoising_quality,
    denoising_trainer,
    normalised,
    small_crops,
)
from priors.signal.weighting import Weighting
from priors.typicality import typical_gains
from priors.weighted_kspace import WeightedKspaceOptions, WeightedKspacePrior


@dataclass(frozen=True)
class WeightedKspaceTraining:
    """What can be set.

    Parameters
    ----------
    denoise : bool
        Learn from the images without their noise (`self_denoised`).
    denoising_steps : int
        Optimiser steps of that.
    architecture : Architecture
        Network.
    settings : TrainingSettings
        Optimiser, crops, noise levels, augmentation.
    weighting : Weighting
        Weighting of k-space.

    Raises
    ------
    ValueError
        If there are no steps of denoising.
    """

    denoise: bool = True
    denoising_steps: int = 1500
    architecture: Architecture = field(default_factory=lambda: Architecture(multipliers=MULTIPLIERS))
    settings: TrainingSettings = field(default_factory=small_crops)
    weighting: Weighting = field(default_factory=Weighting)

    def __post_init__(self) -> None:
        if self.denoising_steps < 1:
            raise ValueError(f"denoising_steps {self.denoising_steps} is not one or more")


def train_weighted_kspace(
    options: WeightedKspaceTraining, data: TrainingSet, run: Run, examples: Callable[[Tensor], Examples]
) -> Trained:
    """Train a denoiser of weighted k-space.

    Parameters
    ----------
    options : WeightedKspaceTraining
        What was set.
    data : TrainingSet
        Images.
    run : Run
        Where to train.
    examples : callable
        Makes the training's examples of the images, which may have lost their noise.

    Returns
    -------
    Trained

    Raises
    ------
    ValueError
        If the images are not usable, or a saved state is of another run.
    """
    settings, learnt, text = options.settings, data.images, ""
    if options.denoise:
        others, own = learnt[: data.auxiliary], learnt[data.auxiliary :]
        learnt = normalised(torch.cat((others, _without_noise(options, own, run))))
        text = f", without their noise (Noisier2Noise, {options.denoising_steps} steps)"
    torch.manual_seed(settings.seed)
    model = run.begin(EdmDenoiser(options.architecture))
    trainer = denoising_trainer(model, examples(learnt), settings, run.folder / "state.safetensors")
    trainer.run(run.report("training", settings.steps))
    judged, where = data.judged()
    quality = denoising_quality(trainer.average, judged, options.weighting, settings)
    prior = WeightedKspacePrior(
        trainer.average, options.weighting, settings.sigma.range, phase_width=settings.phase_width
    )
    known = WeightedKspaceOptions(options.architecture, options.weighting, settings.phase_width, settings.sigma.range)
    return Trained(
        weights=trainer.average.state_dict(),
        options=known.as_table(),
        typical_gain=typical_gains(prior, *(data.typical(images).to(run.device) for images in (learnt, data.images))),
        steps=trainer.step,
        quality={f"{name}, {where} images as measured": value for name, value in quality.items()},
        losses=trainer.losses,
        text=text,
    )


def _without_noise(options: WeightedKspaceTraining, images: Tensor, run: Run) -> Tensor:
    """The images less their noise; kept in the run's folder, as a run goes on with the very same ones."""
    settings = options.settings
    kept = run.folder / f"images-{images_sha256(images)[:16]}-{options.denoising_steps}-{settings.seed}.npy"
    if not kept.exists():
        denoised = self_denoised(
            images,
            steps=options.denoising_steps,
            seed=settings.seed,
            device=run.device,
            bf16=settings.bf16,
            save_every_s=settings.save_every_s,
            architecture=options.architecture,
            state_path=run.folder / "denoising.safetensors",
            progress=run.report("learning the images' noise", options.denoising_steps),
            cleaned=run.count("taking the noise from the images", len(images)),
        )
        if run.leader:
            temporary = kept.with_suffix(".part")
            with open(temporary, "wb") as file:
                np.save(file, denoised.numpy())
            os.replace(temporary, kept)
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
    return torch.from_numpy(np.load(kept, allow_pickle=False))
