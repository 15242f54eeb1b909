"""Glow: an invertible network from images to white noise, whose Jacobian is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from priors.learning.networks import check_whole_numbers


@dataclass(frozen=True)
class FlowArchitecture:
    """Shapes of a `GlowNetwork`.

    Parameters
    ----------
    channels : int
        2: real and imaginary parts; 1: magnitudes.
    levels : int
        Scales.
    depth : int
        Steps of a scale.
    width : int
        Filters of the coupling's networks.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    channels: int = 2
    levels: int = 3
    depth: int = 8
    width: int = 96

    def __post_init__(self) -> None:
        check_whole_numbers(self, channels=2, levels=6, depth=64, width=512)


class GlowNetwork(nn.Module):
    r"""Squeeze, steps of normalisation, mixing and coupling, and half of the channels leave: at each scale.

    Parameters
    ----------
    architecture : FlowArchitecture
        Shapes.

    Notes
    -----
    :math:`\log p(x) = \log N(f(x); 0, I) + \log |\det f'(x)|` (Kingma and Dhariwal, NeurIPS 2018). The coupling's scale
    is bounded, :math:`\exp(2 \tanh(s / 2))`, so that the inverse does not explode. Sizes that the scales do not divide
    are continued periodically, and the density is that of the image continued.
    """

    def __init__(self, architecture: FlowArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.levels = nn.ModuleList()
        channels = architecture.channels
        for level in range(architecture.levels):
            channels *= 4
            # Images have parts of about 0.1: the very first step makes them parts of about 1.
            gains = [10.0 if level == 0 and step == 0 else 1.0 for step in range(architecture.depth)]
            self.levels.append(nn.ModuleList([_Step(channels, architecture.width, gain) for gain in gains]))
            if level < architecture.levels - 1:
                channels //= 2

    def forward(self, images: Tensor) -> Tensor:
        """Log density of complex images (batch, y, x), shape (batch,); of their magnitudes with one channel."""
        z, log_jacobian = self.encode(images)
        for part in z:
            log_jacobian = log_jacobian - 0.5 * (part.square() + math.log(2 * math.pi)).flatten(1).sum(1)
        return log_jacobian

    def encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Latent variables of complex images (batch, y, x), one of each scale, and the log determinant (batch,)."""
        if self.architecture.channels == 2:
            features = torch.stack((images.real, images.imag), 1)
        else:
            features = images.abs()[:, None]
        multiple = 2**self.architecture.levels
        height, width = features.shape[-2:]
        features = functional.pad(features, (0, -width % multiple, 0, -height % multiple), mode="circular")
        z, log_jacobian = [], torch.zeros(len(images), device=images.device)
        for level, steps in enumerate(self.levels):
            features = functional.pixel_unshuffle(features, 2)
            for step in steps:  # type: ignore[attr-defined]
                features, change = step(features)
                log_jacobian = log_jacobian + change
            if level < len(self.levels) - 1:
                features, out = features.chunk(2, 1)
                z.append(out)
        return [*z, features], log_jacobian

    def decode(self, z: Sequence[Tensor]) -> Tensor:
        """Complex images of latent variables, as `encode` gives them."""
        features = z[-1]
        for level in reversed(range(len(self.levels))):
            if level < len(self.levels) - 1:
                features = torch.cat((features, z[level]), 1)
            for step in reversed(self.levels[level]):  # type: ignore[call-overload]
                features = step.inverse(features)
            features = functional.pixel_shuffle(features, 2)
        if self.architecture.channels == 2:
            return torch.complex(features[:, 0], features[:, 1])
        return torch.complex(features[:, 0], torch.zeros_like(features[:, 0]))


class _Step(nn.Module):
    """Normalisation of each channel, an invertible mixing of the channels, and an affine coupling of two halves."""

    permutation: Tensor

    def __init__(self, channels: int, width: int, gain: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((channels, 1, 1), math.log(gain)))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        orthogonal = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(orthogonal)
        self.register_buffer("permutation", permutation)
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.register_buffer("signs", upper.diagonal().sign())
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log())
        self.kept = channels // 2
        last = nn.Conv2d(width, 2 * (channels - self.kept), 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.coupling = nn.Sequential(
            nn.Conv2d(self.kept, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), last
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pixels = features.shape[-2] * features.shape[-1]
        features = (features + self.shift) * self.log_scale.exp()
        features = torch.einsum("ij,bjyx->biyx", self._mixing(), features)
        kept, moved = features[:, : self.kept], features[:, self.kept :]
        scale, shift = self.coupling(kept).chunk(2, 1)
        log_scale = 2 * (scale / 2).tanh()
        moved = moved * log_scale.exp() + shift
        change = pixels * (self.log_scale.sum() + self.log_diagonal.sum()) + log_scale.flatten(1).sum(1)
        return torch.cat((kept, moved), 1), change

    def inverse(self, features: Tensor) -> Tensor:
        """Undo `forward`."""
        kept, moved = features[:, : self.kept], features[:, self.kept :]
        scale, shift = self.coupling(kept).chunk(2, 1)
        moved = (moved - shift) * (-2 * (scale / 2).tanh()).exp()
        features = torch.cat((kept, moved), 1)
        features = torch.einsum("ij,bjyx->biyx", torch.linalg.inv(self._mixing()), features)
        return features * (-self.log_scale).exp() - self.shift

    def _mixing(self) -> Tensor:
        lower = self.lower.tril(-1) + torch.eye(len(self.lower), device=self.lower.device)
        upper = self.upper.triu(1) + torch.diag(self.signs * self.log_diagonal.exp())  # type: ignore[operator]
        return self.permutation @ lower @ upper
