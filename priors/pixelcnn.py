"""PixelCNN: an autoregressive density as a prior of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from priors.density import DensityOptions, NetworkDensity
from priors.learning.autoregressive import PixelArchitecture, PixelNetwork
from priors.learning.cards import ModelCard, from_table
from priors.learning.checkpoints import load_weights
from priors.learning.density_training import train_density
from priors.learning.image_denoiser import PUBLISHED_AUGMENTATION
from priors.learning.recipe import Recipe, Run, Trained, TrainingSet
from priors.learning.training import TrainingSettings
from priors.registry import PUBLISHED_SETTINGS, GenerativeMethod


@dataclass(frozen=True)
class PixelOptions(DensityOptions):
    """What a card of PixelCNN says besides its weights; see `DensityOptions`.

    Parameters
    ----------
    architecture : PixelArchitecture
        Network.
    """

    architecture: PixelArchitecture


def load_pixelcnn(card: ModelCard, tensors: Mapping[str, Tensor]) -> NetworkDensity:
    """Prior of a card whose options are `PixelOptions`. Raises ValueError for other options or weights."""
    options: PixelOptions = from_table(PixelOptions, card.options)
    model = PixelNetwork(options.architecture)
    load_weights(model, tensors)
    return NetworkDensity(model, options.sigma_0)


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
    known = PixelOptions(options.sigma_0, options.architecture)
    return train_density(
        PixelNetwork(options.architecture), options.settings, options.sigma_0, known.as_table(), data, run
    )


PIXELCNN = GenerativeMethod(
    "PixelCNN: an autoregressive density, by proximal steps (after Luo et al., MRM 2020)",
    load_pixelcnn,
    weights="pixelcnn",
    settings={"sampler": "proximal", "standard_steps": 60},
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
