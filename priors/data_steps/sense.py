"""The SENSE data step: coil maps, one or more sets, taken anew from the estimate where low rank is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.classical.cg_sense import cg_sense
from priors.data_steps.step import KspaceStep, Measurement, StepSettings
from priors.domains import Domain
from priors.signal.encoding import SenseOperator, replace_samples, sense_proximal
from priors.signal.espirit import low_rank_maps
from priors.signal.fourier import fft2c, ifft2c

PRIOR_WEIGHT = 2.0  # of the estimate, in units of the weight that its misfit to the data gives it; more for noisy data
SET_ENERGY = 1e-4  # fraction of a slice's energy below which a set of maps is left out
SMALLEST_ERROR = 0.5  # of the estimate in units of the noise of the data, whatever the misfit says
CG_ITERATIONS = 4  # of the proximal step, which begins at the estimate
EXACT_CG_ITERATIONS, EXACT_CG_TOLERANCE = 50, 1e-6


class SenseStep(KspaceStep):
    r"""Agreement of coil-combined images with the data by the SENSE proximal step.

    Parameters
    ----------
    measured : Measurement
        With maps.
    domain : Domain
        Domain of the prior.
    settings : StepSettings
        All but `growing_rank`.

    Notes
    -----
    :math:`x = \arg\min_x \|P F S x - y\|_2^2 + \lambda \|x - x_0\|_2^2` with the estimate x_0 of the prior. With
    `data_weight` "likelihood" :math:`\lambda = \sigma_y^2 g / \tau`, a weight of each sample of k-space, which makes
    it the exact proximal step of the data's log likelihood. With "misfit" :math:`\lambda = 2 \sigma_y^2 / e^2`: the
    noise of the data against the misfit e of the estimate to them, measured anew in every step. With `low_rank` the
    maps are taken anew, after a quarter and half of the steps, from the low-rank space of the Hankel matrix of all of
    the estimated k-space, which knows them better than the calibration region. Images of further sets whose energy is
    below `weak_sets` of the slice's are not the prior's: x_0 is zero for them, and only the others come and go.
    """

    def __init__(self, measured: Measurement, domain: Domain, settings: StepSettings) -> None:
        super().__init__(measured, domain, settings)
        assert measured.maps is not None
        steps = settings.steps
        self._needed: Tensor | None = None  # map sets that each slice has, (batch, set, 1, 1)
        self._of_prior: Tensor | None = None  # those of them that the prior estimates, (batch, strong set, 1, 1)
        self._refresh = {steps // 4, steps // 2} - {0} if settings.low_rank else set()
        self._use(measured.maps)

    def begin(self) -> Tensor:
        maps = self._operator.maps
        images = cg_sense(self._measured, maps, self._mask, regularisation=1e-3, iterations=10)
        energy = images.abs().square().sum((2, 3))
        needed = _leading(energy >= SET_ENERGY * energy.sum(1, keepdim=True))
        weak = max(self._settings.weak_sets, SET_ENERGY)
        self._of_prior = _leading(energy >= weak * energy.sum(1, keepdim=True))
        kept = needed.shape[1]
        images = images[:, :kept] if bool(needed.all()) else images[:, :kept] * needed
        self._needed = needed
        self._use(maps[:, :kept])
        self.kspace = replace_samples(self._coils(images), self._measured, self._mask)
        self.moved = True
        return self._strong(self._combine(self.kspace))

    def __call__(self, images: Tensor, variance: Tensor) -> Tensor:
        self._step += 1
        images = self._all_sets(images)
        if self._settings.data_weight == "likelihood":
            weight = self.prior_weight(variance)
            images = sense_proximal(
                self._operator, self._measured, images, weight, EXACT_CG_ITERATIONS, EXACT_CG_TOLERANCE
            )
            self.kspace = self._coils(images)
            self._last = self.kspace, self._last[1]
        else:
            self._by_misfit(images)
        self.moved = self._step in self._refresh
        if self.moved:
            sets = self._operator.maps.shape[1]
            maps = [
                low_rank_maps(one[None], self._settings.window, rank, sets=sets)
                for one, rank in zip(self.kspace, self._ranks(), strict=True)
            ]
            self._use(torch.cat(maps))
        elif self._settings.data_weight == "likelihood":
            return self._strong(images)
        return self._strong(self._combine(self.kspace))

    def _by_misfit(self, images: Tensor) -> None:
        misfit = (self._measured - self._mask * self._coils(images)).abs().square().sum(1, keepdim=True) / 2
        coils = self._measured.shape[1]
        # An error of variance e^2 a pixel is one of e^2 / coils a sample: the maps share it out.
        error = (misfit.sum((1, 2, 3)) / self._mask.sum((1, 2, 3)).clamp_min(1)) - coils * self._noise**2
        factor = PRIOR_WEIGHT * (self._noise / self._accepted).clamp_min(1)
        weight = (
            factor
            * (self._settings.denoising * self._noise) ** 2
            / torch.maximum(error, (SMALLEST_ERROR * self._noise) ** 2)
        )
        images = sense_proximal(self._operator, self._measured, images, weight, CG_ITERATIONS)
        self._insert_measured(self._coils(images), misfit / coils)

    def zero_filled(self) -> Tensor:
        return self._strong(self._combine(self._measured))

    def image(self, kspace: Tensor) -> Tensor:
        return self._combine(kspace)[:, 0]

    def _strong(self, images: Tensor) -> Tensor:
        """Images (batch, set, y, x) that the prior estimates, zero where a slice has fewer than its neighbours."""
        if self._of_prior is None:
            return images
        images = images[:, : self._of_prior.shape[1]]
        return images if bool(self._of_prior.all()) else images * self._of_prior

    def _all_sets(self, images: Tensor) -> Tensor:
        """Images of all sets, zero for those that the prior does not estimate."""
        batch, strong, height, width = images.shape
        if self._of_prior is not None and not bool(self._of_prior.all()):
            images = images * self._of_prior
        others = self._operator.maps.shape[1] - strong
        return torch.cat((images, images.new_zeros(batch, others, height, width)), 1) if others else images

    def _use(self, maps: Tensor) -> None:
        if self._needed is not None and not bool(self._needed.all()):
            maps = maps * self._needed[:, :, None]
        self._operator = SenseOperator(maps, self._mask)

    def _coils(self, images: Tensor) -> Tensor:
        """Coil k-space (batch, coil, y, x) of images (batch, set, y, x)."""
        return fft2c((self._operator.maps * images.unsqueeze(2)).sum(1))

    def _combine(self, kspace: Tensor) -> Tensor:
        """Images (batch, set, y, x) of coil k-space."""
        return (self._operator.maps.conj() * ifft2c(kspace).unsqueeze(1)).sum(2)


def _leading(used: Tensor) -> Tensor:
    """Sets up to the last used one of each slice (batch, set), as bool (batch, set of any slice, 1, 1)."""
    last = torch.where(used, torch.arange(used.shape[1], device=used.device), 0).amax(1, keepdim=True)
    return (torch.arange(int(last.max()) + 1, device=used.device) <= last)[:, :, None, None]
