"""The noise levels that a rule steps through in one scan."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.data_steps.step import FEWEST_COILS, Measurement
from priors.domains import WeightedKspaceDomain
from priors.learning.noise_schedule import geometric_sigmas
from priors.prior import Prior
from priors.rules.rule import FALLING, check_rule
from priors.settings import ReconstructionSettings
from priors.signal.weighting import Weighting

SMALLEST_SIGMA, LARGEST_SIGMA = 0.004, 0.5  # of schedules that the data decide
FIRST_SIGMA = 0.06  # first noise level of a scan whose acceleration is half its number of coils
LAST_SIGMA = 1.6  # last noise level in units of that of the data
LAST_SIGMA_OF_BOUND = 0.5  # last noise level in units of an upper bound of that of the data
LAST_SIGMA_OF_COILS = 0.002  # without coil maps, where low rank takes the noise out
PUBLISHED_SIGMAS = 1.0, 0.01  # of the predictor-corrector of WKGM, for its published weighting
ANNEALED_LEVELS = 10  # of the annealed rule, each with as many steps as there are


def schedule(
    rule: str, settings: ReconstructionSettings, prior: Prior, measured: Measurement, with_maps: bool
) -> Tensor:
    """Noise levels of every step.

    Parameters
    ----------
    rule : str
        Name of the rule.
    settings : ReconstructionSettings
        Of which `steps`, `sigma_max` and `sigma_min` are looked at; what they leave open is kept within the prior's
        range.
    prior : Prior
        Prior, for its levels.
    measured : Measurement
        Mask, number of coils and noise.
    with_maps : bool
        Whether the data step uses coil maps.

    Returns
    -------
    Tensor
        float64, shape (steps,), or (steps, batch) where the slices' noise or sampling differ.

    Raises
    ------
    ValueError
        If levels that the settings give leave the prior's range.
    """
    steps = settings.steps_of(rule)
    slices = zip(measured.mask, measured.noise, strict=True)
    ends = [_ends(rule, settings, prior, mask, noise, measured.kspace.shape[1], with_maps) for mask, noise in slices]
    same = len(set(ends)) == 1
    schedules = [
        _levels(rule, highest, lowest, steps, settings.sigma_max > 0)
        for highest, lowest in (ends[:1] if same else ends)
    ]
    sigmas = schedules[0] if same else torch.stack(schedules, dim=1)
    prior.sigma_levels.check(sigmas)
    return prior.sigma_levels.nearest(sigmas)


def check_schedule(rule: str, settings: ReconstructionSettings, prior: Prior) -> None:
    """Raise ValueError where rule, given noise levels and prior do not go together, before there are data.

    Parameters
    ----------
    rule, settings, prior
        As of `schedule`.
    """
    check_rule(rule, prior)
    levels = prior.sigma_levels
    for name, given in (("sigma_max", settings.sigma_max), ("sigma_min", settings.sigma_min)):
        if given:
            levels.check(torch.tensor([given]))
            end = levels.lowest if name == "sigma_max" else levels.highest
            if levels and given == end and rule in FALLING:
                raise ValueError(f"{name} {given} is the end of the prior's range; the levels of {rule} must fall")


def _levels(rule: str, highest: float, lowest: float, steps: int, falls: bool = False) -> Tensor:
    if rule == "annealed":
        levels = min(ANNEALED_LEVELS, steps)
        return geometric_sigmas(lowest, highest, levels)[torch.arange(steps) * levels // steps]
    if rule in ("momentum", "proximal") and not falls:
        return torch.full((steps,), lowest, dtype=torch.float64)
    return geometric_sigmas(lowest, highest, steps)


def _ends(
    rule: str,
    settings: ReconstructionSettings,
    prior: Prior,
    mask: Tensor,
    noise: Tensor,
    coils: int,
    with_maps: bool,
) -> tuple[float, float]:
    """First and last noise level of a slice, mask (1, y, x)."""
    least, most = prior.sigma_levels.lowest, prior.sigma_levels.highest
    if rule == "predictor_corrector":
        # Published for slope 0.018 / 128 a sample; noise of any weighting scales with its slope.
        domain, ratio = prior.domain, 1.0
        if isinstance(domain, WeightedKspaceDomain):
            ratio = domain.weighting.slope / Weighting.published().slope
        highest, lowest = min(PUBLISHED_SIGMAS[0] * ratio, most), max(PUBLISHED_SIGMAS[1] * ratio, least)
    else:
        acceleration = 1 / float(mask.float().mean())
        highest = min(FIRST_SIGMA * max(1.0, 2 * acceleration / coils), LARGEST_SIGMA, most)
        last = LAST_SIGMA_OF_COILS
        if with_maps:
            of_noise = LAST_SIGMA if coils >= FEWEST_COILS else LAST_SIGMA_OF_BOUND
            last = max(float(of_noise * noise), SMALLEST_SIGMA)
        lowest = max(last, least)
    highest = settings.sigma_max or max(highest, min(2 * settings.sigma_min, most))
    lowest = settings.sigma_min or max(min(lowest, 0.5 * highest), least)
    return highest, lowest
