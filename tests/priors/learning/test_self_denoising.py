"""Training images without their noise."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from priors.learning.networks import Architecture
from priors.learning.self_denoising import noise_levels, self_denoised


def noisy_discs(noise: float, count: int = 4, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Discs of maximum 1 with a smooth phase, with and without white noise."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    radii = torch.linspace(0.3, 0.7, count)[:, None, None]
    clean = ((y.square() + x.square()).sqrt() < radii) * torch.polar(torch.ones_like(y), 0.5 * y + x)
    generator = torch.Generator().manual_seed(0)
    white = math.sqrt(2) * torch.randn(clean.shape, dtype=torch.complex64, generator=generator)
    return clean, clean + noise * white


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_noise_levels(noise: float) -> None:
    _, noisy = noisy_discs(noise)
    torch.testing.assert_close(noise_levels(noisy), torch.full((4,), noise), rtol=0.15, atol=0)
    torch.testing.assert_close(noise_levels(30 * noisy), 30 * noise_levels(noisy), rtol=1e-3, atol=0)


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_noise_levels_of_magnitudes(noise: float) -> None:
    clean, noisy = noisy_discs(noise, size=128)
    magnitudes = noisy.abs() * (clean != 0)  # as stored by scanners: nothing outside of the object
    found = noise_levels(magnitudes.to(torch.complex64))
    torch.testing.assert_close(found, torch.full((4,), noise), rtol=0.2, atol=0)


@pytest.mark.slow
def test_noise_goes_and_structure_stays(tmp_path: Path) -> None:
    clean, noisy = noisy_discs(0.05, count=2, size=32)
    options = {"architecture": Architecture(16, (1,), groups=4), "steps": 150, "bf16": False}
    seen: list[int] = []
    done: list[int] = []
    state, note = tmp_path / "s", lambda step, _: seen.append(step)
    result = self_denoised(noisy, **options, state_path=state, progress=note, cleaned=done.append)
    assert (seen[-1], done) == (150, [1, 2])
    before, after = ((image - clean).norm() for image in (noisy, result))
    assert after < 0.6 * before
    # The same once more, from the state of the finished training.
    torch.testing.assert_close(self_denoised(noisy, **options, state_path=tmp_path / "s"), result)


def test_images_without_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="no noise"):
        self_denoised(torch.ones(1, 16, 16, dtype=torch.complex64), steps=1)
