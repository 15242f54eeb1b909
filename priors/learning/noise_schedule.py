"""Noise levels: those a score model is trained with and those a sampler steps through."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def geometric_sigmas(minimum: float = 0.01, maximum: float = 1.0, steps: int = 1000) -> Tensor:
    r"""Noise levels at equal distances of their logarithm, largest first.

    Parameters
    ----------
    minimum, maximum : float
        Last and first noise level, 0 < minimum <= maximum; the defaults are those published for WKGM.
    steps : int
        Number of levels.

    Returns
    -------
    Tensor
        float64, shape (steps,); the maximum alone for a single step.

    Raises
    ------
    ValueError
        If the range or the number of steps is out of bounds.

    Notes
    -----
    The variance-exploding diffusion of Song et al., ICLR 2021: :math:`\sigma(t) = \sigma_{\min} (\sigma_{\max} /
    \sigma_{\min})^t`.
    """
    _check(minimum, maximum, steps)
    return torch.linspace(math.log(maximum), math.log(minimum), steps, dtype=torch.float64).exp()


@dataclass(frozen=True)
class LogNormalSigma:
    r"""Distribution of noise levels in training: ln sigma is normal, cut off at `deviations` standard deviations.

    Parameters
    ----------
    mean, std : float
        Mean and standard deviation of ln sigma; `std` above zero.
    deviations : float
        Where the distribution is cut off, in standard deviations, above zero.

    Raises
    ------
    ValueError
        If a value is out of range.

    Notes
    -----
    :math:`\ln \sigma \sim \mathcal N(m, s^2)` (Karras et al., NeurIPS 2022, table 1). The cut makes the range that a
    network was trained for a plain statement.
    """

    mean: float = -3.7
    std: float = 1.3
    deviations: float = 3.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.mean, self.std, self.deviations)):
            raise ValueError("noise levels: mean, std and deviations must be finite")
        if self.std <= 0 or self.deviations <= 0:
            raise ValueError(f"noise levels: std {self.std} and deviations {self.deviations} must be above zero")

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest noise level that is ever drawn."""
        reach = self.deviations * self.std
        return math.exp(self.mean - reach), math.exp(self.mean + reach)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels for a batch.

        Parameters
        ----------
        count : int
            Number of levels.
        generator : torch.Generator
            Source of randomness; its device is that of the result.

        Returns
        -------
        Tensor
            float32, shape (count,).

        Notes
        -----
        Stratified: one level from each of `count` equally probable intervals, in random order, so that the loss of
        a small batch does not hang on a few levels.
        """
        device = generator.device
        place = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
        order = torch.randperm(count, generator=generator, device=device)
        tail = 0.5 * math.erfc(self.deviations / math.sqrt(2))
        probability = tail + (1 - 2 * tail) * (order + place) / count
        return (self.mean + self.std * torch.special.ndtri(probability)).exp().float()


@dataclass(frozen=True)
class FixedSigmas:
    """A finite set of noise levels in training, all as often.

    Parameters
    ----------
    levels : tuple of float
        Noise levels above zero, ascending.
    """

    levels: tuple[float, ...]

    @classmethod
    def geometric(cls, lowest: float, highest: float, count: int) -> FixedSigmas:
        """Levels at equal distances of their logarithm. Raises ValueError where there are none."""
        return cls(tuple(geometric_sigmas(lowest, highest, count).flip(0).tolist()))

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels for a batch, float32 (count,); stratified, as those of `LogNormalSigma`."""
        device = generator.device
        place = torch.rand(count, generator=generator, device=device, dtype=torch.float64)
        order = torch.randperm(count, generator=generator, device=device)
        index = (len(self.levels) * (order + place) / count).long()
        return torch.tensor(self.levels, device=device)[index]


def _check(minimum: float, maximum: float, steps: int) -> None:
    if not (math.isfinite(minimum) and math.isfinite(maximum) and 0 < minimum <= maximum):
        raise ValueError(f"noise levels: range {minimum} to {maximum} is not 0 < minimum <= maximum")
    if steps < 1:
        raise ValueError(f"noise levels: {steps} steps; take one or more")
