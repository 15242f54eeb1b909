"""Weighting of k-space."""

from __future__ import annotations

import math

import pytest
import torch

from priors.signal.fourier import fft2c
from priors.signal.weighting import Weighting


def random_kspace(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def test_weights_are_the_published_formula() -> None:
    weights = Weighting(slope=3.0, r=0.5, s=2.0, p=0.7).weights(5, 8)
    assert weights.shape == (5, 8)
    for row, column in ((0, 0), (2, 4), (4, 1), (3, 7)):
        f_y, f_x = (row - 2) / 5, (column - 4) / 8
        assert weights[row, column].item() == pytest.approx(3 * (0.5 * f_x**2 + 2 * f_y**2) ** 0.7, rel=1e-5)
    assert weights[2, 4] == 0
    assert int((weights == 0).sum()) == 1


def test_published_slope_means_the_same_weighted_data() -> None:
    image = torch.rand(1, 64, 64)
    unnormalised = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, dim=(-2, -1))), dim=(-2, -1))
    index = torch.arange(64) - 32
    radius = (index[:, None] ** 2 + index[None] ** 2).sqrt()
    expected = 0.018 / 128 * radius * unnormalised
    torch.testing.assert_close(
        Weighting.published(0.018 / 128, 64).weight(fft2c(image)), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(7, 9), (8, 10), (1, 4)])
def test_there_and_back_with_the_centre_kept(shape: tuple[int, int]) -> None:
    kspace, other = random_kspace(2, 3, *shape), random_kspace(1, 3, *shape, seed=1)
    weighting = Weighting()
    result = weighting.unweight(weighting.weight(kspace), other)
    centre = (..., shape[0] // 2, shape[1] // 2)
    assert torch.equal(result[centre], other[centre].expand(2, 3))
    result[centre] = kspace[centre]
    torch.testing.assert_close(result, kspace, rtol=1e-5, atol=1e-6)


def test_every_sample_that_the_weight_hides_is_taken_from_the_other() -> None:
    weighting, kspace, other = Weighting(s=0.0), random_kspace(6, 6), random_kspace(6, 6, seed=1)
    result = weighting.unweight(weighting.weight(kspace), other)
    assert torch.equal(result[:, 3], other[:, 3])
    torch.testing.assert_close(result[:, :3], kspace[:, :3])


def test_exponent_zero_is_plain_kspace() -> None:
    kspace = random_kspace(6, 7)
    torch.testing.assert_close(Weighting(slope=1.0, p=0.0).weight(kspace), kspace)


def test_other_exponents_leave_white_noise_as_strong() -> None:
    noise = random_kspace(128, 96)
    powers = [Weighting.of_power(p).weight(noise).abs().square().mean() for p in (0.0, 0.25, 0.5, 1.0)]
    assert Weighting.of_power(0.5) == Weighting()
    for power in powers:
        assert float(power / powers[2]) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    "values", [{"slope": 0.0}, {"r": 0.0, "s": 0.0}, {"p": -1.0}, {"r": -1.0}, {"slope": math.nan}]
)
def test_errors(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weighting: slope, r, s, p"):
        Weighting(**values)
