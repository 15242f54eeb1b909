"""A Gaussian prior, whose covariance is diagonal in the Fourier transform, given in each of the ways a prior can be."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from priors.domains import Domain, ImageDomain
from priors.prior import DensityPrior, EnergyPrior, LatentPrior, Prior, SigmaLevels, expand_sigma
from priors.signal.fourier import fft2c, ifft2c

LEVELS = SigmaLevels((1e-3, 30.0), True)


class _Gaussian:
    """Variance of each part of the samples of an image's k-space, (y, x); the domain's array is W x."""

    def __init__(self, variance: Tensor, domain: Domain | None = None) -> None:
        self.variance = variance
        self.domain = domain or ImageDomain()

    def _of_m(self, shape: torch.Size) -> Tensor:
        """Variance of the samples of the array's spectrum, (y, x)."""
        return self.variance * self.domain.metric(shape[-2], shape[-1], self.variance.device)

    def _filtered(self, m: Tensor, factors: Tensor) -> Tensor:
        """The array with its spectrum multiplied by factors (y, x) or (batch, 1, y, x)."""
        if isinstance(self.domain, ImageDomain):
            return ifft2c(factors * fft2c(m))
        return factors * m  # weighted k-space is its own spectrum


class ByDenoiser(_Gaussian, Prior):
    sigma_levels: ClassVar[SigmaLevels] = LEVELS

    def denoise(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        variance = self._of_m(m.shape)
        return self._filtered(m, variance / (variance + expand_sigma(sigma, m) ** 2))


class ByScore(_Gaussian, Prior):
    sigma_levels: ClassVar[SigmaLevels] = LEVELS

    def score(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        return self._filtered(m, -1 / (self._of_m(m.shape) + expand_sigma(sigma, m) ** 2))


class ByEnergy(_Gaussian, EnergyPrior):
    sigma_levels: ClassVar[SigmaLevels] = LEVELS

    def energy(self, m: Tensor, sigma: Tensor) -> Tensor:
        inverse = 1 / (self._of_m(m.shape) + sigma**2)
        spectrum = self.domain.spectrum(m)
        assert spectrum is not None
        return 0.5 * (inverse * spectrum.abs().square()).flatten(1).sum(1)


class ByDensity(_Gaussian, DensityPrior):
    inner_steps = 10

    def log_prior(self, m: Tensor) -> Tensor:
        spectrum = self.domain.spectrum(m)
        assert spectrum is not None
        return -0.5 * (spectrum.abs().square() / self._of_m(m.shape)).flatten(1).sum(1)


class ByLatent(_Gaussian, LatentPrior):
    """Generated as F^-1 sqrt(C) z of a standard normal z; the proximal step finds z."""

    def prox(self, m: Tensor, weight: float | Tensor) -> Tensor:
        generator, w = self._of_m(m.shape).sqrt(), expand_sigma(weight, m)
        spectrum = self._filtered(m, generator * w / (1 + w * generator**2))  # z for this m
        return self._filtered(spectrum, generator)


WAYS: list[type] = [ByDenoiser, ByScore, ByEnergy, ByDensity, ByLatent]
WHITE = ByDenoiser(torch.ones(()))
