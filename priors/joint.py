"""Several priors as one: the product of their densities, each to the power of its weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from priors.domains import Domain, WaveletDomain
from priors.prior import Prior, SigmaLevels, expand_sigma
from priors.signal.fourier import fft2c, ifft2c

# Of the values of the Haar transform of images of maximum 1: 2 / (mean magnitude), 67 for the details of public T2
# heads, over the four values that the transform has a pixel.
DETAIL_RATE = 17.0


class JointDomain(Domain):
    r"""Arrays of several domains behind each other, :math:`m = (\sqrt{w_i} W_i x)_i`, shape (..., band, y, x).

    Parameters
    ----------
    domains : sequence of Domain
        Domains W_i.
    weights : sequence of float
        Weights w_i, above zero.

    Notes
    -----
    Its metric is :math:`g = \sum_i w_i g_i`, and `decode` the pseudo-inverse :math:`F^H g^{-1} \sum_i w_i g_i F x_i` of
    the images x_i of the parts.
    """

    def __init__(self, domains: Sequence[Domain], weights: Sequence[float]) -> None:
        self._domains, self._weights = tuple(domains), tuple(weights)
        pixel = torch.zeros(2, 2, dtype=torch.complex64)
        self._has_axis = [domain.encode(pixel).ndim > pixel.ndim for domain in domains]

    @property
    def bands(self) -> int:
        """Those of all domains."""
        return sum(domain.bands for domain in self._domains)

    def encode(self, images: Tensor) -> Tensor:
        """Arrays of complex images (..., y, x)."""
        return self.joined([domain.encode(images) for domain in self._domains])

    def decode(self, m: Tensor, images: Tensor) -> Tensor:
        """Images of all parts, averaged by weight and metric; see `Domain.decode`."""
        height, width = m.shape[-2:]
        metrics = [domain.metric(height, width, m.device) for domain in self._domains]
        decoded = [domain.decode(part, images) for domain, part in zip(self._domains, self.parts(m), strict=True)]
        plain = all(metric.ndim == 0 for metric in metrics)
        total = self.metric(height, width, m.device)
        own = torch.zeros_like(images)
        for weight, metric, image in zip(self._weights, metrics, decoded, strict=True):
            own = own + weight * metric * (image if plain else fft2c(image))
        if plain:
            return own / total
        seen = total > 0
        return ifft2c(torch.where(seen, own / torch.where(seen, total, 1), fft2c(images)))

    def metric(self, height: int, width: int, device: torch.device) -> Tensor:
        """Sum of the weighted metrics."""
        metrics = [domain.metric(height, width, device) for domain in self._domains]
        return sum((w * g for w, g in zip(self._weights, metrics, strict=True)), torch.zeros((), device=device))

    def symmetric(self, m: Tensor, kind: int, back: bool = False) -> Tensor:
        """See `Domain.symmetric`; each part by its own domain, those without symmetries as they are."""
        if m.shape[-2] != m.shape[-1] and any(type(one).symmetric is Domain.symmetric for one in self._domains):
            kind = kind // 2 * 2  # all parts keep their shape
        parts = zip(self._domains, self.parts(m), strict=True)
        return self.joined([domain.symmetric(part, kind, back) for domain, part in parts])

    def noise(self, draw: Callable[[Tensor], Tensor], m: Tensor) -> Tensor:
        """Noise that an image could have: what it does in one part it does in all; see `Domain.noise`."""
        images = draw(m[..., 0, :, :])
        metric = self.metric(m.shape[-2], m.shape[-1], m.device)
        seen = metric > 0
        factor = torch.where(seen, torch.where(seen, metric, 1).rsqrt(), 0)
        return self.encode(factor * images if metric.ndim == 0 else ifft2c(factor * fft2c(images)))

    def parts(self, m: Tensor) -> list[Tensor]:
        """The domains' own arrays W_i x of arrays m."""
        split = m.split([domain.bands for domain in self._domains], dim=-3)
        return [
            (part if axis else part.squeeze(-3)) / weight**0.5
            for part, axis, weight in zip(split, self._has_axis, self._weights, strict=True)
        ]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Arrays m of the domains' own arrays."""
        given = zip(parts, self._has_axis, self._weights, strict=True)
        return torch.cat([weight**0.5 * (part if axis else part.unsqueeze(-3)) for part, axis, weight in given], dim=-3)


