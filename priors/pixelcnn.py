"""PixelCNN: an autoregressive density as a prior of images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from priors.learning.autoregressive import PixelArchitecture, PixelNetwork
from priors.learning.cards import ModelCard, from_table
from priors.learning.checkpoints import load_weights
from priors.learning.density_training import train_density
from priors.learning.image_denoiser import PUBLISHED_AUGMENTATION
from priors.learning.recipe import Recipe, Run, Trained, TrainingSet
from priors.learning.training import TrainingSettings
from priors.prior import DensityPrior
from priors.registry import PUBLISHED_SETTINGS, GenerativeMethod


@dataclass(frozen=True)
class PixelOptions:
    """What a card of PixelCNN says beside its weights.

    Parameters
    ----------
    architecture : PixelArchitecture
        Network.
    sigma_0 : float
        Noise of the training, in each part.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    architecture: PixelArchitecture
    sigma_0: float

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_0 < math.inf:
            raise ValueError(f"card: sigma_0 {self.sigma_0!r} is not 0 or more")

    def as_table(self) -> dict[str, Any]:
        """For a card."""
        return asdict(self)


class PixelPrior(DensityPrior):
    """Density of an autoregressive network; its gradient goes through pixels and what they are given.

    Parameters
    ----------
    model : PixelNetwork
        Network.
    sigma_0 : float
        Noise that it was trained with, in each part.
    inner_steps : int
        Gradient steps of a proximal step.
    """

    def __init__(self, model: PixelNetwork, sigma_0: float, inner_steps: int = 5) -> None:
        self.model = model.eval().requires_grad_(False)
        self.sigma_0 = sigma_0
        self.inner_steps = inner_steps

    def log_prior(self, m: Tensor) -> Tensor:
        """Log density of images (batch, ..., y, x), shape (batch,)."""
        found: Tensor = self.model(m.reshape(-1, *m.shape[-2:]).to(torch.complex64))
        return found.reshape(len(m), -1).sum(1)

    def to(self, device: torch.device) -> PixelPrior:
        """The prior with its network moved to a device."""
        self.model.to(device)
        return self


def load_pixelcnn(card: ModelCard, tensors: Mapping[str, Tensor]) -> PixelPrior:
    """Prior of a card whose options are `PixelOptions`. Raises ValueError for other options or weights."""
    options: PixelOptions = from_table(PixelOptions, card.options)
    model = PixelNetwork(options.architecture)
    load_weights(model, tensors)
    return PixelPrior(model, options.sigma_0)


@dataclass(frozen=True)
class PixelTraining:
    """What can be set.

    Parameters
    ----------
    architecture : PixelArchitecture
        Network.
    settings : TrainingSettings
        Optimiser, crops, augmentation.
    sigma_0 : float
        Noise that is added to the images, in each part.
    """

    architecture: PixelArchitecture = field(default_factory=PixelArchitecture)
    settings: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            steps=4000, batch=8, crop=64, learning_rate=5e-4, bf16=False, augmentation=PUBLISHED_AUGMENTATION
        )
    )
    sigma_0: float = 0.01


def train_pixelcnn(options: PixelTraining, data: TrainingSet, run: Run) -> Trained:
    """Train the log density; see `train_density`."""
    torch.manual_seed(options.settings.seed)
    known = PixelOptions(options.architecture, options.sigma_0)
    return train_density(
        PixelNetwork(options.architecture), options.settings, options.sigma_0, known.as_table(), data, run
    )


PIXELCNN = GenerativeMethod(
    "PixelCNN: an autoregressive density, by proximal steps (after Luo et al., MRM 2020)",
    load_pixelcnn,
    weights="pixelcnn",
    settings={"sampler": "proximal", "steps": 60},
    recipe=Recipe(PixelTraining, train_pixelcnn),
    variants={
        "published": GenerativeMethod(
            "PixelCNN as published: gradient steps of the density and data steps in turn (Luo et al., MRM 2020)",
            load_pixelcnn,
            weights="pixelcnn",
            takes="pixelcnn",
            settings={
                **PUBLISHED_SETTINGS,
                "sampler": "proximal",
                "steps": 80,
                "rule_options": {"dual": False},
            },
        )
    },
)
