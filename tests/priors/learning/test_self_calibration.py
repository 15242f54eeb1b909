"""Learning from a scan's own measured samples: what is held out, what is looked at, what is kept, and in what time."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch

from priors.learning import self_calibration as module
from priors.learning.networks import Architecture, EdmDenoiser
from priors.learning.self_calibration import SelfCalibration, hold_out, self_calibrated
from priors.learning.trainer import Trainer
from priors.learning.training import TrainingSettings
from priors.settings import ReconstructionSettings
from priors.signal.espirit import calibration_region
from priors.signal.fourier import fft2c
from priors.signal.weighting import Weighting
from priors.weighted_kspace import WeightedKspacePrior

SIZE = 32


def lines() -> torch.Tensor:
    mask = torch.zeros(64, 48, dtype=torch.bool)
    mask[::2], mask[26:38] = True, True
    return mask


def random(size: int = SIZE) -> torch.Tensor:
    mask = torch.rand(size, size, generator=torch.Generator().manual_seed(1)) < 0.4
    mask[size // 2 - 5 : size // 2 + 5, size // 2 - 5 : size // 2 + 5] = True
    return mask


@pytest.mark.parametrize("along", ["rows", "columns", "partial", "samples"])
def test_a_tenth_outside_the_calibration_region_is_held_out(along: str) -> None:
    mask = {"rows": lines(), "columns": lines().T, "partial": lines(), "samples": random(64)}[along]
    if along == "partial":  # an asymmetric echo
        mask[:, :9] = False
    held_out = hold_out(mask)
    assert held_out is not None
    rows, columns = calibration_region(mask)
    assert not held_out[rows, columns].any() and not (held_out & ~mask).any()
    outside = mask.clone()
    outside[rows, columns] = False
    assert float(held_out.sum() / outside.sum()) == pytest.approx(0.1, abs=0.03)
    if along != "samples":
        whole = held_out if along != "columns" else held_out.T
        sampled = mask if along != "columns" else mask.T
        assert torch.equal(whole, whole.any(1, keepdim=True) & sampled)
    assert torch.equal(hold_out(mask), held_out) and not torch.equal(hold_out(mask, seed=1), held_out)


def test_nothing_is_held_out_of_full_or_small_scans() -> None:
    assert hold_out(torch.ones(32, 32, dtype=torch.bool)) is None
    few = torch.zeros(32, 32, dtype=torch.bool)
    few[10:22] = True
    few[0] = True
    assert hold_out(few) is None


def prior() -> WeightedKspacePrior:
    torch.manual_seed(0)
    return WeightedKspacePrior(
        EdmDenoiser(Architecture(8, (1, 2), groups=4)), Weighting(), (4e-4, 0.6), phase_width=24, bf16=False
    )


def scan(slices: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """True k-space, mask and maps of discs seen by three coils."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    discs = torch.stack([((y**2 + x**2).sqrt() < 0.5 + 0.1 * index).to(torch.complex64) for index in range(slices)])
    maps = torch.stack([torch.exp(1j * phase * x) * (1.2 + y * math.cos(phase)) for phase in (0.0, 1.0, 2.0)])
    maps = (maps / torch.linalg.vector_norm(maps, dim=0))[None, None].expand(slices, -1, -1, -1, -1)
    return fft2c(maps[:, 0] * discs[:, None]), random()[None, None].expand(slices, -1, -1, -1), maps


def learnt(kspace: torch.Tensor, mask: torch.Tensor, maps: torch.Tensor, **changes: Any) -> SelfCalibration | str:
    options = {"seconds": 1e6, "images": None, "prior": prior()} | changes
    settings = ReconstructionSettings(low_rank=True, steps=6)
    training = TrainingSettings(steps=30, batch=1, crop=16, bf16=False, warm_up=2, ema=0.9, learning_rate=2e-3)
    return self_calibrated(
        options["prior"], kspace, mask, maps, options["images"], settings, training,
        noise=torch.full((len(kspace),), 1e-3), seconds=options["seconds"],
    )  # fmt: skip


