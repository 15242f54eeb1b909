"""Sets of pixels that a sampling pattern mixes."""

from __future__ import annotations

import pytest
import torch

from pipelines.simulation import sampling
from priors.signal.aliasing import aliasing_sets, folds, point_spread

ROWS, COLUMNS = torch.meshgrid(torch.arange(12), torch.arange(8), indexing="ij")
IRREGULAR = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0, 0, 1, 0, 0], dtype=torch.bool)


@pytest.mark.parametrize(
    ("mask", "members"),
    [
        (ROWS % 3 == 0, 3),
        (ROWS % 3 == 1, 3),  # which lines does not matter
        ((ROWS % 2 == 0) & (COLUMNS % 2 == 0), 4),
        ((ROWS + 2 * COLUMNS) % 4 == 0, 4),  # CAIPIRINHA
        (torch.ones(12, 8, dtype=torch.bool), 1),
        (IRREGULAR[:, None].expand(12, 8), 12),
    ],
)
def test_pixels_couple_where_the_point_spread_says(mask, members):
    aliasing = aliasing_sets(mask)
    assert aliasing.pixels.shape == (96 // members, members)
    assert sorted(aliasing.pixels.flatten().tolist()) == list(range(96))
    spread = point_spread(mask).abs()
    number = torch.empty(96, dtype=torch.long)
    number[aliasing.pixels] = torch.arange(len(aliasing.pixels))[:, None].expand_as(aliasing.pixels)
    for y, x in torch.nonzero(spread > 1e-9).tolist():
        moved = number.reshape(12, 8).roll((-y, -x), (0, 1))
        assert torch.equal(moved, number.reshape(12, 8))
    first = aliasing.pixels[:, :1]
    places = torch.stack([first // 8, first % 8], -1) + aliasing.shifts
    assert torch.equal((places[..., 0] % 12) * 8 + places[..., 1] % 8, aliasing.pixels)


def test_of_patterns_that_mix_everything_there_are_no_sets():
    mask = torch.rand(12, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    assert aliasing_sets(mask, largest=95) is None
    assert aliasing_sets(mask).pixels.shape == (1, 96)


def _lines(height: int, step: int, first: int = 0) -> torch.Tensor:
    return (torch.arange(height) % step == first)[:, None].expand(height, 96)


def _middle(mask: torch.Tensor, samples: int) -> torch.Tensor:
    near = [(torch.arange(size) - size // 2).abs() < samples // 2 for size in mask.shape]
    return mask & near[0][:, None] & near[1]


@pytest.mark.parametrize(
    "mask",
    [
        _lines(128, 2, 1),
        _lines(130, 4),  # copies lie between two pixels
        _lines(127, 3),
        _lines(96, 2) & _lines(96, 3).T,
        (torch.arange(96)[:, None] + 2 * torch.arange(96)) % 4 == 0,  # CAIPIRINHA
        _middle(_lines(96, 2), 48),  # of low resolution
    ],
)
def test_regular_undersampling_folds(mask: torch.Tensor) -> None:
    assert folds(mask)


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(96, 96, dtype=torch.bool),
        _middle(torch.ones(96, 96, dtype=torch.bool), 24),
        torch.rand(96, 1, generator=torch.Generator().manual_seed(0)).expand(96, 96) < 0.3,
        torch.rand(96, 96, generator=torch.Generator().manual_seed(1)) < 0.1,
        sampling.poisson((128, 128), 4.0),
    ],
)
def test_irregular_and_full_sampling_does_not_fold(mask: torch.Tensor) -> None:
    assert not folds(torch.as_tensor(mask))
