"""Noise levels of training and sampling."""

from __future__ import annotations

import math

import pytest
import torch

from priors.learning.noise_schedule import LogNormalSigma, geometric_sigmas


def test_published_geometric_levels() -> None:
    sigmas = geometric_sigmas()
    assert len(sigmas) == 1000
    assert sigmas[0].item() == pytest.approx(1)
    assert sigmas[-1].item() == pytest.approx(0.01)
    torch.testing.assert_close(sigmas[:-1] / sigmas[1:], torch.full((999,), 100 ** (1 / 999), dtype=torch.float64))


def test_one_step_is_the_highest_level() -> None:
    assert geometric_sigmas(0.1, 2, 1).tolist() == pytest.approx([2])


@pytest.mark.parametrize("count", [3, 5000])
def test_training_levels_are_log_normal_and_stay_in_range(count: int) -> None:
    distribution = LogNormalSigma(-3.7, 1.3)
    generator = torch.Generator().manual_seed(0)
    levels = torch.cat([distribution.sample(count, generator) for _ in range(-(-5000 // count))]).log()
    assert levels.mean().item() == pytest.approx(-3.7, abs=0.06)
    assert levels.std().item() == pytest.approx(1.3, rel=0.04)
    assert (levels < -3.7 - 1.3).double().mean().item() == pytest.approx(0.1587, abs=0.015)
    lowest, highest = distribution.range
    assert lowest == pytest.approx(math.exp(-7.6))
    assert math.log(lowest) <= levels.min() and levels.max() <= math.log(highest)
    narrow = LogNormalSigma(0, 1, deviations=0.5).sample(1000, generator).log()
    assert -0.5 <= narrow.min() < -0.45 and 0.45 < narrow.max() <= 0.5


def test_training_levels_of_a_batch_are_spread_and_unordered() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [LogNormalSigma().sample(4, generator).log() for _ in range(50)]
    assert all(int((batch < -3.7).sum()) == 2 for batch in batches)
    assert any(bool((batch.diff() < 0).any()) and bool((batch.diff() > 0).any()) for batch in batches)


@pytest.mark.parametrize(
    "arguments", [(0.0, 1.0, 5), (1.0, 0.5, 5), (0.1, 1.0, 0), (0.1, math.inf, 5), (math.nan, 1.0, 5)]
)
def test_errors(arguments: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="noise levels"):
        geometric_sigmas(*arguments)


def test_errors_of_the_distribution() -> None:
    with pytest.raises(ValueError, match="std"):
        LogNormalSigma(std=0)
    with pytest.raises(ValueError, match="finite"):
        LogNormalSigma(mean=math.nan)
