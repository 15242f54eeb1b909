"""A generator of images and its critic, trained against each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from priors.learning.image_denoiser import Crops
from priors.learning.networks import check_whole_numbers

SHRINK = 16  # pixels of an image along each axis for one of the latent


@dataclass(frozen=True)
class AdversarialArchitecture:
    """Shapes of a `Adversaries`.

    Parameters
    ----------
    latents : int
        Channels of the latent, which is a sixteenth of the image along each axis.
    width : int
        Filters of the finest level of generator and critic.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    latents: int = 32
    width: int = 24

    def __post_init__(self) -> None:
        check_whole_numbers(self, latents=512, width=512)


class Generator(nn.Module):
    """Complex images (batch, y, x) of a latent (batch, latents, y / 16, x / 16)."""

    def __init__(self, architecture: AdversarialArchitecture) -> None:
        super().__init__()
        self.latents = architecture.latents
        width = architecture.width
        widths = [8 * width, 4 * width, 2 * width, width]
        layers: list[nn.Module] = [nn.Conv2d(architecture.latents, widths[0], 3, padding=1), nn.ReLU()]
        for before, after in pairwise([*widths, width]):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1)]
            layers += [nn.GroupNorm(math.gcd(8, after), after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 2, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        """Images."""
        parts = self.layers(z).tanh()
        return torch.complex(parts[:, 0], parts[:, 1])


class Critic(nn.Module):
    """Score (batch,) of complex images, high for true ones."""

    def __init__(self, architecture: AdversarialArchitecture) -> None:
        super().__init__()
        width = architecture.width
        layers: list[nn.Module] = []
        for before, after in pairwise([2, width, 2 * width, 4 * width, 8 * width]):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Scores."""
        found: Tensor = self.layers(torch.stack((images.real, images.imag), 1)).mean((1, 2, 3))
        return found


class Adversaries(nn.Module):
    """Generator and critic, which one optimiser trains: neither gets gradients of the other's loss."""

    def __init__(self, architecture: AdversarialArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.generator, self.critic = Generator(architecture), Critic(architecture)


class AdversarialLoss:
    r"""Non-saturating loss of generator and critic, with a penalty of the critic's gradient at true images.

    Notes
    -----
    :math:`\mathrm{sp}(-C(x)) + \mathrm{sp}(C(G(z))) + \tfrac{\gamma}{2} \|\nabla C(x)\|^2` for the critic,
    :math:`\mathrm{sp}(-C(G(z)))` for the generator (Mescheder et al., ICML 2018).
    """

    penalty = 1.0

    def __init__(self, examples: Crops, latents: int) -> None:
        self.sha256 = examples.sha256
        self.description: dict[str, Any] = examples.description | {"loss": "adversarial"}
        self._examples, self._latents = examples, latents

    def to(self, device: torch.device) -> None:
        """Move the data to a device."""
        self._examples.to(device)

    def loss(
        self, network: nn.Module, batch: int, generator: torch.Generator, noise_generator: torch.Generator
    ) -> Tensor:
        """See `Objective.loss`; the network is `Adversaries`."""
        assert isinstance(network, Adversaries)
        true = self._examples.draw(batch, generator).detach().requires_grad_()
        shape = (len(true), self._latents, *(size // SHRINK for size in true.shape[-2:]))
        z = torch.randn(shape, generator=noise_generator, device=true.device)
        made = network.generator(z)
        score = network.critic(true)
        (slope,) = torch.autograd.grad(score.sum(), true, create_graph=True)
        of_critic = functional.softplus(-score).mean() + functional.softplus(network.critic(made.detach())).mean()
        of_critic = of_critic + 0.5 * self.penalty * slope.abs().square().flatten(1).sum(1).mean()
        frozen = {name: value.detach() for name, value in network.critic.state_dict().items()}
        of_generator = functional.softplus(-functional_call(network.critic, frozen, (made,))).mean()
        return of_critic + of_generator
