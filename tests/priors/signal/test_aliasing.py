"""Sets of pixels that a sampling pattern mixes."""

from __future__ import annotations

import pytest
import torch

from priors.signal.aliasing import aliasing_sets, point_spread

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
