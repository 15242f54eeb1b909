"""The rules by name, and what each needs of a prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from priors.prior import Prior

RuleName = Literal["few_step", "predictor_corrector", "annealed", "momentum", "proximal"]

# Takes a state m, and the variance of the step that the prior has just made (per batch entry, in the units of m), to a
# state that agrees with the data.
DataStep = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Tensor], Tensor]
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Rule:
    """What a reconstruction must know of a rule.

    Parameters
    ----------
    steps : int
        Noise levels, where the settings leave it open.
    evaluations : int
        Evaluations of the prior a level; the last level of the predictor-corrector has one.
    data_steps : int
        Data steps a level; the last level of the predictor-corrector has one.
    needs_levels : bool
        Whether the prior must be a score at each noise level.
    """

    steps: int
    evaluations: int = 1
    data_steps: int = 1
    needs_levels: bool = False

    def count(self, each: int, levels: int) -> int:
        """How often something happens `each` times a level, over a schedule of levels."""
        return levels if each == 1 else each * (levels - 1) + 1


RULES: dict[str, Rule] = {
    "few_step": Rule(16, needs_levels=True),
    "predictor_corrector": Rule(1000, evaluations=4, data_steps=2, needs_levels=True),
    "annealed": Rule(800, needs_levels=True),
    "momentum": Rule(200),
    "proximal": Rule(60),
}


FALLING = ("few_step", "predictor_corrector")  # whose noise levels fall from step to step


def evaluations(name: str, levels: int, prior: Prior, options: Mapping[str, float]) -> int:
    """How often a rule asks the prior, over a schedule of levels.

    Parameters
    ----------
    name : str
        Name of the rule.
    levels : int
        Noise levels of the schedule.
    prior : Prior
        Prior, for its levels.
    options : mapping of float
        Options of the rule.
    """
    rule = RULES[name]
    each = int(max(options.get("draws", 0), 1)) * (len(prior.sigma_levels.values) if options.get("all_levels") else 1)
    return each * rule.count(rule.evaluations, levels)


def default_rule(prior: Prior) -> RuleName:
    """The rule of a prior that names none: few steps where it has a range of noise levels, else by what it has."""
    if not prior.sigma_levels:
        return "proximal"
    return "few_step" if prior.sigma_levels.continuous else "momentum"


def check_rule(name: str, prior: Prior) -> None:
    """Raise ValueError where a rule does not fit to a prior."""
    if RULES[name].needs_levels and not prior.sigma_levels:
        others = ", ".join(other for other, rule in RULES.items() if not rule.needs_levels)
        raise ValueError(
            f"sampler {name} needs a prior that knows noise levels, and {type(prior).__name__} knows none; "
            f"take {others}"
        )
    if name in FALLING and not prior.sigma_levels.continuous:
        raise ValueError(
            f"sampler {name} needs a prior that knows a range of noise levels, and {type(prior).__name__} knows "
            f"{len(prior.sigma_levels.values)}; take annealed or momentum"
        )


def check_levels(sigmas: Tensor, falling: bool = True) -> list[Tensor]:
    """Noise levels of each step.

    Parameters
    ----------
    sigmas : Tensor
        float64, shape (steps,), or (steps, batch) where slices have schedules of their own.
    falling : bool
        Whether each must be below the one before.

    Returns
    -------
    list of Tensor
        One of shape () or (batch,) a step.

    Raises
    ------
    ValueError
        If a level is not above zero, or they do not fall.
    """
    levels = list(sigmas.double().unbind(0))
    if not levels or not all(bool((torch.isfinite(level) & (level > 0)).all()) for level in levels):
        raise ValueError("sampler: the noise levels must be one or more finite numbers above zero")
    if falling and any(bool((following >= level).any()) for level, following in pairwise(levels)):
        raise ValueError("sampler: the noise levels must fall from step to step")
    return levels
