"""Linear problems whose solution is known: the Wiener solution, and schedules that lead every rule to it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from priors.data_steps.coils import CoilStep
from priors.data_steps.linear import LinearStep
from priors.data_steps.sense import SenseStep
from priors.data_steps.step import Measurement, StepSettings
from priors.domains import Domain, ImageDomain, WeightedKspaceDomain
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.weighting import Weighting

# Noise and last level make every rule contract by half a step.
SIZE, COILS, NOISE, LAST = 8, 3, 0.5, 1.0
SETTINGS = StepSettings(
    low_rank=False, keep_measured="false", data_weight="likelihood", window=2, rank=1, growing_rank=False, steps=1
)
DOMAINS: dict[str, Domain] = {
    "image": ImageDomain(),
    # A small exponent keeps the problem well conditioned.
    "weighted k-space": WeightedKspaceDomain(Weighting(slope=1.5, p=0.2)),
}


def white(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return math.sqrt(2) * torch.randn(shape, dtype=torch.complex64, generator=generator)


def no_noise(like: Tensor) -> Tensor:
    """The rules are linear on a Gaussian prior: without their noise they give the mean of their samples."""
    return torch.zeros_like(like)


class Problem:
    """A linear problem of size x size pixels, and its data step; data of another scale."""

    def __init__(self, kind: str, domain: Domain, size: int = SIZE, scale: float = 1.0) -> None:
        self.size = size
        mask = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0)) < 0.6
        noise = torch.tensor([NOISE])
        self.arrays = 1
        if kind == "sense":
            maps = white(1, 1, COILS, size, size, seed=1)
            maps = maps / maps.abs().square().sum(2, keepdim=True).sqrt()
            self.forward = lambda x: mask * fft2c((maps * x.unsqueeze(2)).sum(1))
            data = scale * mask * white(1, COILS, size, size, seed=2)
            self.step: Any = SenseStep(Measurement(data, mask, maps, noise), domain, SETTINGS)
        elif kind == "coils":
            self.arrays = 2
            self.forward = lambda x: mask * fft2c(x)
            data = scale * mask * white(1, 2, size, size, seed=2)
            self.step = CoilStep(Measurement(data, mask, None, noise), domain, SETTINGS)
        else:
            matrix = white(40, size * size, seed=3) / size
            self.forward = lambda x: x.flatten(1) @ matrix.T
            data = scale * white(1, 40, seed=2)
            adjoint = lambda y: (y @ matrix.conj()).reshape(1, 1, size, size)  # noqa: E731
            self.step = LinearStep(self.forward, adjoint, data, noise, domain)
        self.data = data

    def wiener(self, precision: Tensor) -> Tensor:
        """Minimum of |A x - y|^2 / sigma^2 + x^H C^-1 x, by the dense normal equations."""
        size = self.size
        count = self.arrays * size * size
        basis = torch.eye(count, dtype=torch.complex64).reshape(count, 1, self.arrays, size, size)
        a = torch.stack([self.forward(one).flatten() for one in basis], 1).to(torch.complex128)
        inverse = torch.stack([ifft2c(precision * fft2c(one)).flatten() for one in basis], 1).to(torch.complex128)
        normal = a.mH @ a / NOISE**2 + inverse
        right = a.mH @ self.data.flatten().to(torch.complex128) / NOISE**2
        return torch.linalg.solve(normal, right).reshape(1, self.arrays, size, size).to(torch.complex64)


def levels(rule: str) -> Tensor:
    """A schedule that ends slowly at LAST, so that the state has time to get to where it stays."""
    if rule in ("momentum", "proximal"):
        return torch.full((150 if rule == "momentum" else 60,), LAST, dtype=torch.float64)
    if rule == "annealed":
        return torch.cat([torch.linspace(2, LAST, 5, dtype=torch.float64), torch.full((40,), LAST)])
    falling = torch.linspace(1, 0, 40, dtype=torch.float64)
    return LAST + falling**8 + 1e-6 * falling


OPTIONS: dict[str, dict[str, float]] = {
    "annealed": {"relaxation": 0.7},
    "predictor_corrector": {"snr": 10.0, "corrector_steps": 2, "realisations": 1},  # steps as long as is stable
}


def coloured(size: int = SIZE) -> Tensor:
    """Variance of each part of an image's k-space, (y, x), the same at k and -k."""
    variance = 0.5 + torch.rand(size, size, generator=torch.Generator().manual_seed(5))
    return (variance + variance.flip(0, 1).roll((1, 1), (0, 1))) / 2
