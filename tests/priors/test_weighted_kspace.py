"""Prior of weighted k-space."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from priors.learning.networks import Architecture, EdmDenoiser
from priors.signal.weighting import Weighting
from priors.weighted_kspace import WeightedKspacePrior


def random_array(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def prior_of(copies: int = 1, linear: bool = False, **options: Any) -> WeightedKspacePrior:
    """Prior with random weights; a linear one only shrinks its input."""
    torch.manual_seed(0)
    model = EdmDenoiser(Architecture(8, (1, 2), groups=4, copies=copies, sigma_data=0.5))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter) if linear else torch.nn.init.normal_(parameter, std=0.2)
    return WeightedKspacePrior(model, Weighting(), (0.01, 10.0), bf16=False, **options)


@pytest.mark.parametrize("copies", [1, 3])
def test_coils_and_slices_are_the_batch(copies: int) -> None:
    prior, kspace = prior_of(copies), random_array(2, 3, 12, 15)
    result = prior.denoise(kspace, 0.3)
    assert result.shape == kspace.shape
    if copies == 1:
        alone = torch.stack([prior.denoise(coil, 0.3) for coil in kspace])
        torch.testing.assert_close(result, alone, rtol=1e-3, atol=1e-4)
        parts = prior_of(batch_size=4).denoise(kspace, 0.3)
        torch.testing.assert_close(result, parts, rtol=1e-3, atol=1e-4)
    assert torch.equal(result, prior.denoise(kspace, 0.3))


def test_noise_level_of_every_slice() -> None:
    prior, kspace = prior_of(), random_array(2, 3, 12, 12)
    result = prior.denoise(kspace, torch.tensor([0.1, 2.0]))
    torch.testing.assert_close(result[:1], prior.denoise(kspace[:1], 0.1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(result[1:], prior.denoise(kspace[1:], 2.0), rtol=1e-3, atol=1e-4)
    score = prior.score(kspace, torch.tensor([0.1, 2.0]))
    torch.testing.assert_close(score[1], (result[1] - kspace[1]) / 4, rtol=1e-3, atol=1e-4)


def test_high_dimensional_embedding_tells_the_network_the_noise_of_its_channels() -> None:
    prior, kspace = prior_of(3, linear=True), random_array(2, 16, 16)
    result = prior.denoise(kspace, 0.4)
    torch.testing.assert_close(result, 0.25 / (0.25 + 3 * 0.16) * kspace, rtol=1e-4, atol=1e-5)
    assert prior.sigma_levels.values == pytest.approx((0.01 / math.sqrt(3), 10 / math.sqrt(3)))


def test_high_dimensional_embedding_has_independent_noise() -> None:
    prior, sigma = prior_of(3), 0.7
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    prior.model.register_forward_hook(lambda module, inputs, output: seen.append(inputs))
    noise = sigma * math.sqrt(2) * random_array(1, 128, 128, seed=7)
    prior.denoise(noise, sigma)
    channels, level = seen[0]
    assert level.item() == pytest.approx(math.sqrt(3) * sigma)
    torch.testing.assert_close(channels.mean(1), noise, rtol=1e-4, atol=1e-5)
    parts = torch.view_as_real(channels[0]).movedim(-1, 1).flatten(0, 1).flatten(1)
    covariance = parts @ parts.T / parts.shape[1]
    torch.testing.assert_close(covariance, 3 * sigma**2 * torch.eye(6), rtol=0, atol=0.06)


def test_bf16_is_near() -> None:
    prior, kspace = prior_of(), random_array(1, 16, 16)
    exact = prior.denoise(kspace, 0.3)
    prior.bf16 = True
    assert 0 < (prior.denoise(kspace, 0.3) - exact).norm() < 0.05 * exact.norm()


def test_double_precision_stays() -> None:
    assert prior_of().denoise(random_array(1, 8, 8).to(torch.complex128), 0.3).dtype == torch.complex128


def test_levels_that_the_network_does_not_know() -> None:
    prior = prior_of()
    prior.sigma_levels.check(torch.tensor([10.0, 0.01]))
    for wrong in (11.0, 0.009, math.nan):
        with pytest.raises(ValueError, match="leave the range"):
            prior.sigma_levels.check(torch.tensor([1.0, wrong]))


def test_a_slice_does_not_depend_on_its_neighbours() -> None:
    prior, kspace = prior_of(3), random_array(3, 1, 12, 12)
    levels = torch.tensor([0.1, 0.5, 2.0])
    turned = prior.denoise(kspace.flip(0), levels.flip(0)).flip(0)
    torch.testing.assert_close(prior.denoise(kspace, levels), turned, rtol=1e-4, atol=1e-5)


def test_errors() -> None:
    prior = prior_of()
    with pytest.raises(ValueError, match="complex"):
        prior.denoise(torch.zeros(1, 8, 8), 0.1)
    with pytest.raises(ValueError, match="complex"):
        prior.denoise(random_array(8, 8), 0.1)
    with pytest.raises(ValueError, match="sigma"):
        prior.denoise(random_array(2, 8, 8), torch.tensor([0.1, 0.2, 0.3]))
    model = EdmDenoiser(Architecture(8, (1,), groups=4))
    with pytest.raises(ValueError, match="sigma range"):
        WeightedKspacePrior(model, Weighting(), (0.5, 0.1))
    with pytest.raises(ValueError, match="batch size"):
        WeightedKspacePrior(model, Weighting(), (0.1, 0.5), batch_size=0)
