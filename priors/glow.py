"""Glow: an invertible network as a prior of images, with an exact density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from priors.density import DensityOptions, NetworkDensity
from priors.learning.cards import ModelCard, from_table
from priors.learning.checkpoints import load_weights
from priors.learning.density_training import train_density
from priors.learning.flow import FlowArchitecture, GlowNetwork
from priors.learning.image_denoiser import PUBLISHED_AUGMENTATION
from priors.learning.recipe import Recipe, Run, Trained, TrainingSet
from priors.learning.training import TrainingSettings
from priors.prior import LatentPrior
from priors.registry import PUBLISHED_SETTINGS, GenerativeMethod

SIGMA_0 = 0.015  # about the noise of the images


@dataclass(frozen=True)
class GlowOptions(DensityOptions):
    """What a card of Glow says besides its weights; see `DensityOptions`.

    Parameters
    ----------
    architecture : FlowArchitecture
        Network.
    """

    architecture: FlowArchitecture


class GlowLatentPrior(LatentPrior):
    r"""Glow by its latent variable, as published: the image that the network makes of a likely z near m.

    Parameters
    ----------
    model : GlowNetwork
        Network G^-1 of magnitudes.
    gamma : float
        Weight of the norm of z; published: 0.15 at 30 % of the samples, 0.08 at 25 %.

    Notes
    -----
    :math:`\min_z \|G(z) - m\|^2 + \gamma \|z\|` by one call of L-BFGS, of at most 20 inner steps and rate 0.1, from the
    z of m. The network sees magnitudes; the phase of m comes back (after Asim et al., ICML 2020).
    """

    def __init__(self, model: GlowNetwork, gamma: float = 0.15) -> None:
        self.model = model.eval().requires_grad_(False)
        self.gamma = gamma

    def prox(self, m: Tensor, weight: float | Tensor) -> Tensor:
        """See `Prior.prox`; the published step knows no weight."""
        flat = m.reshape(-1, *m.shape[-2:]).to(torch.complex64)
        magnitude = flat.abs().clamp(0, 1)
        found = torch.cat([self._likely(one[None]) for one in magnitude])
        return (found * torch.polar(torch.ones_like(magnitude), flat.angle())).reshape(m.shape).to(m.dtype)

    def _likely(self, magnitude: Tensor) -> Tensor:
        """A likely magnitude image near one, both (1, y, x)."""
        height, width = magnitude.shape[-2:]
        with torch.inference_mode(False), torch.enable_grad():
            target = magnitude.detach().clone()
            z = [part.detach().clone().requires_grad_() for part in self.model.encode(target.to(torch.complex64))[0]]
            optimiser = torch.optim.LBFGS(z, lr=0.1, max_iter=20)

            def misfit() -> Tensor:
                optimiser.zero_grad()
                image = self.model.decode(z).real[..., :height, :width]
                loss = (image - target).square().sum() + self.gamma * torch.cat([part.flatten() for part in z]).norm()
                loss.backward()
                return loss

            optimiser.step(misfit)
        with torch.no_grad():
            found: Tensor = self.model.decode(z).real[..., :height, :width].clamp(0, 1)
        return torch.where(torch.isfinite(found), found, magnitude)

    def log_prior(self, m: Tensor) -> Tensor:
        """Log density of the magnitudes, shape (batch,)."""
        found: Tensor = self.model(m.reshape(-1, *m.shape[-2:]).abs().to(torch.complex64))
        return found.reshape(len(m), -1).sum(1)

    def to(self, device: torch.device) -> GlowLatentPrior:
        """The prior with its network moved to a device."""
        self.model.to(device)
        return self


def load_glow(card: ModelCard, tensors: Mapping[str, Tensor]) -> NetworkDensity:
    """Prior of a card whose options are `GlowOptions`. Raises ValueError for other options or weights."""
    model, options = _network(card, tensors)
    return NetworkDensity(model, options.sigma_0)


def load_glow_latent(card: ModelCard, tensors: Mapping[str, Tensor]) -> GlowLatentPrior:
    """Prior by the latent variable, of a card whose options are `GlowOptions`; see `load_glow`."""
    return GlowLatentPrior(_network(card, tensors)[0])


def _network(card: ModelCard, tensors: Mapping[str, Tensor]) -> tuple[GlowNetwork, GlowOptions]:
    options: GlowOptions = from_table(GlowOptions, card.options)
    model = GlowNetwork(options.architecture)
    load_weights(model, tensors)
    return model, options


@dataclass(frozen=True)
class GlowTraining:
    """What can be set.

    Parameters
    ----------
    architecture : FlowArchitecture
        Network.
    settings : TrainingSettings
        Optimiser, crops, augmentation.
    sigma_0 : float
        Noise that is added to the images, in each part.
    """

    architecture: FlowArchitecture = field(default_factory=FlowArchitecture)
    settings: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            steps=4000, batch=8, crop=64, learning_rate=2e-4, bf16=False, augmentation=PUBLISHED_AUGMENTATION
        )
    )
    sigma_0: float = SIGMA_0


def published_training() -> GlowTraining:
    """Magnitudes: one channel."""
    settings = GlowTraining().settings
    return GlowTraining(FlowArchitecture(channels=1), settings)


def train_glow(options: GlowTraining, data: TrainingSet, run: Run) -> Trained:
    """Train the log density; see `train_density`."""
    torch.manual_seed(options.settings.seed)
    known = GlowOptions(options.sigma_0, options.architecture)
    return train_density(
        GlowNetwork(options.architecture), options.settings, options.sigma_0, known.as_table(), data, run
    )


GLOW = GenerativeMethod(
    "Glow: an invertible network, by its exact density (after Asim et al., ICML 2020)",
    load_glow,
    weights="glow",
    settings={"sampler": "proximal", "standard_steps": 60},
    recipe=Recipe(GlowTraining, train_glow),
    variants={
        "published": GenerativeMethod(
            "Glow as published: magnitudes, by the latent variable (USLearn; Asim et al., ICML 2020)",
            load_glow_latent,
            weights="glow_published",
            settings={**PUBLISHED_SETTINGS, "sampler": "proximal", "steps": 60, "rule_options": {"dual": False}},
            recipe=Recipe(published_training, train_glow),
        )
    },
)
