"""VAE: the evidence lower bound of a variational autoencoder as a prior of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from priors.density import DensityOptions, NetworkDensity
from priors.learning.autoencoder import PATCH, Autoencoder, AutoencoderArchitecture
from priors.learning.cards import ModelCard, from_table
from priors.learning.checkpoints import load_weights
from priors.learning.density_training import train_density
from priors.learning.image_denoiser import PUBLISHED_AUGMENTATION
from priors.learning.recipe import Recipe, Run, Trained, TrainingSet
from priors.learning.training import TrainingSettings
from priors.registry import PUBLISHED_SETTINGS, GenerativeMethod

STRIDE = PATCH // 2
PRIOR_STEPS = 10  # between two data steps, published
RATE = 1e-4  # of these, published


@dataclass(frozen=True)
class VaeOptions(DensityOptions):
    """What a card of a VAE says besides its weights; see `DensityOptions`.

    Parameters
    ----------
    architecture : AutoencoderArchitecture
        Network.
    """

    architecture: AutoencoderArchitecture


class PatchPrior(NetworkDensity):
    """Bound of overlapping patches of magnitudes, summed and divided by how often a pixel comes (DDP).

    Notes
    -----
    Patches at half their width, on images continued periodically. The proximal step is the published one: ten steps of
    fixed length along the gradient, without a pull back (Tezcan et al., IEEE TMI 2019).
    """

    def log_prior(self, m: Tensor) -> Tensor:
        """See `NetworkDensity.log_prior`."""
        magnitude = m.reshape(-1, 1, *m.shape[-2:]).abs().float()
        height, width = magnitude.shape[-2:]
        pad = (0, PATCH - STRIDE + -width % STRIDE, 0, PATCH - STRIDE + -height % STRIDE)
        padded = functional.pad(magnitude, pad, mode="circular")
        patches = functional.unfold(padded, PATCH, stride=STRIDE).transpose(1, 2)
        flat = patches.reshape(-1, PATCH, PATCH)
        found = self.model(torch.complex(flat, torch.zeros_like(flat)))
        return found.reshape(len(m), -1).sum(1) / (PATCH / STRIDE) ** 2

    def prox(self, m: Tensor, weight: float | Tensor) -> Tensor:
        """See `Prior.prox`; the published step knows no weight."""
        for _ in range(PRIOR_STEPS):
            m = m + RATE * self.score(m, 0.0)
        return m


def load_vae(card: ModelCard, tensors: Mapping[str, Tensor]) -> NetworkDensity:
    """Prior of a card whose options are `VaeOptions`. Raises ValueError for other options or weights."""
    options: VaeOptions = from_table(VaeOptions, card.options)
    patches = options.architecture.network == "patches"
    model = Autoencoder(options.architecture, draws=4 if patches else 1)
    load_weights(model, tensors)
    return (PatchPrior if patches else NetworkDensity)(model, options.sigma_0)


@dataclass(frozen=True)
class VaeTraining:
    """What can be set.

    Parameters
    ----------
    architecture : AutoencoderArchitecture
        Network.
    settings : TrainingSettings
        Optimiser, crops, augmentation.
    sigma_0 : float
        Noise that is added to the images, in each part.
    """

    architecture: AutoencoderArchitecture = field(default_factory=AutoencoderArchitecture)
    settings: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            steps=8000, batch=8, crop=96, learning_rate=5e-4, bf16=False, augmentation=PUBLISHED_AUGMENTATION
        )
    )
    sigma_0: float = 0.015


def published_training() -> VaeTraining:
    """Patches of 28 x 28 magnitudes."""
    settings = TrainingSettings(
        steps=8000, batch=128, crop=PATCH, learning_rate=5e-4, phase_width=0, bf16=False,
        augmentation=PUBLISHED_AUGMENTATION,
    )  # fmt: skip
    return VaeTraining(AutoencoderArchitecture("patches"), settings, 0.0)


def train_vae(options: VaeTraining, data: TrainingSet, run: Run) -> Trained:
    """Train the bound; see `train_density`."""
    torch.manual_seed(options.settings.seed)
    known = VaeOptions(options.sigma_0, options.architecture)
    model = Autoencoder(options.architecture)
    whole = options.architecture.network == "convolutional"
    return train_density(
        model,
        options.settings,
        options.sigma_0,
        known.as_table(),
        data,
        run,
        (lambda images: images) if whole else _middle_patches,
    )


def _middle_patches(images: Tensor) -> Tensor:
    top, left = ((size - PATCH) // 2 for size in images.shape[-2:])
    return images[..., top : top + PATCH, left : left + PATCH]


VAE = GenerativeMethod(
    "VAE: a convolutional variational autoencoder of complex images (after Tezcan et al., IEEE TMI 2019)",
    load_vae,
    weights="vae",
    settings={"sampler": "proximal", "standard_steps": 60},
    recipe=Recipe(VaeTraining, train_vae),
    variants={
        "published": GenerativeMethod(
            "VAE as published: the deep density prior of patches of magnitudes (Tezcan et al., IEEE TMI 2019)",
            load_vae,
            weights="vae_published",
            settings={**PUBLISHED_SETTINGS, "sampler": "proximal", "steps": 60, "rule_options": {"dual": False}},
            recipe=Recipe(published_training, train_vae),
        )
    },
)
