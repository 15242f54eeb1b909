"""Training of log densities of images: the mean negative log density, of images with a little noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from priors.learning.image_denoiser import JUDGED, Crops
from priors.learning.recipe import Run, Trained, TrainingSet
from priors.learning.trainer import Trainer
from priors.learning.training import TrainingSettings


class Likelihood:
    """Mean negative log density of noisy images, for each real value, in bits.

    Parameters
    ----------
    examples : Crops
        What to learn from.
    sigma_0 : float
        Standard deviation of the noise, in each part: the density is then that of noisy images, at least as wide as
        their own noise.
    """

    def __init__(self, examples: Crops, sigma_0: float) -> None:
        self.sha256 = examples.sha256
        self.description: dict[str, Any] = examples.description | {"sigma_0": sigma_0}
        self._examples, self._sigma_0 = examples, sigma_0

    def to(self, device: torch.device) -> None:
        """Move the data to a device."""
        self._examples.to(device)

    def loss(
        self, network: nn.Module, batch: int, generator: torch.Generator, noise_generator: torch.Generator
    ) -> Tensor:
        """See `Objective.loss`; the network maps images (batch, y, x) to log densities (batch,)."""
        clean = self._examples.draw(batch, generator)
        noise = torch.randn(clean.shape, dtype=clean.dtype, generator=noise_generator, device=clean.device)
        log_density: Tensor = network(clean + self._sigma_0 * math.sqrt(2) * noise)
        return -log_density.mean() / (2 * clean[0].numel() * math.log(2))


def train_density(
    model: nn.Module,
    settings: TrainingSettings,
    sigma_0: float,
    options: dict[str, Any],
    data: TrainingSet,
    run: Run,
    judged_part: Callable[[Tensor], Tensor] = lambda images: images,
) -> Trained:
    """Train a network that gives log densities.

    Parameters
    ----------
    model : nn.Module
        Maps complex images (batch, y, x) to log densities (batch,).
    settings : TrainingSettings
        Optimiser, crops, augmentation.
    sigma_0 : float
        See `Likelihood`.
    options : dict
        Options of the kind, for the card.
    data, run
        See `priors.learning.recipe`.
    judged_part : callable
        Part of whole images that the network takes, for the card's figures.

    Raises
    ------
    ValueError
        If the images are not usable, or a saved state is of another run.
    """
    objective = Likelihood(Crops(data.images, settings), sigma_0)
    trainer = Trainer(run.begin(model), objective, settings, run.folder / "state.safetensors")
    trainer.run(run.report("training", settings.steps))
    judged, where = data.judged(JUDGED)
    generator = torch.Generator().manual_seed(settings.seed)
    bits = []
    with torch.no_grad():
        for image in judged_part(judged):
            noise = torch.randn(image.shape, dtype=image.dtype, generator=generator)
            noisy = (image + sigma_0 * math.sqrt(2) * noise).to(run.device)
            bits.append(-float(trainer.average(noisy[None])) / (2 * image.numel() * math.log(2)))
    return Trained(
        weights=trainer.average.state_dict(),
        options=options,
        typical_gain=None,
        steps=trainer.step,
        quality={f"bits per real value, {where} images": round(sum(bits) / len(bits), 4)},
        losses=trainer.losses,
    )
