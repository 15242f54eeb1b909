"""What noise is compared with, and pseudo replicas."""

from __future__ import annotations

import math

import pytest
import torch

from priors.signal.noise_maps import Replicas, reference


def test_reference_of_undersampling_is_the_root_of_it():
    samples = torch.zeros(8, 12)
    samples[:, ::3] = 1
    assert reference(samples) == pytest.approx((math.sqrt(3), 3))  # lines 0, 3, 6, 9 of 12
    samples[:, 4:8] = 1
    assert reference(samples) == pytest.approx((math.sqrt(12 / 7), 12 / 7))


def test_zeros_beside_the_samples_take_noise_away():
    """Noise of the zero-filled image itself: that is g = 1."""
    samples = torch.zeros(8, 12)
    samples[2:, :] = 1
    found = reference(samples)
    assert found.acceleration == 1
    assert found.deviation == pytest.approx(math.sqrt(6 / 8))


def test_averages_count():
    samples = torch.full((4, 4), 0.5)  # of four averages each
    assert reference(samples).deviation == pytest.approx(0.5)
    assert reference(torch.zeros(3, 3)) == (0, 1)


def test_replicas_find_the_noise_along_the_phase():
    generator = torch.Generator().manual_seed(0)
    image = torch.polar(torch.full((50, 50), 20.0), torch.linspace(-3, 3, 2500).reshape(50, 50))
    replicas = Replicas(image)
    for _ in range(64):
        along, across = torch.randn(2, 50, 50, generator=generator)
        replicas.add(image + (2 * along + 1j * 7 * across) * image / 20)
    assert float(replicas.deviation().square().mean().sqrt()) == pytest.approx(2, rel=0.01)
    assert float(replicas.deviation().std()) == pytest.approx(2 / math.sqrt(2 * 63), rel=0.1)
    assert replicas.ratio(torch.full((50, 50), 4.0)) == pytest.approx(0.5, rel=0.01)


def test_the_object_decides_how_noise_compares():
    """Not the background, where a solver that stops early has less noise; without an object all pixels count."""
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(60, 60, dtype=torch.complex64)
    image[:5] = 20
    level = torch.where(image.abs() > 0, 1.0, 0.3)
    for signal, expected in ((image, 1.0), (image * 0, 0.3)):
        replicas = Replicas(signal)
        for _ in range(4):
            replicas.add(signal + level * torch.randn(60, 60, generator=generator, dtype=torch.complex64) * 2**0.5)
        assert replicas.ratio(torch.ones(60, 60)) == pytest.approx(expected, rel=0.2)
