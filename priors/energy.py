"""EBM: energies as priors of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from priors.image_denoiser import ImageDenoiserOptions
from priors.learning.cards import ModelCard, from_table
from priors.learning.checkpoints import load_weights
from priors.learning.energy_networks import EnergyArchitecture, EnergyNetwork
from priors.learning.energy_training import (
    ContrastiveTraining,
    EnergyTraining,
    step_energy,
    train_contrastive,
    train_energy,
)
from priors.learning.networks import EdmDenoiser, channels_last
from priors.learning.recipe import Recipe
from priors.prior import EnergyPrior, SigmaLevels, expand_sigma
from priors.registry import PUBLISHED_SETTINGS, GenerativeMethod


class GradientStepEnergy(EnergyPrior):
    r"""Energy whose gradient step is a denoiser.

    Parameters
    ----------
    model : EdmDenoiser
        Network psi of images.
    sigma_levels : SigmaLevels
        Noise levels that it was trained with.
    phase_width : int
        Width of the k-space window whose low-resolution phase the images of the training had lost; 0: none.

    Notes
    -----
    :math:`E(m, \sigma) = \|m - \psi(m, \sigma)\|^2 / (2 \sigma^2)`, and :math:`m - \sigma^2 \nabla E` was trained to be
    the denoised image (Cohen et al., NeurIPS 2021; Hurault et al., ICLR 2022): the score is exactly that of a density.
    """

    def __init__(self, model: EdmDenoiser, sigma_levels: SigmaLevels, phase_width: int = 0) -> None:
        self.model = channels_last(model).eval().requires_grad_(False)
        self.sigma_levels = sigma_levels
        self.phase_width = phase_width

    def energy(self, m: Tensor, sigma: Tensor) -> Tensor:
        """See `EnergyPrior.energy`."""
        flat = m.reshape(-1, 1, *m.shape[-2:]).to(torch.complex64)
        level = torch.broadcast_to(sigma, m.shape[:1] + (1,) * (m.ndim - 1)).flatten().float()
        repeated = level.repeat_interleave(len(flat) // max(len(m), 1))
        return step_energy(self.model, flat, repeated).reshape(len(m), -1).sum(1)

    def to(self, device: torch.device) -> GradientStepEnergy:
        """The prior with its network moved to a device."""
        self.model.to(device)
        return self


def load_gradient_step(card: ModelCard, tensors: Mapping[str, Tensor]) -> GradientStepEnergy:
    """Prior of a card whose options are `ImageDenoiserOptions`. Raises ValueError for other options or weights."""
    options: ImageDenoiserOptions = from_table(ImageDenoiserOptions, card.options)
    model = EdmDenoiser(options.architecture)
    load_weights(model, tensors)
    return GradientStepEnergy(model, SigmaLevels(options.levels, options.continuous), options.phase_width)


@dataclass(frozen=True)
class ContrastiveOptions:
    """What a card of a contrastive energy says besides its weights.

    Parameters
    ----------
    architecture : EnergyArchitecture
        Network.
    sigma : float
        Noise at which gradients are averaged, and level of the step.
    step : float
        Step along the gradient of the network's energy, whose scale means nothing.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    architecture: EnergyArchitecture
    sigma: float
    step: float

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and self.step > 0):
            raise ValueError(f"card: sigma {self.sigma!r} and step {self.step!r} are not above zero")

    def as_table(self) -> dict[str, Any]:
        """For a card."""
        return asdict(self)


class ContrastiveEnergy(EnergyPrior):
    r"""Energy that was learnt by contrast with its own samples.

    Parameters
    ----------
    model : EnergyNetwork
        Network f.
    options : ContrastiveOptions
        Noise and step.

    Notes
    -----
    :math:`E = f s / \sigma^2`, so that the step :math:`m - \sigma^2 \nabla E` is the published :math:`m - s \nabla f`
    (Guan et al., NMR Biomed. 2022); parts of images stay within -1 to 1.
    """

    def __init__(self, model: EnergyNetwork, options: ContrastiveOptions) -> None:
        self.model = model.eval().requires_grad_(False)
        self.sigma_levels = SigmaLevels((options.sigma,))
        self._scale = options.step / options.sigma**2

    def energy(self, m: Tensor, sigma: Tensor) -> Tensor:
        """See `EnergyPrior.energy`; the same at every level."""
        flat = m.reshape(-1, *m.shape[-2:]).to(torch.complex64)
        found: Tensor = self.model(flat)
        return self._scale * found.reshape(len(m), -1).sum(1)

    def denoise(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        """The step, with its parts within -1 to 1."""
        moved = m + expand_sigma(sigma, m) ** 2 * self.score(m, sigma)
        return torch.complex(moved.real.clamp(-1, 1), moved.imag.clamp(-1, 1))

    def to(self, device: torch.device) -> ContrastiveEnergy:
        """The prior with its network moved to a device."""
        self.model.to(device)
        return self


def load_contrastive(card: ModelCard, tensors: Mapping[str, Tensor]) -> ContrastiveEnergy:
    """Prior of a card whose options are `ContrastiveOptions`. Raises ValueError for other options or weights."""
    options: ContrastiveOptions = from_table(ContrastiveOptions, card.options)
    model = EnergyNetwork(options.architecture)
    load_weights(model, tensors)
    return ContrastiveEnergy(model, options)


EBM = GenerativeMethod(
    "EBM: an energy whose gradient step is a denoiser, in few steps (after Guan et al., NMR Biomed. 2022)",
    load_gradient_step,
    weights="ebm",
    settings={"sampler": "few_step", "standard_steps": 30},
    recipe=Recipe(EnergyTraining, train_energy),
    variants={
        "published": GenerativeMethod(
            "EBM as published: an energy learnt by contrast with its samples (Guan et al., NMR Biomed. 2022)",
            load_contrastive,
            weights="ebm_published",
            settings={
                **PUBLISHED_SETTINGS,
                "sampler": "momentum",
                "steps": 300,
                "rule_options": {"momentum": 0.0, "draws": 8},
            },
            recipe=Recipe(ContrastiveTraining, train_contrastive),
        )
    },
)
