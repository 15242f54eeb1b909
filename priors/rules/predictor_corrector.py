"""Predictor-corrector: reverse diffusion with Langevin correction, as WKGM and HKGM were published."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from priors.prior import Prior, expand_sigma
from priors.rules.rule import DataStep, Noise, Stop, check_levels


def predictor_corrector(
    prior: Prior,
    initial: Tensor,
    sigmas: Tensor,
    data_step: DataStep,
    noise: Noise,
    *,
    snr: float = 0.075,
    corrector_steps: int = 1,
    realisations: int = 3,
    stop: Stop | None = None,
) -> Tensor:
    r"""A posterior sample by reverse diffusion with Langevin correction.

    Parameters
    ----------
    prior : Prior
        Prior, by its score s.
    initial : Tensor
        First estimate without noise (zero, in the papers), shape (batch, ...).
    sigmas : Tensor
        Falling noise levels above zero, shape (steps,) or (steps, batch): `geometric_sigmas` with 1000 steps in the
        papers.
    data_step : callable
        Maps an array and the variance of the prior's step to an array that agrees with the data; called after every
        predictor and every corrector step and once at the end.
    noise : callable
        White noise of unit variance like an array.
    snr : float
        Signal-to-noise ratio of the Langevin step, zero or above.
    corrector_steps : int
        Langevin steps a level, zero or more.
    realisations : int
        Noise realisations of a Langevin step whose scores are averaged.
    stop : callable, optional
        Asked before every level but the first; the estimate at the level that was reached stands where it says True.

    Returns
    -------
    Tensor
        Sample, of the shape of `initial`.

    Raises
    ------
    ValueError
        If a parameter is out of bounds or the levels do not fall.

    Notes
    -----
    Predictor: :math:`m \leftarrow m + \delta s(m, \sigma_i) + \sqrt\delta z` with :math:`\delta = \sigma_i^2 -
    \sigma_{i+1}^2`. Corrector with R realisations: :math:`m \leftarrow m + \tfrac{\epsilon}{R} \sum_r s(m + \sqrt{2
    \epsilon} z_r, \sigma_{i+1}) + \sqrt{2 \epsilon / R} \sum_r z_r` and :math:`\epsilon = 2 (\mathrm{snr} \|z\| /
    \|s\|)^2`, with the expected norm of the noise, and for which the last score that was evaluated serves: a level
    costs 1 + R evaluations. The sum of the noises is scaled to the variance of one Langevin step, so that the
    distribution is the same for any R. At the end :math:`D(m, \sigma)` takes away the noise of the last level (Song et
    al., ICLR 2021, algorithms 2 and 4; Tu et al., NMR in Biomedicine 2022).
    """
    levels = check_levels(sigmas)
    if not (math.isfinite(snr) and snr >= 0) or corrector_steps < 0 or realisations < 1:
        raise ValueError(
            f"sampler: snr {snr} and corrector_steps {corrector_steps} must be 0 or more, realisations {realisations} "
            "1 or more"
        )
    state = initial + expand_sigma(levels[0], initial) * noise(initial)
    reached = levels[0]
    for index, (sigma, following) in enumerate(pairwise(levels)):
        if index and stop is not None and stop():
            break
        variance = sigma**2 - following**2
        score = prior.score(state, sigma)
        state = state + expand_sigma(variance, state) * score + expand_sigma(variance.sqrt(), state) * noise(state)
        state = data_step(state, variance)
        for _ in range(corrector_steps):
            state, score, step = _langevin(prior, state, score, following, snr, realisations, noise)
            state = data_step(state, step)
        reached = following
    return data_step(prior.denoise(state, reached), reached**2)


def _langevin(
    prior: Prior, state: Tensor, last_score: Tensor, sigma: Tensor, snr: float, realisations: int, noise: Noise
) -> tuple[Tensor, Tensor, Tensor]:
    """One Langevin step, the mean score of its realisations, and the step's variance (batch,)."""
    noises = [noise(state) for _ in range(realisations)]
    expected = math.sqrt((2 if state.is_complex() else 1) * state[0].numel())
    norm = torch.linalg.vector_norm(last_score.flatten(1), dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    # The curvature of a log density with noise is at most 1 / sigma^2: larger steps are not stable for every prior,
    # and a score that vanishes would make the step endless.
    step = torch.minimum(2 * (snr * expected / norm) ** 2, sigma.to(norm) ** 2)
    size = expand_sigma(step, state)
    width = (2 * size).sqrt()
    score = torch.zeros_like(state)
    for one in noises:
        score = score + prior.score(state + width * one, sigma) / realisations
    total = torch.stack(noises).sum(0) / math.sqrt(realisations)
    return state + size * score + width * total, score, step