class JointPrior(Prior):
    r"""The product :math:`\prod_i p_i(W_i x)^{w_i}` of priors, with weights that add up to 1.

    Parameters
    ----------
    members : sequence of (float, Prior)
        Weights, above zero and divided by their sum, and priors; two or more.

    Raises
    ------
    ValueError
        If there are fewer, a weight is not above zero, the priors have no noise level in common, or they see images
        without their low-resolution phase and disagree on its width.

    Notes
    -----
    On the arrays of `JointDomain` the density is :math:`\prod_i p_i(m_i / \sqrt{w_i})^{w_i}`, so that denoiser and
    proximal step are those of the members, :math:`\sqrt{w_i} D_i(m_i / \sqrt{w_i}, \sigma)`, with no approximation:
    the proximal rule ends at the maximum of the product and the data (consensus ADMM, Boyd et al., 2011), the others
    at that of the product of the members' densities smoothed by :math:`\sigma`, a level of each member's own domain.
    """

    def __init__(self, members: Sequence[tuple[float, Prior]]) -> None:
        weights = [float(weight) for weight, _ in members]
        if len(members) < 2 or not all(0 < weight < float("inf") for weight in weights):
            raise ValueError("a list of priors has two or more, with finite weights above zero")
        self.members = tuple(prior for _, prior in members)
        self.weights = tuple(weight / sum(weights) for weight in weights)
        self._joint = JointDomain([prior.domain for prior in self.members], self.weights)
        self.domain = self._joint
        self.sigma_levels = common_levels([prior.sigma_levels for prior in self.members])
        widths = {prior.phase_width for prior in self.members if prior.sees_phase}
        if len(widths) > 1:
            raise ValueError(
                "priors of a list must see images without the same low-resolution phase; these take it from windows of "
                f"{' and '.join(map(str, sorted(widths)))} samples (0: they see it)"
            )
        self.phase_width = widths.pop() if widths else 0

    def denoise(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        """Each part by its own prior, at the nearest of its levels; see `Prior.denoise`."""
        level = torch.as_tensor(sigma, dtype=torch.float32, device=m.device)
        parts = zip(self.members, self._joint.parts(m), strict=True)
        return self._joint.joined([prior.denoise(part, prior.sigma_levels.nearest(level)) for prior, part in parts])

    def prox(self, m: Tensor, weight: float | Tensor) -> Tensor:
        """Each part by its own prior; see `Prior.prox`."""
        parts = zip(self.members, self._joint.parts(m), strict=True)
        return self._joint.joined([prior.prox(part, weight) for prior, part in parts])

    def log_prior(self, m: Tensor) -> Tensor | None:
        """Weighted sum of the members' log densities; None where one is not known."""
        found = [prior.log_prior(part) for prior, part in zip(self.members, self._joint.parts(m), strict=True)]
        total = torch.zeros(len(m), device=m.device)
        for weight, one in zip(self.weights, found, strict=True):
            if one is None:
                return None
            total = total + weight * one
        return total

    def each(self) -> tuple[Prior, ...]:
        """The members."""
        return self.members

    def begin_scan(self, measurement: Any) -> JointPrior:
        """With every member as it is for the scan."""
        return self._with([prior.begin_scan(measurement) for prior in self.members])

    def to(self, device: torch.device) -> JointPrior:
        """With every member moved to a device."""
        return self._with([prior.to(device) for prior in self.members])

    def _with(self, members: Sequence[Prior]) -> JointPrior:
        return JointPrior(list(zip(self.weights, members, strict=True)))


def common_levels(levels: Sequence[SigmaLevels]) -> SigmaLevels:
    """Noise levels at which all of some priors can be asked.

    Returns
    -------
    SigmaLevels
        None where one prior knows none; the levels of a finite set within all ranges; else the range that all have.

    Raises
    ------
    ValueError
        If there are none in common.
    """
    if not all(levels):
        return SigmaLevels()
    low, high = max(one.lowest for one in levels), min(one.highest for one in levels)
    finite = [one.values for one in levels if not one.continuous]
    values = [value for value in finite[0] if low <= value <= high] if finite else []
    if (finite and (not values or len(set(finite)) > 1)) or (not finite and low >= high):
        texts = " and ".join(
            f"{one.lowest:.3g} to {one.highest:.3g}" if one.continuous else ", ".join(f"{v:.3g}" for v in one.values)
            for one in levels
        )
        raise ValueError(f"priors of a list must know common noise levels; these know {texts}")
    return SigmaLevels(tuple(values)) if finite else SigmaLevels((low, high), True)


@dataclass(frozen=True)
class HaarSparsity(Prior):
    r"""Few details: :math:`p(x) \propto \exp(-\lambda \sum |d|)` of the details d of the undecimated Haar transform.

    Parameters
    ----------
    rate : float
        Rate :math:`\lambda`.

    Notes
    -----
    The proximal step of weight w is the soft threshold :math:`\lambda / w`. It stands for the denoiser at
    :math:`\sigma = w^{-1/2}`: the score is that of the density's Moreau envelope (Durmus et al., SIAM J. Imaging Sci.
    2018).
    """

    rate: float = DETAIL_RATE
    domain = WaveletDomain()
    sigma_levels = SigmaLevels((1e-4, 1e2), True)
    sees_phase = False

    def denoise(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        """The proximal step of weight 1 / sigma^2; see `Prior.denoise`."""
        threshold = self.rate * expand_sigma(sigma, m) ** 2
        magnitude = m.abs()
        factor = (magnitude - threshold).clamp_min(0) / magnitude.clamp_min(torch.finfo(magnitude.dtype).tiny)
        return torch.cat([m[..., :1, :, :], (factor * m)[..., 1:, :, :]], dim=-3)

    def log_prior(self, m: Tensor) -> Tensor:
        """Log density up to a constant, shape (batch,)."""
        return -self.rate * m[..., 1:, :, :].abs().flatten(1).sum(1)
