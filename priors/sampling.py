"""Samplers of the posterior of any prior: the papers' predictor-corrector and one of few steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from priors.prior import Prior

DataConsistency = Callable[[Tensor, float], Tensor]


def few_step(
    prior: Prior,
    initial: Tensor,
    sigmas: Tensor,
    data_consistency: DataConsistency,
    *,
    retained: float = 0.0,
    injected: float = 0.0,
    second_order: bool = False,
    samples: int = 1,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
) -> Tensor:
    r"""Posterior samples, or an estimate of the mode, with one evaluation of the prior a step.

    Parameters
    ----------
    prior : Prior
        Denoiser D.
    initial : Tensor
        First estimate without noise, shape (batch, ...).
    sigmas : Tensor
        Falling noise levels above zero, shape (steps,); as many evaluations of the prior a sample.
    data_consistency : callable
        Maps a denoised estimate and its noise level to one that agrees with the data, C(m, sigma). It is called with
        one sample, of the shape of `initial`.
    retained : float
        Fraction of the estimated noise that is carried to the next level, 0 to 1.
    injected : float
        Fresh noise as a fraction of the next level, 0 to 1; `retained`² + `injected`² must not be above 1.
    second_order : bool
        Extrapolate the estimate from the last two steps (no more evaluations): far nearer to the exact path of
        `retained` = 1 for the same number of steps.
    samples : int
        Number of samples.
    seed : int
        Seed of the first sample; sample i is that of seed + i.
    stop : callable, optional
        Asked before every step but a sample's first; the estimate of the last step stands where it says True, and
        samples that are not yet begun are left out.

    Returns
    -------
    Tensor
        Samples, shape (samples, batch, ...); fewer than asked for, but never none, after a stop.

    Raises
    ------
    ValueError
        If a parameter is out of bounds or the levels do not fall.

    Notes
    -----
    With :math:`d_i = C(D(m_i, \sigma_i), \sigma_i)`: :math:`m_{i+1} = d_i + a \tfrac{\sigma_{i+1}}{\sigma_i} (m_i -
    d_i) + b \sigma_{i+1} n`, a retained and b injected, started from `initial` with noise of level :math:`\sigma_0
    \sqrt{a^2 + b^2}`; the result is the last d. (a, b) = (1, 0) is the deterministic sampler of a diffusion (Song et
    al., ICLR 2021, DDIM), with `second_order` that of Lu et al., 2022 (DPM-Solver++ 2M); :math:`a^2 + b^2 = 1` its
    noisy kin (b = 1: all noise anew); (0, 0), the default, adds no noise and looks for the most likely array (plug
    and play). The samples are exact, in the limit of many steps, where C(D(m, sigma), sigma) is the mean of the clean
    array given m and the data.
    """
    levels = _check(sigmas, samples)
    if not (0 <= retained <= 1 and 0 <= injected <= 1 and retained**2 + injected**2 <= 1 + 1e-6):
        raise ValueError(f"sampler: retained {retained} and injected {injected}; 0 to 1, sum of squares not above 1")
    results: list[Tensor] = []
    for generator in _generators(samples, seed, initial.device):
        if results and stop is not None and stop():
            break
        state = initial + levels[0] * math.hypot(retained, injected) * _white_noise(initial, generator)
        previous: Tensor | None = None
        estimate = initial
        for index, sigma in enumerate(levels):
            if index and stop is not None and stop():
                break
            estimate = data_consistency(prior.denoise(state, sigma), sigma)
            if index + 1 == len(levels):
                break
            following, target = levels[index + 1], estimate
            if second_order and previous is not None:
                ratio = math.log(sigma / following) / math.log(levels[index - 1] / sigma)
                target = estimate + 0.5 * ratio * (estimate - previous)
            previous = estimate
            state = torch.lerp(target, state, retained * following / sigma) if retained else target
            if injected:
                state = state + injected * following * _white_noise(initial, generator)
        results.append(estimate)
    return torch.stack(results)


def predictor_corrector(
    prior: Prior,
    initial: Tensor,
    sigmas: Tensor,
    data_consistency: DataConsistency,
    *,
    snr: float = 0.075,
    corrector_steps: int = 1,
    realisations: int = 3,
    samples: int = 1,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
) -> Tensor:
    r"""Posterior samples by reverse diffusion with Langevin correction, as WKGM and HKGM were published.

    Parameters
    ----------
    prior : Prior
        Prior, by its score s.
    initial : Tensor
        First estimate without noise (zero, in the papers), shape (batch, ...).
    sigmas : Tensor
        Falling noise levels above zero, shape (steps,): `geometric_sigmas` with 1000 steps in the papers.
    data_consistency : callable
        Maps a noisy array and its noise level to one that agrees with the data; called after every predictor and every
        corrector step and once at the end, with one sample, of the shape of `initial`.
    snr : float
        Signal-to-noise ratio of the Langevin step, zero or above.
    corrector_steps : int
        Langevin steps a level, zero or more.
    realisations : int
        Noise realisations of a Langevin step whose scores are averaged.
    samples : int
        Number of samples.
    seed : int
        Seed of the first sample; sample i is that of seed + i.
    stop : callable, optional
        Asked before every level but a sample's first; the estimate at the level that was reached stands where it says
        True, and samples that are not yet begun are left out.

    Returns
    -------
    Tensor
        Samples, shape (samples, batch, ...); fewer than asked for, but never none, after a stop.

    Raises
    ------
    ValueError
        If a parameter is out of bounds or the levels do not fall.

    Notes
    -----
    Predictor: :math:`m \leftarrow m + \delta s(m, \sigma_i) + \sqrt\delta z` with :math:`\delta = \sigma_i^2 -
    \sigma_{i+1}^2`. Corrector with R realisations: :math:`m \leftarrow m + \tfrac{\epsilon}{R} \sum_r s(m + \sqrt{2
    \epsilon} z_r, \sigma_{i+1}) + \sqrt{2 \epsilon / R} \sum_r z_r` and :math:`\epsilon = 2 (\mathrm{snr} \|z\| /
    \|s\|)^2`, for which the last score that was evaluated serves: a level costs 1 + R evaluations. The sum of the
    noises is scaled to the variance of one Langevin step, so that the distribution is the same for any R. At the end
    :math:`D(m, \sigma)` takes away the noise of the last level (Song et al., ICLR 2021, algorithms 2 and 4; Tu et al.,
    NMR in Biomedicine 2022).
    """
    levels = _check(sigmas, samples)
    if not (math.isfinite(snr) and snr >= 0) or corrector_steps < 0 or realisations < 1:
        raise ValueError(
            f"sampler: snr {snr} and corrector_steps {corrector_steps} must be 0 or more, realisations {realisations} "
            "1 or more"
        )
    results: list[Tensor] = []
    for generator in _generators(samples, seed, initial.device):
        if results and stop is not None and stop():
            break
        state = initial + levels[0] * _white_noise(initial, generator)
        reached = levels[0]
        for index, (sigma, following) in enumerate(pairwise(levels)):
            if index and stop is not None and stop():
                break
            variance = sigma**2 - following**2
            score = prior.score(state, sigma)
            state = state + variance * score + math.sqrt(variance) * _white_noise(state, generator)
            state = data_consistency(state, following)
            for _ in range(corrector_steps):
                state, score = _langevin(prior, state, score, following, snr, realisations, generator)
                state = data_consistency(state, following)
            reached = following
        results.append(data_consistency(prior.denoise(state, reached), reached))
    return torch.stack(results)


def _langevin(
    prior: Prior,
    state: Tensor,
    last_score: Tensor,
    sigma: float,
    snr: float,
    realisations: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """One Langevin step and the mean score of its realisations."""
    noises = [_white_noise(state, generator) for _ in range(realisations)]
    step = 2 * (snr * _norm(noises[0]) / _norm(last_score).clamp_min(torch.finfo(torch.float32).tiny)) ** 2
    # The curvature of a log density with noise is at most 1 / sigma^2: larger steps are not stable for every prior,
    # and a score that vanishes would make the step endless.
    step = step.clamp_max(sigma**2)
    width = (2 * step).sqrt()
    score = torch.zeros_like(state)
    for noise in noises:
        score = score + prior.score(state + width * noise, sigma) / realisations
    total = torch.stack(noises).sum(0) / math.sqrt(realisations)
    return state + step * score + width * total, score


def _norm(array: Tensor) -> Tensor:
    """Norm of every batch entry, of shape (batch, 1, ...)."""
    return torch.linalg.vector_norm(array.flatten(1), dim=1).reshape(-1, *[1] * (array.ndim - 1))


def _white_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """White noise of unit variance, in each of the real and imaginary parts of complex arrays."""
    noise = torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    return noise * math.sqrt(2) if like.is_complex() else noise


def _generators(samples: int, seed: int, device: torch.device) -> Iterator[torch.Generator]:
    for sample in range(samples):
        yield torch.Generator(device).manual_seed(seed + sample)


def _check(sigmas: Tensor, samples: int) -> list[float]:
    levels: list[float] = sigmas.flatten().tolist()
    if not levels or not all(math.isfinite(level) and level > 0 for level in levels):
        raise ValueError("sampler: the noise levels must be one or more finite numbers above zero")
    if any(following >= level for level, following in pairwise(levels)):
        raise ValueError("sampler: the noise levels must fall from step to step")
    if samples < 1:
        raise ValueError(f"sampler: {samples} samples; take one or more")
    return levels
