"""Few steps: one evaluation of the prior and one data step a noise level."""

from __future__ import annotations

import math

from torch import Tensor

from priors.prior import Prior, expand_sigma
from priors.rules.rule import DataStep, Noise, Stop, check_levels


def few_step(
    prior: Prior,
    initial: Tensor,
    sigmas: Tensor,
    data_step: DataStep,
    noise: Noise,
    *,
    retained: float = 0.0,
    injected: float = 0.0,
    extrapolation: float = 0.0,
    stop: Stop | None = None,
) -> Tensor:
    r"""A posterior sample, or an estimate of the mode, with one evaluation of the prior a step.

    Parameters
    ----------
    prior : Prior
        Denoiser D.
    initial : Tensor
        First estimate without noise, shape (batch, ...).
    sigmas : Tensor
        Falling noise levels above zero, shape (steps,) or (steps, batch).
    data_step : callable
        Maps a denoised estimate and the variance of the prior's step to an estimate that agrees with the data, C.
    noise : callable
        White noise of unit variance like an array.
    retained : float
        Fraction of the estimated noise that is carried to the next level, 0 to 1.
    injected : float
        Fresh noise as a fraction of the next level, 0 to 1; `retained`² + `injected`² must not be above 1.
    extrapolation : float
        How far the state goes beyond the estimate, in units of the estimate's change in the last step (no more
        evaluations), 0 to 1; scaled by the ratio of the two steps in ln sigma. 0.5 is the second-order method, far
        nearer to the exact path of `retained` = 1 for the same number of steps; with `retained` 0 it is
        over-relaxation.
    stop : callable, optional
        Asked before every step but the first; the estimate of the last step stands where it says True.

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
    With :math:`d_i = C(D(m_i, \sigma_i), \sigma_i^2)`: :math:`m_{i+1} = d_i + a \tfrac{\sigma_{i+1}}{\sigma_i} (m_i -
    d_i) + b \sigma_{i+1} n`, a retained and b injected, started from `initial` with noise of level :math:`\sigma_0
    \sqrt{a^2 + b^2}`; the result is the last d. (a, b) = (1, 0) is the deterministic sampler of a diffusion (Song et
    al., ICLR 2021, DDIM), with `extrapolation` 0.5 that of Lu et al., 2022 (DPM-Solver++ 2M); :math:`a^2 + b^2 = 1` its
    noisy kin (b = 1: all noise anew); (0, 0), the default, adds no noise and looks for the most likely array (plug
    and play). The samples are exact, in the limit of many steps, where C(D(m, sigma)) is the mean of the clean array
    given m and the data.
    """
    levels = check_levels(sigmas)
    if not (0 <= retained <= 1 and 0 <= injected <= 1 and retained**2 + injected**2 <= 1 + 1e-6):
        raise ValueError(f"sampler: retained {retained} and injected {injected}; 0 to 1, sum of squares not above 1")
    if not 0 <= extrapolation <= 1:
        raise ValueError(f"sampler: extrapolation {extrapolation}; 0 to 1")
    state = initial
    if retained or injected:
        state = initial + expand_sigma(levels[0] * math.hypot(retained, injected), initial) * noise(initial)
    previous: Tensor | None = None
    estimate = initial
    for index, sigma in enumerate(levels):
        if index and stop is not None and stop():
            break
        estimate = data_step(prior.denoise(state, sigma), sigma**2)
        if index + 1 == len(levels):
            break
        following, target = levels[index + 1], estimate
        if extrapolation and previous is not None:
            ratio = (sigma / following).log() / (levels[index - 1] / sigma).log()
            target = estimate + expand_sigma(extrapolation * ratio, estimate) * (estimate - previous)
        previous = estimate
        state = target + expand_sigma(retained * following / sigma, target) * (state - target) if retained else target
        if injected:
            state = state + expand_sigma(injected * following, state) * noise(initial)
    return estimate