def weights(prior: WeightedKspacePrior) -> torch.Tensor:
    return torch.cat([value.flatten() for value in prior.model.state_dict().values()])


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learnt counts as better, so that it can be looked at."""
    monkeypatch.setattr(module, "_better", lambda before, after: True)


@pytest.mark.slow
def test_samples_that_were_not_measured_are_not_looked_at(always: None) -> None:
    truth, mask, maps = scan(2)
    found = [learnt(torch.where(mask, truth, other), mask, maps) for other in (0, 100 * torch.randn_like(truth))]
    one, other = found
    assert isinstance(one, SelfCalibration) and isinstance(other, SelfCalibration)
    assert torch.equal(weights(one.prior), weights(other.prior))
    assert (one.before, one.after, one.sha256) == (other.before, other.after, other.sha256)


@pytest.mark.slow
def test_what_judges_was_not_learnt_from(always: None) -> None:
    truth, mask, maps = scan()
    held_out = hold_out(mask[0, 0])
    assert held_out is not None
    ours, theirs = learnt(truth, mask, maps), learnt(torch.where(held_out, 3 * truth, truth), mask, maps)
    assert isinstance(ours, SelfCalibration) and isinstance(theirs, SelfCalibration)
    assert torch.equal(weights(ours.prior), weights(theirs.prior))
    assert ours.before != theirs.before


def test_the_better_prior_is_kept_and_the_first_one_is_left_alone() -> None:
    truth, mask, maps = scan()
    first = prior()
    before = weights(first).clone()
    found = learnt(truth, mask, maps, prior=first)
    assert isinstance(found, SelfCalibration)
    assert found.learnt == (found.after < found.before) == (found.prior is not first)
    assert torch.equal(weights(first), before) and found.steps == 30
    assert not first.model.network.enter.weight.requires_grad


@pytest.mark.slow
def test_reconstructed_slices_are_learnt_from_too(always: None) -> None:
    truth, mask, maps = scan()
    alone = learnt(truth, mask, maps)
    more = learnt(truth, mask, maps, images=torch.eye(SIZE, dtype=torch.complex64)[None])
    assert isinstance(alone, SelfCalibration) and isinstance(more, SelfCalibration)
    assert more.sha256 != alone.sha256 and not torch.equal(weights(alone.prior), weights(more.prior))


@pytest.mark.slow
def test_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, mask, maps = scan()
    now = 0.0
    denoise = WeightedKspacePrior.denoise
    advance = Trainer._advance

    def slow_denoise(*arguments: Any) -> torch.Tensor:
        nonlocal now
        now += 1
        return denoise(*arguments)

    def slow_advance(trainer: Any) -> None:
        nonlocal now
        now += 0.5
        advance(trainer)

    monkeypatch.setattr(WeightedKspacePrior, "denoise", slow_denoise)
    monkeypatch.setattr(Trainer, "_advance", slow_advance)
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    expected = {10: "too short to draft a slice", 22: "too short: .* steps of training", 28: "", 100: ""}
    for seconds, text in expected.items():
        now = 0.0
        found = learnt(truth, mask, maps, seconds=seconds)
        assert now <= seconds + 1
        if text:
            assert isinstance(found, str) and re.search(text, found)
        else:
            assert isinstance(found, SelfCalibration)
            assert found.steps == 30 if seconds == 100 else 20 <= found.steps < 30


@pytest.mark.slow
def test_as_many_slices_are_drafted_as_there_is_time_for(always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, mask, maps = scan(4)
    now = 0.0
    true, drafted = module.reconstruct, []

    def slow(kspace: torch.Tensor, *rest: Any, **options: Any) -> Any:
        nonlocal now
        now += 3 * len(kspace)
        drafted.append(len(kspace))
        return true(kspace, *rest, **options)

    monkeypatch.setattr(module, "reconstruct", slow)
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    for seconds, expected in ((20, [1, 1, 1]), (100, [1, 3, 1])):
        now = 0.0
        drafted.clear()
        assert isinstance(learnt(truth, mask, maps, seconds=seconds), SelfCalibration)
        assert drafted == expected


def test_scans_that_cannot_judge_say_so() -> None:
    truth, mask, maps = scan()
    assert "too few samples" in str(learnt(truth, torch.ones_like(mask), maps))
