"""Variational autoencoders of images: on patches of magnitudes as published, or convolutional on complex images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from priors.learning.networks import check_whole_numbers

PATCH = 28
PATCH_LATENTS = 60
LATENT_CHANNELS = 16
OVERFLOW = 10.0  # bound of the logarithms of variances

AutoencoderName = Literal["convolutional", "patches"]


@dataclass(frozen=True)
class AutoencoderArchitecture:
    """Shapes of a variational autoencoder.

    Parameters
    ----------
    network : {"convolutional", "patches"}
        Complex images with a latent of an eighth of their size; or patches of 28 x 28 magnitudes with 60 latents.
    width : int
        Filters of the finest level.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    network: AutoencoderName = "convolutional"
    width: int = 32

    def __post_init__(self) -> None:
        if self.network not in get_args(AutoencoderName):
            raise ValueError(f"architecture: unknown network {self.network!r}")
        check_whole_numbers(self, width=256)


class Autoencoder(nn.Module):
    r"""Evidence lower bound of the log density of images.

    Parameters
    ----------
    architecture : AutoencoderArchitecture
        Shapes.
    draws : int
        Draws z of the latent that the bound is averaged over.

    Notes
    -----
    :math:`\log p(x) \ge \overline{\log p(x | z_j) + \log p(z_j) - \log q(z_j | x)}`, :math:`z_j = \mu + s \epsilon_j`,
    with the variance, not the standard deviation, in the Gaussians (Kingma and Welling, ICLR 2014; Tezcan et al., IEEE
    TMI 2019). In evaluation the draws are the same in every call, so that it is a function of the image.
    """

    def __init__(self, architecture: AutoencoderArchitecture, draws: int = 1) -> None:
        super().__init__()
        self.architecture, self.draws = architecture, draws
        width, patches = architecture.width, architecture.network == "patches"
        parts = 1 if patches else 2
        widths = [width, 2 * width, 2 * width] if patches else [width, 2 * width, 4 * width, 4 * width]
        down: list[nn.Module] = [nn.Conv2d(parts, widths[0], 3, padding=1), nn.SiLU()]
        for before, after in pairwise(widths):
            down += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU()]
            down += [nn.Conv2d(after, after, 3, padding=1), nn.SiLU()]
        up: list[nn.Module] = []
        for before, after in pairwise(reversed(widths)):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1), nn.SiLU()]
            up += [nn.Conv2d(after, after, 3, padding=1), nn.SiLU()]
        self.down = nn.Sequential(*down)
        self.up = nn.Sequential(*up, nn.Conv2d(widths[0], 2 * parts, 3, padding=1))
        side = PATCH // 4
        inner = widths[-1] * side**2
        if patches:
            self.to_latent: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(inner, 2 * PATCH_LATENTS))
            self.from_latent: nn.Module = nn.Sequential(
                nn.Linear(PATCH_LATENTS, inner), nn.Unflatten(1, (widths[-1], side, side))
            )
        else:
            self.to_latent = nn.Conv2d(widths[-1], 2 * LATENT_CHANNELS, 1)
            self.from_latent = nn.Conv2d(LATENT_CHANNELS, widths[-1], 1)
        self.multiple = 1 if patches else 8

    def forward(self, images: Tensor) -> Tensor:
        """Bound for complex images (batch, y, x), of patches for their magnitudes; shape (batch,)."""
        if self.architecture.network == "patches":
            picture = images.abs()[:, None]
        else:
            picture = 10 * torch.stack((images.real, images.imag), 1)  # parts of about 1
        height, width = picture.shape[-2:]
        padded = functional.pad(picture, (0, -width % self.multiple, 0, -height % self.multiple), mode="circular")
        mean, log_variance = self.to_latent(self.down(padded)).chunk(2, 1)
        log_variance = log_variance.clamp(-OVERFLOW, OVERFLOW)
        total = torch.zeros(len(images), device=images.device)
        generator = None if self.training else torch.Generator(images.device).manual_seed(0)
        for _ in range(self.draws):
            noise = torch.randn(mean.shape[1:], generator=generator, device=mean.device)
            if self.training:
                noise = torch.randn(mean.shape, device=mean.device)
            z = mean + (0.5 * log_variance).exp() * noise
            found, log_precision = self.up(self.from_latent(z))[..., :height, :width].chunk(2, 1)
            log_precision = log_precision.clamp(-OVERFLOW, OVERFLOW)
            likelihood = 0.5 * (
                log_precision - log_precision.exp() * (picture - found).square() - math.log(2 * math.pi)
            )
            divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)
            total = total + likelihood.flatten(1).sum(1) - divergence.flatten(1).sum(1)
        scale = 0.0 if self.architecture.network == "patches" else picture[0].numel() * math.log(10.0)
        return total / self.draws + scale
