"""What was measured, and the interface of every data step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from priors.domains import Domain
from priors.signal.encoding import replace_samples
from priors.signal.fourier import radial_frequency
from priors.signal.hankel import gram_matrix

KeepName = Literal["auto", "true", "false"]
DataWeightName = Literal["misfit", "likelihood"]

ACCEPTED_NOISE = 0.007  # noise of the data that images may keep, for images of maximum 0.6; 1.2 % of the signal
FEWEST_COILS = 3  # whose noise level is measured; that of fewer is an upper bound
RANK_THRESHOLD = 0.02  # singular values below this fraction of the largest one are left out
RING_WIDTH = 0.05  # of k-space in cycles per sample, in which the misfit of measured samples is averaged


@dataclass(frozen=True)
class Measurement:
    """What was measured of some slices, in the units of the prior.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space y, complex, shape (batch, coil, y, x), zero where not measured.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x).
    maps : Tensor or None
        Coil maps, complex, shape (batch, set, coil, y, x).
    noise : Tensor
        Standard deviation of the noise of k-space in each part, shape (batch,), above zero.
    """

    kspace: Tensor
    mask: Tensor
    maps: Tensor | None
    noise: Tensor


@dataclass(frozen=True)
class StepSettings:
    """How data steps weigh what was measured.

    Parameters
    ----------
    low_rank : bool
        Use the Hankel low rank of multi-coil k-space.
    keep_measured : {"auto", "true", "false"}
        Whether measured samples stand in the result as they were measured; see `ReconstructionSettings`.
    data_weight : {"misfit", "likelihood"}
        See `ReconstructionSettings`.
    window, rank : int
        Window and rank of the Hankel matrix; rank 0: from the singular values.
    growing_rank : bool
        Whether the rank grows over the steps.
    steps : int
        Calls of the data step that a sample makes.
    denoising : float
        Factor of the noise in the weight of the data, see `ReconstructionSettings`.
    weak_sets : float
        Fraction of a slice's energy below which the images of a set of coil maps are not left to the prior.
    """

    low_rank: bool
    keep_measured: KeepName
    data_weight: DataWeightName
    window: int
    rank: int
    growing_rank: bool
    steps: int
    denoising: float = 1.0
    weak_sets: float = 0.0


class DataStep(ABC):
    """Agreement of images with a measurement, one object a sample.

    Attributes
    ----------
    moved : bool
        Whether the last call changed what the images mean (other coil maps), so that their phase must be found again.
    """

    moved: bool = False

    @abstractmethod
    def begin(self) -> Tensor:
        """First estimate, complex images (batch, array, y, x)."""

    @abstractmethod
    def __call__(self, images: Tensor, variance: Tensor) -> Tensor:
        """Images that agree with the data.

        Parameters
        ----------
        images : Tensor
            Estimate of the prior, complex, shape (batch, array, y, x).
        variance : Tensor
            Variance of the prior's step in the units of its domain, shape () or (batch,).

        Returns
        -------
        Tensor
            Of the shape of `images`.
        """


class KspaceStep(DataStep):
    """A data step of multi-coil Cartesian k-space.

    Parameters
    ----------
    measured : Measurement
        K-space, mask, maps and noise.
    domain : Domain
        Domain of the prior, for its metric.
    settings : StepSettings
        How measured samples are weighted.

    Attributes
    ----------
    kspace : Tensor
        Coil k-space that the last call led to, (batch, coil, y, x).
    """

    kspace: Tensor

    def __init__(self, measured: Measurement, domain: Domain, settings: StepSettings) -> None:
        self._measured, self._mask, self._noise = measured.kspace, measured.mask, measured.noise
        self._settings = settings
        height, width = self._measured.shape[-2:]
        self._metric = domain.metric(height, width, self._measured.device)
        accepted = ACCEPTED_NOISE if self._measured.shape[1] >= FEWEST_COILS else math.inf
        self._accepted = accepted / settings.denoising
        self._step = 0
        self._last = self._measured, torch.zeros_like(self._mask, dtype=torch.float32)  # estimate and misfit

    @abstractmethod
    def zero_filled(self) -> Tensor:
        """Images of the measured samples alone, (batch, array, y, x), after `begin`."""

    @abstractmethod
    def image(self, kspace: Tensor) -> Tensor:
        """One image, (batch, y, x), that coil k-space stands for."""

    def prior_weight(self, variance: Tensor) -> Tensor:
        r"""Exact weight of the prior's estimate against the data, :math:`\sigma_y^2 g_k / \tau`.

        Parameters
        ----------
        variance : Tensor
            Variance of the prior's step, shape () or (batch,).

        Returns
        -------
        Tensor
            Of the samples k of an image's k-space, shape (batch, 1, 1, 1) or (batch, 1, y, x).
        """
        ratio = (self._settings.denoising * self._noise.double()) ** 2 / variance.to(self._noise.device)
        return ratio.float().reshape(-1, 1, 1, 1) * self._metric

    def weighted_kspace(self, accepted: float = 0.0) -> Tensor:
        """Coil k-space of the last step, measured samples weighted by that part of their noise that is not accepted."""
        kspace, misfit = self._last
        share = self._mask * measured_share(misfit, self._mask, self._noise, accepted, self._settings.denoising)
        return replace_samples(kspace, self._measured, share)

    def _insert_measured(self, kspace: Tensor, misfit: Tensor) -> None:
        """Take an estimate of k-space with the measured samples in it; `misfit` is that of `measured_share`."""
        self._last = kspace, misfit
        accepted = {"auto": self._accepted, "true": math.inf, "false": 0.0}[self._settings.keep_measured]
        kept = (self._noise <= accepted).reshape(-1, 1, 1, 1)
        replaced = replace_samples(kspace, self._measured, self._mask)
        self.kspace = replaced if bool(kept.all()) else torch.where(kept, replaced, self.weighted_kspace(accepted))

    def _ranks(self) -> list[int]:
        """As set, or for each slice the singular values above those of noise and a fraction of the largest one."""
        if self._settings.rank:
            return [self._settings.rank] * len(self.kspace)
        values = torch.linalg.eigvalsh(gram_matrix(self.kspace, self._settings.window)).clamp_min(0).sqrt()
        of_noise = self._noise.to(values) * math.sqrt(2 * self.kspace.shape[-2] * self.kspace.shape[-1])
        least = torch.maximum(RANK_THRESHOLD * values[:, -1:], of_noise[:, None])
        counts: list[int] = (values > least).sum(1).clamp_min(1).tolist()
        return counts


def measured_share(
    misfit: Tensor, mask: Tensor, noise: Tensor, accepted: float = 0.0, denoising: float = 1.0
) -> Tensor:
    r"""Weight of measured samples against those of an estimate, by the noise and by the misfit of the two.

    Parameters
    ----------
    misfit : Tensor
        Squared difference of data and estimate in each part, mean over the coils, shape (batch, 1, y, x), zero where
        not measured.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x).
    noise : Tensor
        Standard deviation of the noise of the data in each part, shape (batch,).
    accepted : float
        Noise that may stay; samples of less have weight 1.
    denoising : float
        Factor of the noise that counts.

    Returns
    -------
    Tensor
        From 0 to 1, shape (batch, 1, y, x).

    Notes
    -----
    :math:`e^2 / (e^2 + \sigma_y^2 - \sigma_0^2)` with the accepted noise :math:`\sigma_0` and the variance e^2 of
    the error of the estimate, which is the mean misfit in a ring of k-space less the noise (Wiener's filter).
    """
    height, width = mask.shape[-2:]
    ring = (radial_frequency(height, width, mask.device) * (1 / RING_WIDTH)).long().flatten()
    count = int(ring.max()) + 1
    shares = []
    for one, sampled, level in zip(misfit.flatten(1), mask.flatten(1), noise, strict=True):
        total = one.new_zeros(count).index_add_(0, ring, one * sampled)
        samples = one.new_zeros(count).index_add_(0, ring, sampled.to(one.dtype))
        error = (total / samples.clamp_min(1) - level**2).clamp_min(0)
        unwanted = denoising**2 * (level**2 - accepted**2).clamp_min(0)
        share = torch.where(unwanted > 0, error / (error + unwanted), 1)
        shares.append(share[ring].reshape(1, height, width))
    return torch.stack(shares)
