"""Bridges between the ways of giving a prior, where they are hard, and what a rule accepts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from priors.domains import WaveletDomain
from priors.prior import Prior, SigmaLevels
from priors.reconstruct import reconstruct
from priors.rules.rule import check_rule
from priors.settings import ReconstructionSettings
from priors.sigmas import _levels, check_schedule
from tests.priors.gaussian import ByDenoiser, ByDensity


def white(*shape: int, seed: int = 0) -> torch.Tensor:
    return math.sqrt(2) * torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.016, 0.05, 0.2, 0.5])
def test_the_proximal_step_of_a_density_never_makes_it_worse(sigma: float) -> None:
    """With the variances of MR images, which differ by 10^4, and no more than the default number of steps."""
    radius = torch.linspace(0.05, 1, 16)[:, None].square() + torch.linspace(0.05, 1, 16).square()
    prior = ByDensity(0.003 / radius.square())
    prior.inner_steps = 10
    m = white(2, 1, 16, 16)
    weight = torch.tensor([sigma**-2])
    w = weight.reshape(1, 1, 1, 1)
    found, exact = prior.prox(m, weight), ByDenoiser(prior.variance).denoise(m, sigma)
    before, after, least = (prior._objective(u, m, w) for u in (m, found, exact))
    assert bool((after <= before).all())
    assert bool(((after - least) < 0.5 * (before - least)).all())
    assert float((found - exact).norm()) < float((m - exact).norm())


def test_a_density_of_noisy_images_is_exact_at_its_noise_level() -> None:
    prior, m = ByDensity(torch.full((8, 8), 0.5)), white(2, 1, 8, 8)
    prior.sigma_0 = 0.1
    exact = m * (1 - 0.1**2 / 0.5)
    torch.testing.assert_close(prior.denoise(m, 0.1), exact, rtol=1e-4, atol=1e-5)
    mixed = prior.denoise(m, torch.tensor([0.1, 0.3]))
    torch.testing.assert_close(mixed[0], exact[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[1], prior.denoise(m[1:], 0.3)[0], rtol=1e-3, atol=1e-4)


class Fixed(ByDenoiser):
    """Known at two levels, and remembers at which it was asked."""

    sigma_levels = SigmaLevels((0.02, 0.1))  # type: ignore[misc]

    def __init__(self) -> None:
        super().__init__(torch.ones(()))
        self.asked: set[float] = set()

    def denoise(self, m: torch.Tensor, sigma: Any) -> torch.Tensor:
        self.asked |= {round(float(level), 4) for level in torch.as_tensor(sigma).flatten()}
        return super().denoise(m, sigma)


def kspace() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    return white(1, 3, 16, 16) * mask, mask


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["auto", "annealed", "momentum", "proximal"])
def test_a_prior_of_a_few_levels_is_asked_at_these(sampler: Any) -> None:
    prior = Fixed()
    settings = ReconstructionSettings(sampler=sampler, steps=25, sigma_max=0.1, sigma_min=0.02)
    reconstruct(*kspace(), None, prior, settings, noise=0.02)
    assert prior.asked <= {0.02, 0.1}
    for rule in ("few_step", "predictor_corrector"):
        with pytest.raises(ValueError, match="needs a prior that knows a range"):
            check_rule(rule, prior)


@pytest.mark.parametrize("steps", [5, 11, 15, 25, 95, 800])
def test_the_annealed_schedule_ends_at_the_last_level(steps: int) -> None:
    levels = _levels("annealed", 1.0, 0.01, steps)
    assert len(levels) == steps
    assert float(levels[0]) == pytest.approx(1) and float(levels[-1]) == pytest.approx(0.01)


def test_levels_that_leave_no_room_are_refused_before_the_scan() -> None:
    prior = ByDenoiser(torch.ones(()))
    for values in ({"sigma_min": 30.0}, {"sigma_max": 1e-3}, {"sigma_max": 31.0}):
        with pytest.raises(ValueError, match="range"):
            check_schedule("few_step", ReconstructionSettings(**values), prior)  # type: ignore[arg-type]


class Wrong(Prior):
    sigma_levels = SigmaLevels((1e-3, 1.0), True)

    def __init__(self, result: Any) -> None:
        self.result = result

    def denoise(self, m: torch.Tensor, sigma: Any) -> Any:
        assert sigma.dtype == torch.float32
        return self.result


@pytest.mark.parametrize("result", [None, torch.zeros(1), torch.zeros(1, 3, 16, 16)])
def test_what_a_prior_must_give_is_said(result: Any) -> None:
    with pytest.raises(ValueError, match=r"Wrong.denoise gave a .*; it must give a complex array of \(1, 3, 16, 16\)"):
        reconstruct(*kspace(), None, Wrong(result), ReconstructionSettings(sampler="few_step", steps=2), noise=0.02)


def test_one_unknown_noise_level_leaves_the_given_ones() -> None:
    data, mask = kspace()
    both = torch.cat((data, data))
    prior = ByDenoiser(torch.ones(()))
    result = reconstruct(both, mask, None, prior, ReconstructionSettings(steps=2), noise=torch.tensor([0.02, 0.0]))
    assert float(result.noise[0]) == pytest.approx(0.02) and float(result.noise[1]) != pytest.approx(0.02)
    with pytest.raises(ValueError, match="1 keys for 2 slices"):
        reconstruct(both, mask, None, prior, keys=["a"])
    with pytest.raises(ValueError, match="keep_measured cannot be true"):
        ReconstructionSettings(data_weight="likelihood", keep_measured="true")


def test_a_domain_without_a_spectrum_has_no_warning() -> None:
    class Bands(Wrong):
        domain = WaveletDomain()
        typical_gain = (1e5, 1e6)

        def denoise(self, m: torch.Tensor, sigma: Any) -> torch.Tensor:
            return 0.9 * m

    result = reconstruct(*kspace(), None, Bands(None), ReconstructionSettings(steps=3), noise=0.02)
    assert result.warnings == [[]]
