"""All methods of reconstruction by name: their properties, and as many problems at a time as fit in memory."""

from __future__ import annotations

from dataclasses import replace

import torch

from gadgets.solvers.classical import METHODS
from gadgets.solvers.generative import SETTINGS
from gadgets.solvers.outcome import Outcome, Problems, Solve
from gadgets.stream import ReconError
from priors.registry import generative_method, is_generative, loadable_methods, method_names

PROBLEM_MEGABYTES = 192.0  # working memory of the slices or readout positions solved together
OF_GENERATIVE = (*SETTINGS, "prior", "noise_level", "time_budget_s", "device")
OF_SELF_TRAINING = ("training", "training_budget_s", "training_cache")


def all_methods() -> tuple[str, ...]:
    """Names of all methods."""
    return (*METHODS, *method_names())


def options_of(method: str) -> tuple[str, ...]:
    """Names of the properties that mean something to a method."""
    if not is_generative(method):
        return METHODS[method].options
    entry = generative_method(method)
    own = OF_SELF_TRAINING if entry.self_training else ()
    return OF_GENERATIVE + own + (("variant",) if entry.variants else ())


def foreign_option(method: str, names: set[str]) -> tuple[str, list[str]] | None:
    """The first of some properties that means nothing to a method, and the methods it is for."""
    for name in sorted(names - set(options_of(method))):
        loadable = (*METHODS, *(other for other, _ in loadable_methods()))
        others = [other for other in loadable if name in options_of(other)]
        if others:
            return name, others
    return None


def solve_in_parts(problems: Problems, solve: Solve, megabytes: float = PROBLEM_MEGABYTES) -> Outcome:
    """Reconstruct 2D problems, as many at a time as fit in memory.

    Parameters
    ----------
    problems : k-space and noise in the units of the scan; they are divided by `level` for the method, and the images
        multiplied by it
    solve : method
    megabytes : working memory of the problems solved together

    Returns
    -------
    Outcome
        Images zero where a problem has no samples.

    Raises
    ------
    ReconError
        When the method diverged.
    """
    level = problems.level.reshape(-1, 1, 1, 1)
    problems = replace(problems, kspace=problems.kspace / level, noise=problems.noise / problems.level)
    kspace = problems.kspace
    outcome = Outcome(torch.zeros(kspace.shape[0], *kspace.shape[-2:], dtype=kspace.dtype))
    wanted = torch.nonzero(kspace.abs().amax(dim=(1, 2, 3)) > 0).flatten()
    of_one = 8 * 6 * problems.maps[0].numel() / 2**20
    for chunk in wanted.split(max(1, int(megabytes / of_one))) if len(wanted) else ():
        outcome.put(chunk, solve(problems.part(chunk)))
    if not torch.isfinite(torch.view_as_real(outcome.images)).all():
        raise ReconError("reconstruction: it diverged to NaN or infinity; look at the raw data, or take another method")
    outcome.scale(problems.level)
    return outcome
