"""Relaxation towards the denoised state: annealed over noise levels, or at one level with momentum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priors.prior import Prior, expand_sigma
from priors.rules.rule import DataStep, Noise, Stop, check_levels

# REDAEP's, for 1000 rounds and values of 0 to 255: no weights at first, then weights of a large T, then of a small one.
WEIGHTED_AFTER, SHARP_AFTER = 40, 500
BLUNT, SHARP = 1000.0, 1.0
SCALE = 255.0


def annealed(
    prior: Prior,
    initial: Tensor,
    sigmas: Tensor,
    data_step: DataStep,
    noise: Noise,
    *,
    relaxation: float = 0.015,
    temperature: float = 0.0,
    stop: Stop | None = None,
) -> Tensor:
    r"""Annealed relaxation, the "annealed Langevin" of NCSN and HGGDP.

    Parameters
    ----------
    prior : Prior
        Prior, by its score s.
    initial : Tensor
        First estimate, shape (batch, ...).
    sigmas : Tensor
        Noise level of every step, not rising, shape (steps,) or (steps, batch); HGGDP: ten levels, 80 steps each.
    data_step : callable
        Maps an array and the variance of the prior's step to an array that agrees with the data.
    noise : callable
        White noise of unit variance like an array.
    relaxation : float
        Fraction eta of the way to the denoised state, above 0 and at most 1, the same at every level; HGGDP: 0.015.
    temperature : float
        Factor of the Langevin noise; 1: honest Langevin steps, 0: none.
    stop : callable, optional
        Asked before every step but the first; the state stands where it says True.

    Returns
    -------
    Tensor
        The last state, of the shape of `initial`.

    Raises
    ------
    ValueError
        If a parameter is out of bounds.

    Notes
    -----
    :math:`m \leftarrow C(m + \alpha s(m, \sigma) + T \sqrt{2 \alpha} z)` with :math:`\alpha = \eta \sigma^2` (Song and
    Ermon, NeurIPS 2019; Quan et al., IEEE TMI 2021).
    """
    levels = check_levels(sigmas, falling=False)
    if not (0 < relaxation <= 1 and temperature >= 0):
        raise ValueError(f"sampler: relaxation {relaxation} must be above 0 and at most 1, temperature 0 or more")
    state = initial
    for index, sigma in enumerate(levels):
        if index and stop is not None and stop():
            break
        variance = relaxation * sigma**2
        moved = state + expand_sigma(variance, state) * prior.score(state, sigma)
        if temperature:
            moved = moved + expand_sigma(temperature * (2 * variance).sqrt(), state) * noise(state)
        state = data_step(moved, variance)
    return state


def momentum(
    prior: Prior,
    initial: Tensor,
    sigmas: Tensor,
    data_step: DataStep,
    noise: Noise,
    *,
    momentum: float = 0.9,
    draws: int = 0,
    all_levels: bool = False,
    jacobian: bool = False,
    exponent: float = 2.0,
    stop: Stop | None = None,
) -> Tensor:
    r"""Descent with momentum along the prior's direction, as DAEP, DMSP and WDAEP use it.

    Parameters
    ----------
    prior : Prior
        Prior, by its denoiser D.
    initial : Tensor
        First estimate, shape (batch, ...).
    sigmas : Tensor
        Noise level of every step, not rising (one and the same, in the papers), shape (steps,) or (steps, batch).
    data_step : callable
        Maps an array and the variance of the prior's step to an array that agrees with the data.
    noise : callable
        White noise of unit variance like an array.
    momentum : float
        Part of the last step that is kept, 0 to below 1; published: 0.9.
    draws : int
        Noise draws at which D is evaluated and averaged; 0: at the state itself.
    all_levels : bool
        Average over all noise levels of the prior in every step (EDAEP, MEDMSP), instead of the step's own.
    jacobian : bool
        Descend the prior's energy itself (DAEP), through the Jacobian J of D, instead of moving to D.
    exponent : float
        Exponent p of the norm of e, above 0 and at most 2; below 2 large values count less, from round 40 on (REDAEP).
    stop : callable, optional
        Asked before every step but the first; the state stands where it says True.

    Returns
    -------
    Tensor
        The last state, of the shape of `initial`.

    Raises
    ------
    ValueError
        If a parameter is out of bounds, or the prior has no finite set of levels to average over.

    Notes
    -----
    :math:`v \leftarrow \beta v - (1 - \beta) \bar g`, :math:`m \leftarrow C(m + v)` with :math:`e = m - D(m + \sigma
    n_j, \sigma)`, averaged over draws and levels, and :math:`g = e` (Bigdeli et al., NeurIPS 2017; Zhang et al., MedIA
    2020) or :math:`g = (I - J)^T e`, the gradient of :math:`\tfrac12 \|e\|^2` (Liu et al., MRM 2020). With the exponent
    p both are multiplied by :math:`T / (T + |255 e|^{2 - p})`, T = 1000 up to round 500 and 1 after it (Zhang et al.,
    IEEE TRPMS 2021).
    """
    levels = check_levels(sigmas, falling=False)
    if not 0 <= momentum < 1 or draws < 0:
        raise ValueError(f"sampler: momentum {momentum} must be 0 to below 1 and draws {draws} 0 or more")
    if all_levels and (prior.sigma_levels.continuous or not prior.sigma_levels):
        raise ValueError("sampler: the prior has no finite set of noise levels to average over")
    if not 0 < exponent <= 2:
        raise ValueError(f"sampler: exponent {exponent} must be above 0 and at most 2")
    averaged = [torch.tensor(level) for level in prior.sigma_levels.values] if all_levels else None
    state, velocity = initial, torch.zeros_like(initial)
    for index, sigma in enumerate(levels):
        if index and stop is not None and stop():
            break
        threshold = math.inf if exponent == 2 or index < WEIGHTED_AFTER else BLUNT if index < SHARP_AFTER else SHARP
        gradients = [
            _gradient(prior, state, level, noise(state) if draws else None, jacobian, exponent, threshold)
            for level in averaged or [sigma]
            for _ in range(max(draws, 1))
        ]
        velocity = momentum * velocity - (1 - momentum) * torch.stack(gradients).mean(0)
        state = data_step(state + velocity, sigma**2)
    return state


def _gradient(
    prior: Prior,
    state: Tensor,
    sigma: Tensor,
    noise: Tensor | None,
    jacobian: bool,
    exponent: float,
    threshold: float,
) -> Tensor:
    """The state less its denoised estimate, e; or the gradient of |e|^2 / 2; weighted up to a finite threshold T."""
    point = state if noise is None else state + expand_sigma(sigma, state) * noise
    if not jacobian:
        error = state - prior.denoise(point, sigma)
        return error * _weight(error, exponent, threshold)
    with torch.inference_mode(False), torch.enable_grad():
        point = point.detach().clone().requires_grad_()
        estimate = prior.denoise(point, sigma)
        error = (state - estimate).detach()
        (pulled,) = torch.autograd.grad(estimate, point, error)
    return (error - pulled.detach()) * _weight(error, exponent, threshold)


def _weight(error: Tensor, exponent: float, threshold: float) -> Tensor | float:
    if math.isinf(threshold):
        return 1.0
    return threshold / (threshold + (SCALE * error.abs()) ** (2 - exponent))
