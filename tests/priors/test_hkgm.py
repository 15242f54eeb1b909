"""Patches of the Hankel matrix and of k-space of one scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from priors.hkgm import ScanPatches, hankel_patches, hankel_shape
from priors.learning.augmentation import Augmentation
from priors.learning.training import TrainingSettings
from priors.signal.weighting import Weighting


def kspace(coils: int = 3, height: int = 12, width: int = 10) -> torch.Tensor:
    return torch.randn(coils, height, width, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


def hankel_matrix(data: torch.Tensor, window: int) -> torch.Tensor:
    """The whole matrix, by definition."""
    windows = np.lib.stride_tricks.sliding_window_view(data.numpy(), (window, window), axis=(1, 2))
    return torch.from_numpy(windows.transpose(1, 2, 0, 3, 4).reshape(-1, len(data) * window**2).copy())


def settings(crop: int, **augmentation: Any) -> TrainingSettings:
    return TrainingSettings(steps=1, crop=crop, augmentation=Augmentation(scale=(1.0, 1.0), **augmentation))


def test_patches_are_those_of_the_matrix() -> None:
    data = kspace()
    matrix = hankel_matrix(data, 4)
    assert hankel_shape(data.shape, 4) == tuple(matrix.shape)
    first = torch.tensor([[0, 0], [5, 7], [matrix.shape[0] - 9, matrix.shape[1] - 20]])
    for (row, column), patch in zip(first.tolist(), hankel_patches(data, 4, first, (9, 20)), strict=True):
        assert torch.equal(patch, matrix[row : row + 9, column : column + 20])


def test_the_published_matrix() -> None:
    assert hankel_shape((8, 256, 256), 8) == (62001, 512)


@pytest.mark.parametrize("first", [[-1, 0], [0, -1], [50, 0], [0, 40]])
def test_patches_outside_the_matrix_are_refused(first: list[int]) -> None:
    with pytest.raises(ValueError, match=r"leaves the matrix of 63 x 48"):
        hankel_patches(kspace(), 4, torch.tensor([first]), (20, 20))


def test_windows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="window 11 does not fit"):
        hankel_shape((3, 12, 10), 11)


def test_examples_are_weighted_patches_of_any_phase() -> None:
    data = kspace()[None]
    matrix = hankel_matrix(Weighting().weight(data)[0], 4)
    examples = ScanPatches(data, Weighting(), settings(8), "hankel", 4)
    drawn = examples.draw(6, torch.Generator().manual_seed(1))
    assert drawn.shape == (6, 8, 8)
    windows = matrix.unfold(0, 8, 1).unfold(1, 8, 1).flatten(0, 1).abs()
    for patch in drawn:
        assert (windows - patch.abs()).abs().amax((1, 2)).min() < 1e-5
    assert drawn.angle().std() > 0.5


def test_kspace_patches_hold_one_coil() -> None:
    data = kspace()[None]
    examples = ScanPatches(data, Weighting(), settings(6), "kspace")
    windows = Weighting().weight(data)[0].unfold(1, 6, 1).unfold(2, 6, 1).flatten(0, 2).abs()
    for patch in examples.draw(6, torch.Generator().manual_seed(1)):
        assert (windows - patch.abs()).abs().amax((1, 2)).min() < 1e-5


def test_small_scans_give_smaller_patches() -> None:
    assert ScanPatches(kspace()[None], Weighting(), settings(64), "kspace").draw(2, torch.Generator()).shape[1:] == (
        12,
        10,
    )
    assert ScanPatches(kspace()[None], Weighting(), settings(64), "hankel", 2).draw(2, torch.Generator()).shape[1:] == (
        64,
        12,
    )


def test_what_is_no_scan_is_refused() -> None:
    for wrong in (kspace(), kspace()[None].real, kspace()[None][:0]):
        with pytest.raises(ValueError, match=r"not \(slice, coil, y, x\)"):
            ScanPatches(wrong, Weighting(), settings(8), "hankel")
