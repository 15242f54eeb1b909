"""Proximal alternation: the prior's proximal step and the data's in turn, with a dual variable (ADMM)."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.prior import Prior
from priors.rules.rule import DataStep, Noise, Stop, check_levels


def proximal(
    prior: Prior,
    initial: Tensor,
    sigmas: Tensor,
    data_step: DataStep,
    noise: Noise,
    *,
    dual: bool = True,
    stop: Stop | None = None,
) -> Tensor:
    r"""Proximal alternation, for every kind of prior.

    Parameters
    ----------
    prior : Prior
        Prior, by its proximal step.
    initial : Tensor
        First estimate, shape (batch, ...).
    sigmas : Tensor
        Standard deviation :math:`w^{-1/2}` that belongs to the weight w of every step, not rising, shape (steps,) or
        (steps, batch).
    data_step : callable
        Maps an array and the variance of the prior's step to an array that agrees with the data, C.
    noise : callable
        Not used; rules have one signature.
    dual : bool
        With the dual variable of ADMM; without it the published alternation, which regularises less.
    stop : callable, optional
        Asked before every step but the first; the last estimate stands where it says True.

    Returns
    -------
    Tensor
        The last output of the data step, of the shape of `initial`.

    Notes
    -----
    :math:`v \leftarrow \mathrm{prox}_w(m + u)`, :math:`m \leftarrow C(v - u)`, :math:`u \leftarrow u + m - v` (Boyd et
    al., 2011; Venkatakrishnan et al., GlobalSIP 2013). With one weight and an exact C it ends at the maximum of the
    posterior.
    """
    levels = check_levels(sigmas, falling=False)
    state, shift = initial, torch.zeros_like(initial)
    for index, sigma in enumerate(levels):
        if index and stop is not None and stop():
            break
        split = prior.prox(state + shift, sigma**-2)
        state = data_step(split - shift, sigma**2)
        if dual:
            shift = shift + state - split
    return state
