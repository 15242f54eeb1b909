"""Settings of a reconstruction: what a quality stands for, and what stands against it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from priors.domains import ImageDomain, WeightedKspaceDomain
from priors.prior import Prior, SigmaLevels
from priors.reconstruct import _central_half, reconstruct
from priors.rules.rule import RULES
from priors.settings import QUALITIES, ReconstructionSettings
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.weighting import Weighting


@pytest.mark.parametrize("rule", ["few_step", "momentum", "predictor_corrector"])
def test_steps_follow_quality_unless_they_are_given(rule: str) -> None:
    fast, standard, best = (ReconstructionSettings(quality=name).steps_of(rule) for name in QUALITIES)
    assert fast < standard == RULES[rule].steps < best
    assert ReconstructionSettings(quality="best", steps=7).steps_of(rule) == 7


def test_steps_of_a_method_count_as_standard() -> None:
    assert ReconstructionSettings(standard_steps=60).steps_of("few_step") == 60
    fast = ReconstructionSettings(standard_steps=60, quality="fast").steps_of("few_step")
    assert fast == round(60 * QUALITIES["fast"].steps)
    assert ReconstructionSettings(standard_steps=1, quality="fast").steps_of("proximal") == 1


def test_extrapolation_is_for_one_sample_of_the_few_step_rule() -> None:
    settings = ReconstructionSettings(quality="fast")
    assert settings.options_of("few_step") == {"extrapolation": QUALITIES["fast"].extrapolation}
    assert settings.options_of("momentum") == {}
    assert ReconstructionSettings(quality="fast", samples=2).options_of("few_step") == {}
    given = ReconstructionSettings(quality="fast", rule_options={"extrapolation": 0.1})
    assert given.options_of("few_step") == {"extrapolation": 0.1}


def test_an_unknown_quality_is_refused() -> None:
    with pytest.raises(ValueError, match="quality 'thorough' is unknown; take fast, standard, best"):
        ReconstructionSettings(quality="thorough")  # type: ignore[arg-type]


class _Seen(Prior):
    """Gives back what it gets, and keeps how many arrays that were, their matrix and the noise level."""

    domain = ImageDomain()
    sigma_levels = SigmaLevels((0.001, 1.0), continuous=True)

    def __init__(self) -> None:
        self.arrays: list[int] = []
        self.calls: list[tuple[tuple[int, ...], float]] = []

    def denoise(self, m: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        self.arrays.append(m.shape[1])
        self.calls.append((tuple(m.shape[-2:]), float(torch.as_tensor(sigma).min())))
        return m


@pytest.mark.parametrize(
    ("second", "expected"), [(0.03, {"standard": 1, "best": 2}), (0.3, {"standard": 2, "best": 2})]
)
def test_a_map_set_of_little_energy_is_not_the_priors(second: float, expected: dict[str, int]) -> None:
    """The image of the second set has `second` squared of the energy of the first; it is in the result all the same."""
    generator = torch.Generator().manual_seed(0)
    first_maps, second_maps = torch.linalg.qr(torch.randn(2, 2, dtype=torch.complex64, generator=generator))[0]
    maps = torch.stack([first_maps, second_maps])[None, :, :, None, None].expand(1, 2, 2, 16, 16)
    images = torch.randn(2, 16, 16, dtype=torch.complex64, generator=generator)
    images = images / torch.linalg.vector_norm(images, dim=(1, 2), keepdim=True)
    images[1] *= second
    kspace = fft2c((maps[0] * images[:, None]).sum(0))[None]
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    mask[..., ::8] = False
    for quality, sets in expected.items():
        prior = _Seen()
        settings = ReconstructionSettings(quality=quality, steps=2, data_consistency="sense", symmetries=False)
        result = reconstruct(kspace * mask, mask, maps, prior, settings, noise=1e-4)
        assert set(prior.arrays) == {sets}
        found = (maps[0, 1].conj() * ifft2c(result.kspace[0, 0])).sum(0)
        assert torch.linalg.vector_norm(found - images[1]) < 0.5 * second


def test_slices_with_and_without_a_strong_second_set_do_not_change_each_other() -> None:
    generator = torch.Generator().manual_seed(1)
    first_maps, second_maps = torch.linalg.qr(torch.randn(2, 2, dtype=torch.complex64, generator=generator))[0]
    maps = torch.stack([first_maps, second_maps])[None, :, :, None, None].expand(2, 2, 2, 16, 16)
    images = torch.randn(2, 2, 16, 16, dtype=torch.complex64, generator=generator)
    images[0, 1] *= 0.03
    kspace = fft2c((maps * images[:, :, None]).sum(1))
    mask = torch.rand(1, 1, 16, 16, generator=generator) < 0.7
    settings = ReconstructionSettings(steps=3, data_consistency="sense", symmetries=False)

    def result(chosen: slice) -> torch.Tensor:
        return reconstruct(kspace[chosen] * mask, mask, maps[chosen], _Seen(), settings, noise=1e-3).kspace[0]

    together = result(slice(None))
    for index in range(2):
        torch.testing.assert_close(together[index], result(slice(index, index + 1))[0], rtol=1e-3, atol=1e-4)


def test_the_central_half_of_weighted_kspace_is_that_of_an_image_on_half_the_matrix() -> None:
    """An image of low resolution has the same weighted k-space on a matrix of half the size, at the same maximum."""
    y, x = torch.meshgrid(torch.arange(256) - 128, torch.arange(320) - 160, indexing="ij")
    image = (torch.exp(-(x**2 + 2 * y**2) / 600) * torch.exp(0.2j * x)).to(torch.complex64)
    domain = WeightedKspaceDomain(Weighting())
    half = domain.encode(image[::2, ::2])
    torch.testing.assert_close(_central_half(domain.encode(image)), half, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [(255, 256), (192, 301), (200, 200)])
def test_the_central_half_keeps_the_centre(size: tuple[int, int]) -> None:
    array = torch.zeros(1, *size)
    array[0, size[0] // 2, size[1] // 2] = 1
    half = _central_half(array)
    assert half.shape == (1, size[0] // 2, size[1] // 2)
    assert half[0, half.shape[1] // 2, half.shape[2] // 2] == 1


def _calls(size: int, *, scale_free: bool = True, **options: Any) -> list[tuple[tuple[int, ...], float]]:
    prior = _Seen()
    prior.domain, prior.scale_free = WeightedKspaceDomain(Weighting()), scale_free  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(0)
    kspace = torch.randn(1, 4, size, size, dtype=torch.complex64, generator=generator)
    mask = torch.rand(1, 1, size, size, generator=generator) < 0.3
    mask[..., size // 2 - 8 : size // 2 + 8, size // 2 - 8 : size // 2 + 8] = True
    settings = ReconstructionSettings(steps=6, data_consistency="replacement", sigma_max=0.3, sigma_min=0.01, **options)
    result = reconstruct(kspace * mask, mask, None, prior, settings, noise=1e-3)
    assert torch.isfinite(result.kspace.abs()).all()
    assert result.kspace.shape[-2:] == (size, size)
    return prior.calls


def test_high_noise_levels_look_at_the_central_half_of_kspace() -> None:
    above = QUALITIES["standard"].coarse_above
    calls = _calls(200)
    assert {matrix for matrix, sigma in calls if sigma > above} == {(100, 100)}
    assert {matrix for matrix, sigma in calls if sigma <= above} == {(200, 200)}


@pytest.mark.parametrize(
    "options",
    [{"quality": "best"}, {"samples": 2}, {"scale_free": False}, {"sampler": "predictor_corrector"}],
    ids=str,
)
def test_where_all_of_kspace_is_looked_at_at_every_level(options: dict[str, Any]) -> None:
    assert {matrix for matrix, _ in _calls(200, **options)} == {(200, 200)}


def test_small_matrices_are_not_halved() -> None:
    assert {matrix for matrix, _ in _calls(128)} == {(128, 128)}
