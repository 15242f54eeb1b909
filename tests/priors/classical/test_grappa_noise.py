"""Noise of GRAPPA against the same linear map of noise."""

from __future__ import annotations

import math

import pytest
import torch

from pipelines.simulation.coils import birdcage_maps
from priors.classical.grappa import _filled, gram_of, grappa, plan_of
from priors.classical.grappa_noise import grappa_deviation
from priors.signal.fourier import fft2c, ifft2c

SHAPE = (36, 32)
COILS = 4
ROWS, COLUMNS = torch.meshgrid(torch.arange(SHAPE[0]), torch.arange(SHAPE[1]), indexing="ij")
CENTRE = (ROWS >= 12) & (ROWS < 24)
PATTERNS = {
    "R=2": ROWS % 2 == 0,
    "R=3, calibration": (ROWS % 3 == 0) | CENTRE,
    "columns": (COLUMNS % 2 == 0),
    "partial Fourier": ((ROWS % 2 == 0) | CENTRE) & (ROWS > 8),
    "CAIPIRINHA": (ROWS + 2 * COLUMNS) % 4 == 0,
}


def random(*shape, seed=0):
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def scan():
    maps = torch.from_numpy(birdcage_maps(COILS, SHAPE))[None, None]
    y, x = (2 * place / size - 1 for place, size in zip((ROWS, COLUMNS), SHAPE, strict=True))
    image = 500.0 * (y**2 + x**2 < 0.7) * (1 + 0.5 * torch.cos(5 * y) * torch.sin(4 * x))
    return fft2c(maps[:, 0] * image) + random(1, COILS, *SHAPE), maps


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PATTERNS))
def test_is_that_of_the_same_kernels_on_noise(name):
    kspace, maps = scan()
    mask = PATTERNS[name]
    edge = 5  # where kernels end at the edge, which the formula takes for periodic
    deviation = torch.zeros(1, 1, *SHAPE)
    deviation[..., edge:-edge, edge:-edge] = torch.where(ROWS < 18, 0.5, 1.0)[edge:-edge, edge:-edge]
    kernel = 3
    found = grappa_deviation(kspace, maps, mask[None, None], maps[:, 0], kernel, deviation=deviation)[0]
    plan = plan_of(mask, kernel)
    gram = gram_of(torch.where(mask, kspace[0], 0), maps[0], plan)
    variance, count = torch.zeros(SHAPE), 40
    for number in range(count):
        noise = torch.where(mask, math.sqrt(2) * random(COILS, *SHAPE, seed=number) * deviation[0], 0)
        image = (maps[0, 0].conj() * ifft2c(_filled(noise, plan, gram, 1e-2))).sum(0)
        variance += image.abs().square() / (2 * count)
    ratio = found.square().sum() / variance.sum()
    assert float(ratio) == pytest.approx(1, abs=0.03)
    assert float((found / variance.sqrt() - 1).abs().median()) < 0.1


def test_full_sampling_averages_noise_only():
    kspace, maps = scan()
    full = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    found = grappa_deviation(kspace, maps, full, maps[:, 0])
    torch.testing.assert_close(found, torch.ones(1, *SHAPE))


def test_there_is_no_formula_for_irregular_points():
    kspace, maps = scan()
    mask = random(*SHAPE).real[None, None] > 0
    assert grappa_deviation(kspace, maps, mask, maps[:, 0]) is None
    assert grappa(kspace, maps, mask).shape == kspace.shape
