"""Learning from the scan that is being reconstructed: HKGM without any training scan."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from priors.learning.training import ImageCrops, TrainingSettings, denoising_trainer, normalised
from priors.reconstruct import reconstruct
from priors.settings import ReconstructionSettings
from priors.signal.espirit import calibration_region
from priors.signal.fourier import ifft2c
from priors.weighted_kspace import WeightedKspacePrior

HELD_OUT = 0.1  # of the samples or lines outside the calibration region
FEWEST_HELD_OUT = 3
LONGEST_DRAFT = 0.3  # of the time there is
RESERVE = 1.3  # times the draft's time, for the reconstruction that judges what was learnt
FEWEST_STEPS = 20  # below these nothing was learnt


@dataclass
class SelfCalibration:
    """What learning from a scan led to.

    Parameters
    ----------
    prior : WeightedKspacePrior
        The better one: the learnt prior, or the one before.
    learnt : bool
        Whether it is the learnt one.
    steps : int
        Optimiser steps.
    sha256 : str
        Hash of the images that were learnt from.
    before, after : float
        Relative error of held-out measured samples with the prior of before and with the learnt one.
    """

    prior: WeightedKspacePrior
    learnt: bool
    steps: int
    sha256: str
    before: float
    after: float


def hold_out(mask: Tensor, seed: int = 0) -> Tensor | None:
    """Choose a tenth of the measured samples outside the calibration region.

    Parameters
    ----------
    mask : Tensor
        Sampling mask (bool), shape (y, x).
    seed : int
        Seed of the choice.

    Returns
    -------
    Tensor, optional
        bool, shape (y, x): whole lines where lines were measured; None where there are too few to choose from.
    """
    rows, columns = calibration_region(mask.cpu())
    outside = mask.clone()
    outside[rows, columns] = False
    generator = torch.Generator().manual_seed(seed)
    # Lines are missing along one axis, and those that are there all have the same support.
    for axis in (1, 0):
        lines = mask.any(axis)
        support = mask[lines] if axis == 1 else mask[:, lines].T
        if not bool(lines.all()) and bool((support == support[:1]).all()):
            free = outside.any(axis)
            free[rows if axis == 1 else columns] = False
            chosen = _some(free, generator)
            if chosen is None:
                return None
            return mask & (chosen[:, None] if axis == 1 else chosen[None])
    chosen = _some(outside.flatten(), generator)
    return None if chosen is None else chosen.reshape(mask.shape)


def _some(free: Tensor, generator: torch.Generator) -> Tensor | None:
    places = torch.nonzero(free.cpu()).flatten()
    if len(places) < 4 * FEWEST_HELD_OUT:
        return None
    count = max(FEWEST_HELD_OUT, round(HELD_OUT * len(places)))
    chosen = torch.zeros(free.shape, dtype=torch.bool)
    chosen[places[torch.randperm(len(places), generator=generator)[:count]]] = True
    return chosen.to(free.device)


def self_calibrated(
    prior: WeightedKspacePrior,
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor,
    images: Tensor | None,
    settings: ReconstructionSettings,
    training: TrainingSettings,
    *,
    noise: Tensor,
    seconds: float,
) -> SelfCalibration | str:
    r"""Go on with the training of a prior on slices of the scan itself, and keep what it learnt if it is better.

    Parameters
    ----------
    prior : WeightedKspacePrior
        Prior to begin with; it stays as it is.
    kspace : Tensor
        Measured k-space of some slices, complex, shape (batch, coil, y, x), of signal level 1, the slice that judges
        first.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x).
    maps : Tensor
        Coil maps, complex, shape (batch, set, coil, y, x).
    images : Tensor, optional
        Images of other slices that are already reconstructed, complex, shape (slice, y, x).
    settings : ReconstructionSettings
        How slices are reconstructed.
    training : TrainingSettings
        How to train; `steps` is the most.
    noise : Tensor
        Noise level of the k-space, shape (batch,).
    seconds : float
        Time for all of it; kept to within a step.

    Returns
    -------
    SelfCalibration or str
        What it led to, or why nothing could be learnt.

    Notes
    -----
    A tenth of the measured samples of the first slice is held out. The slices are reconstructed without them with the
    prior there is, and it learns from these drafts: their calibration region and other measured samples are data, what
    is between them is the prior's own guess. The first slice is then reconstructed again: what was learnt is kept only
    if the held-out samples, which neither draft nor training has seen, are predicted better.
    """
    began = time.monotonic()

    def left() -> float:
        return seconds - (time.monotonic() - began)

    held_out = hold_out(mask[0, 0], training.seed)
    if held_out is None:
        return "there are too few samples outside the calibration region to judge by"
    judged = mask.clone()
    judged[0, 0] &= ~held_out
    single = replace(settings, samples=1)

    def drafted(with_prior: WeightedKspacePrior, some: slice, stop: Callable[[], bool]) -> Tensor | None:
        """Coil k-space of some slices without what is held out; None after a stop."""
        part = torch.where(judged[some], kspace[some], 0)
        result = reconstruct(part, judged[some], maps[some], with_prior, single, noise=noise[some], stop=stop)
        return result.kspace[0] if result.finished == 1 else None

    def error(found: Tensor) -> float:
        wanted = kspace[0] * held_out
        return float(torch.linalg.vector_norm(found[0] * held_out - wanted) / torch.linalg.vector_norm(wanted))

    def drafting_ends() -> bool:
        return left() < (1 - LONGEST_DRAFT) * seconds

    first = drafted(prior, slice(1), drafting_ends)
    if first is None:
        return f"{seconds:.3g} s are too short to draft a slice"
    judging = RESERVE * (seconds - left())
    drafts = [first]
    others = min(len(kspace) - 1, int(LONGEST_DRAFT * seconds / (seconds - left())) - 1)
    if others > 0 and (more := drafted(prior, slice(1, 1 + others), drafting_ends)) is not None:
        drafts.append(more)
    found = torch.cat(drafts)
    pool = [(maps[: len(found), 0].conj() * ifft2c(found)).sum(1)]
    if images is not None and len(images):
        pool.append(images)
    training = replace(training, phase_width=prior.phase_width)
    model = copy.deepcopy(prior.model)
    model.requires_grad_(True)
    trainer = denoising_trainer(model, ImageCrops(normalised(torch.cat(pool)), prior.weighting, training), training)
    trainer.run(stop=lambda: left() < judging)
    if trainer.step < min(FEWEST_STEPS, training.steps):
        return f"{seconds:.3g} s are too short: {trainer.step} steps of training"
    learnt = prior.with_model(trainer.average)
    checked = drafted(learnt, slice(1), lambda: left() <= 0)
    if checked is None:
        return f"{seconds:.3g} s are too short to judge what was learnt"
    before, after = error(first), error(checked)
    better = _better(before, after)
    return SelfCalibration(learnt if better else prior, better, trainer.step, trainer.objective.sha256, before, after)


def _better(before: float, after: float) -> bool:
    return after < before
