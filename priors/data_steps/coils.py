"""The calibrationless data step, coil by coil: measured samples in their places, with Hankel low rank or without."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.data_steps.step import KspaceStep
from priors.signal.encoding import replace_samples
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.hankel import low_rank_completion, low_rank_projection

FIRST_RANK = 0.5  # of the last one
FIRST_PROJECTIONS = 5  # of the first estimate


class CoilStep(KspaceStep):
    r"""Agreement of coil images with the data: Hankel low rank over the coils, then the measured samples.

    Parameters
    ----------
    measured : Measurement
        Without a look at its maps.
    domain : Domain
        Domain of the prior.
    settings : StepSettings
        With `low_rank` every estimate is projected, and the first one is completed by low rank.

    Notes
    -----
    :math:`k \mapsto P y + (1 - P) \, \mathcal L_r(k)` (Tu et al., NMR in Biomedicine 2022). The rank grows over
    few steps: what is aliasing at first would be taken for signal. With `data_weight` "likelihood" measured samples are
    :math:`(\tau y + \sigma_y^2 g k) / (\tau + \sigma_y^2 g)`, the exact proximal step.
    """

    def begin(self) -> Tensor:
        self.kspace = self._measured
        if self._settings.low_rank:
            ranks = [max(1, round(FIRST_RANK * rank)) for rank in self._ranks()]
            parts = zip(self._measured, self._mask, ranks, strict=True)
            window = self._settings.window
            completed = [low_rank_completion(y[None], p[None], window, r, FIRST_PROJECTIONS) for y, p, r in parts]
            self.kspace = torch.cat(completed)
        self.moved = True
        return ifft2c(self.kspace)

    def __call__(self, images: Tensor, variance: Tensor) -> Tensor:
        self._step += 1
        self.moved = False
        kspace = fft2c(images)
        if self._settings.low_rank:
            kspace = self._projected(kspace)
        misfit = (self._mask * (self._measured - kspace)).abs().square().mean(1, keepdim=True) / 2
        if self._settings.data_weight == "likelihood":
            self._last = kspace, misfit
            share = self._mask / (1 + self.prior_weight(variance))
            self.kspace = replace_samples(kspace, self._measured, share)
        else:
            self._insert_measured(kspace, misfit)
        return ifft2c(self.kspace)

    def _projected(self, kspace: Tensor) -> Tensor:
        ranks = self._ranks()
        if self._settings.growing_rank:
            done = min(self._step / self._settings.steps, 1.0)
            ranks = [max(1, round((FIRST_RANK + (1 - FIRST_RANK) * done) * rank)) for rank in ranks]
        window = self._settings.window
        return torch.cat([low_rank_projection(k[None], window, r) for k, r in zip(kspace, ranks, strict=True)])

    def zero_filled(self) -> Tensor:
        return ifft2c(self._measured)

    def image(self, kspace: Tensor) -> Tensor:
        coils = ifft2c(kspace)
        strongest = coils.abs().square().sum((2, 3)).argmax(1)
        return coils[torch.arange(len(coils), device=coils.device), strongest]
