"""The interface of every prior, and the bridges between the ways in which a prior can be given."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from priors.domains import Domain, ImageDomain


def expand_sigma(sigma: float | Tensor, array: Tensor) -> Tensor:
    """Noise level as a real tensor that broadcasts against a batch.

    Parameters
    ----------
    sigma : float or Tensor
        One noise level, or one for each entry of the batch, shape (batch,).
    array : Tensor
        Array of shape (batch, ...), real or complex.

    Returns
    -------
    Tensor
        Shape () or (batch, 1, ...), on the device of the array and of its real precision.

    Raises
    ------
    ValueError
        If `sigma` is neither one value nor one a batch entry.
    """
    level = torch.as_tensor(sigma, dtype=array.real.dtype, device=array.device)
    if level.numel() == 1:
        return level.reshape(())
    if level.shape != array.shape[:1]:
        raise ValueError(f"sigma: shape {tuple(level.shape)} is neither one value nor ({array.shape[0]},), one a batch")
    return level.reshape(-1, *[1] * (array.ndim - 1))


def expand_mask(mask: Tensor, array: Tensor) -> Tensor:
    """Bool values (batch,) that broadcast against an array (batch, ...)."""
    return mask.reshape(-1, *[1] * (array.ndim - 1))


@dataclass(frozen=True)
class SigmaLevels:
    """Noise levels at which a prior can be asked.

    Parameters
    ----------
    values : tuple of float
        Lowest and highest level of a continuous range; or the levels of a finite set, ascending; or nothing, for a
        density that knows no noise.
    continuous : bool
        Whether the values are the ends of a range.

    Raises
    ------
    ValueError
        If the values do not ascend from above zero.
    """

    values: tuple[float, ...] = ()
    continuous: bool = False

    def __post_init__(self) -> None:
        steps = zip((0.0, *self.values), (*self.values, math.inf), strict=True)
        if not all(low < high for low, high in steps) or (self.continuous and len(self.values) != 2):
            raise ValueError(f"prior: noise levels {self.values} do not ascend from above zero (a range has two)")

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def lowest(self) -> float:
        """Lowest level; 0 without levels."""
        return self.values[0] if self.values else 0.0

    @property
    def highest(self) -> float:
        """Highest level; infinite without levels."""
        return self.values[-1] if self.values else math.inf

    def nearest(self, sigma: Tensor) -> Tensor:
        """The nearest levels of a finite set on a logarithmic scale, as a DAE trained at a few levels is asked.

        Parameters
        ----------
        sigma : Tensor
            Noise levels above zero, any shape.

        Returns
        -------
        Tensor
            Of the shape of `sigma`; `sigma` itself for a continuous range or without levels.
        """
        if self.continuous or not self.values:
            return sigma
        levels = torch.tensor(self.values, dtype=sigma.dtype, device=sigma.device)
        return levels[(sigma.log()[..., None] - levels.log()).abs().argmin(-1)]

    def check(self, sigmas: Tensor) -> None:
        """Raise ValueError where a level of a schedule, of any shape, is outside the range."""
        least, most = float(sigmas.min()), float(sigmas.max())
        if self.values and not (0.999 * self.lowest <= least and most <= 1.001 * self.highest):
            raise ValueError(
                f"noise levels: {least:.3g} to {most:.3g} leave the range {self.lowest:.3g} to {self.highest:.3g} of "
                "the prior; give sigma_max and sigma_min within it"
            )


class Prior:
    r"""A density of images, known in one of several ways.

    A prior works on arrays m of its own domain, :math:`m = W x` for images x of maximum 1 (see `priors.domains`). It
    overrides one of `denoise`, `score`, `log_prior` (with `EnergyPrior` or `DensityPrior`) and `prox` (with
    `LatentPrior`); the others follow from it.

    Attributes
    ----------
    domain : Domain
        Where the prior works.
    sigma_levels : SigmaLevels
        Noise levels, in each of the real and imaginary parts of m, at which it can be asked.
    phase_width : int
        Width of the k-space window whose low-resolution phase is taken from images before the prior sees them;
        0: none.
    sees_phase : bool
        Whether images of another phase are others to it; False: it takes `phase_width` of any other prior of a list.
    typical_gain : tuple of float, optional
        Range of `denoising_gain` (see `priors.typicality`) of images like those of the training.
    scale_free : bool
        Whether the central half of an array's k-space along y and x is an array of the same density; at high noise
        levels, reconstructions then show it the central half alone, in a quarter of the time.

    Notes
    -----
    Bridges: Tweedie, :math:`D(m, \sigma) = m + \sigma^2 \nabla \log p_\sigma(m)` (Vincent, Neural Computation 2011);
    :math:`\mathrm{prox}_w(m) = D(m, w^{-1/2})`, exact where :math:`\log p` is quadratic (Venkatakrishnan et al., IEEE
    GlobalSIP 2013).
    """

    domain: Domain = ImageDomain()
    sigma_levels: SigmaLevels = SigmaLevels()
    phase_width: int = 0
    sees_phase: bool = True
    typical_gain: tuple[float, float] | None = None
    scale_free: bool = False

    def denoise(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoised estimate D(m, sigma) of an array with additive white Gaussian noise.

        Parameters
        ----------
        m : Tensor
            Array of the domain, complex, shape (batch, ..., y, x).
        sigma : float or Tensor
            Standard deviation of the noise in each of the real and imaginary parts: one value or one for each batch
            entry.

        Returns
        -------
        Tensor
            Array of the shape and type of `m`.
        """
        return m + expand_sigma(sigma, m) ** 2 * self.score(m, sigma)

    def score(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        """Gradient of the log density of noisy arrays; arguments and result as of `denoise`, sigma above zero."""
        return (self.denoise(m, sigma) - m) / expand_sigma(sigma, m) ** 2

    def log_prior(self, m: Tensor) -> Tensor | None:
        """Log density of arrays up to a constant, real, shape (batch,); None where the prior does not know it."""
        return None

    def prox(self, m: Tensor, weight: float | Tensor) -> Tensor:
        r"""Proximal step :math:`\arg\min_u \tfrac w2 \|u - m\|^2 - \log p(u)`.

        Parameters
        ----------
        m : Tensor
            Array of the domain, complex, shape (batch, ..., y, x).
        weight : float or Tensor
            Weight w, above zero: one value or one for each batch entry.

        Returns
        -------
        Tensor
            Array of the shape and type of `m`.
        """
        return self.denoise(m, torch.as_tensor(weight) ** -0.5)

    def begin_scan(self, measurement: Any) -> Prior:
        """The prior for one scan: itself, or a copy with a state of the scan (a latent's start, one-shot weights).

        The gadget calls it once a scan, with the first slices that come, and reconstructs all with what it returns;
        `priors.reconstruct.reconstruct` does not call it.

        Parameters
        ----------
        measurement : priors.data_steps.step.Measurement
            K-space, mask, maps and noise of these slices. The prior that is asked stays as it is.
        """
        return self

    def each(self) -> tuple[Prior, ...]:
        """The priors that it is made of: itself, or the members of a list."""
        return (self,)

    def to(self, device: torch.device) -> Prior:
        """The prior on a device; a prior with tensors or networks moves them."""
        return self


def check_prior(prior: Prior) -> None:
    """Raise ValueError where a prior says nothing in any of the ways."""
    ways = ("denoise", "score", "prox", "log_prior", "energy")
    if all(getattr(type(prior), way, None) is getattr(Prior, way, None) for way in ways):
        raise ValueError(f"{type(prior).__name__}: a prior overrides denoise, score, energy, log_prior or prox")


class EnergyPrior(Prior, ABC):
    r"""A prior given by an energy at each noise level, :math:`p_\sigma(m) \propto e^{-E(m, \sigma)}`."""

    @abstractmethod
    def energy(self, m: Tensor, sigma: Tensor) -> Tensor:
        """Energy of arrays m (batch, ..., y, x) at levels that broadcast to m, shape (batch,); differentiable."""

    def score(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        """Minus the gradient of the energy, by automatic differentiation; see `Prior.score`."""
        level = expand_sigma(sigma, m)
        return -_gradient(lambda array: self.energy(array, level), m)

    def log_prior(self, m: Tensor) -> Tensor | None:
        """Minus the energy at the lowest noise level, up to a constant, shape (batch,)."""
        with torch.no_grad():
            return -self.energy(m, expand_sigma(self.sigma_levels.lowest, m))


class DensityPrior(Prior, ABC):
    r"""A prior given by a differentiable log density that knows no noise level.

    Attributes
    ----------
    sigma_0 : float
        Standard deviation of the noise that the density was trained with, in each part; 0: none.
    inner_steps : int
        Gradient steps of a proximal step.

    Notes
    -----
    The density is one of noisy images, so :math:`D(m, \sigma_0) = m + \sigma_0^2 \nabla \log p(m)` is exact. At any
    other level `denoise` is the proximal step of weight :math:`\sigma^{-2}` by gradient descent with steps of Barzilai
    and Borwein (IMA J. Numer. Anal. 1988), none of which makes it worse. `sigma_levels` stays empty: it is no score at
    each noise level, and rules that need one refuse it.
    """

    sigma_0: float = 0.0
    inner_steps: int = 10

    @abstractmethod
    def log_prior(self, m: Tensor) -> Tensor:
        """Log density of arrays (batch, ..., y, x) up to a constant, shape (batch,); differentiable."""

    def score(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        """Gradient of the log density, whatever the noise level."""
        return _gradient(self.log_prior, m)

    def denoise(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        """Tweedie's formula at `sigma_0`, else the proximal step; see `Prior.denoise`."""
        level = expand_sigma(sigma, m)
        known = (level == self.sigma_0) if self.sigma_0 else torch.zeros_like(level, dtype=torch.bool)
        if bool(known.all()):
            return m + self.sigma_0**2 * self.score(m, self.sigma_0)
        found = self.prox(m, level.flatten() ** -2)
        if not bool(known.any()):
            return found
        return torch.where(known, m + self.sigma_0**2 * self.score(m, self.sigma_0), found)

    def prox(self, m: Tensor, weight: float | Tensor) -> Tensor:
        """Proximal step by gradient descent; see `Prior.prox`."""
        w = expand_sigma(weight, m)
        u, value, gradient = m, self._objective(m, m, w), -self.score(m, 0.0)
        rate = torch.broadcast_to((0.5 / w).flatten(), (len(m),)).clone()
        for _ in range(self.inner_steps):
            candidate = u - expand_sigma(rate, m) * gradient
            after = self._objective(candidate, m, w)
            better = after <= value
            moved = torch.where(expand_mask(better, m), candidate - u, 0)
            u, value = u + moved, torch.where(better, after, value)
            change = w * (u - m) - self.score(u, 0.0) - gradient
            gradient = gradient + change
            top = moved.abs().square().flatten(1).sum(1)
            bottom = (moved.conj() * change).real.flatten(1).sum(1)
            # A step that makes it worse is taken back, and a quarter of it tried; else Barzilai and Borwein's.
            longer = torch.where(bottom > 0, top / bottom.clamp_min(torch.finfo(bottom.dtype).tiny), 2 * rate)
            rate = torch.where(better, longer, 0.25 * rate)
        return u

    def _objective(self, u: Tensor, m: Tensor, w: Tensor) -> Tensor:
        """What the proximal step minimises, of each batch entry."""
        with torch.no_grad():
            distance = (w * (u - m).abs().square()).flatten(1).sum(1)
            return 0.5 * distance - self.log_prior(u)


class LatentPrior(Prior, ABC):
    """A prior given by a proximal step, which optimises a latent variable (VAE, GAN, flow); `denoise` is that step."""

    @abstractmethod
    def prox(self, m: Tensor, weight: float | Tensor) -> Tensor:
        """Proximal step; see `Prior.prox`."""

    def denoise(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        """The proximal step of weight 1 / sigma^2; see `Prior.denoise`."""
        return self.prox(m, expand_sigma(sigma, m).flatten() ** -2)


def _gradient(function: Any, m: Tensor) -> Tensor:
    """Gradient of a function of arrays to (batch,) with respect to the real and imaginary parts, as a complex array."""
    with torch.inference_mode(False), torch.enable_grad():
        array = m.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(array).sum(), array)
    return gradient.detach()
