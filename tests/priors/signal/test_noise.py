"""Noise level of undersampled k-space."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sigpy
import sigpy.mri
import torch

from priors.signal.fourier import fft2c
from priors.signal.noise import noise_level

SIZE = 96


def scan(coils: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random quarter of the k-space (1, coil, y, x) of the phantom, its maximum 1, and the mask."""
    image = sigpy.shepp_logan((SIZE, SIZE)) * sigpy.mri.birdcage_maps((coils, SIZE, SIZE))
    kspace = fft2c(torch.from_numpy(image.astype(np.complex64)))[None]
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(1, 1, SIZE, SIZE, generator=generator) < 0.25
    mask[..., SIZE // 2 - 12 : SIZE // 2 + 12, SIZE // 2 - 12 : SIZE // 2 + 12] = True
    white = math.sqrt(2) * torch.randn(kspace.shape, dtype=torch.complex64, generator=generator)
    return (kspace + noise * white) * mask, mask


@pytest.mark.parametrize("coils", [4, 8, 16])
@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_white_noise_is_found(coils: int, noise: float) -> None:
    assert noise_level(*scan(coils, noise)) == pytest.approx(noise, rel=0.2)


@pytest.mark.parametrize(
    ("coils", "region"), [(4, (12, 24)), (4, (12, 12)), (8, (8, 24)), (8, (12, 12)), (16, (8, 24))]
)
def test_small_calibration_regions(coils: int, region: tuple[int, int]) -> None:
    kspace, mask = scan(coils, 0.03)
    rows, columns = (slice(SIZE // 2 - n // 2, SIZE // 2 + n // 2) for n in region)
    kept = mask & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)) < 0.5)
    kept[..., rows, columns] = True
    assert noise_level(kspace * kept, kept & mask) == pytest.approx(0.03, rel=0.35)


def test_units_and_batch() -> None:
    kspace, mask = scan(8, 0.01)
    single = noise_level(kspace, mask)
    assert noise_level(50 * kspace, mask) == pytest.approx(50 * single, rel=1e-3)
    assert noise_level(kspace.expand(3, -1, -1, -1), mask.expand(3, -1, -1, -1)) == pytest.approx(single, rel=1e-5)


def test_filtered_noise_counts_as_its_mean_over_kspace() -> None:
    kspace, mask = scan(8, 0.02)
    f = (torch.arange(SIZE) - SIZE // 2) / SIZE
    window = torch.cos(math.pi * f)[:, None] * torch.cos(math.pi * f)
    mean = 0.02 * float(window.square().mean().sqrt())
    assert noise_level(kspace * window, mask) == pytest.approx(mean, rel=0.35)
    assert mean < 0.6 * 0.02


@pytest.mark.parametrize("coils", [1, 2])
def test_few_coils_give_an_upper_bound(coils: int) -> None:
    assert 0.01 * 0.9 < noise_level(*scan(coils, 0.01)) < 0.05


def test_nothing_measured() -> None:
    kspace, mask = scan(4, 0.0)
    assert noise_level(0 * kspace, 0 * mask) == 0


def test_no_fully_sampled_centre() -> None:
    kspace, mask = scan(4, 0.01)
    mask[..., SIZE // 2, SIZE // 2] = False
    assert 0.01 * 0.9 < noise_level(kspace * mask, mask) < 0.05
