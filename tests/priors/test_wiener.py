"""On a Gaussian prior every rule with every data step gives the Wiener solution, however the prior is given."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from priors.data_steps.coils import CoilStep
from priors.data_steps.linear import LinearStep
from priors.data_steps.sense import SenseStep
from priors.data_steps.step import Measurement, StepSettings
from priors.domains import Domain, ImageDomain, WeightedKspaceDomain
from priors.prior import Prior, SigmaLevels
from priors.reconstruct import Loop
from priors.rules.rule import RULES, check_rule, evaluations
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.weighting import Weighting
from tests.priors.gaussian import WAYS, ByDenoiser

# Noise and last level make every rule contract by half a step.
SIZE, COILS, NOISE, LAST = 8, 3, 0.5, 1.0
SETTINGS = StepSettings(
    low_rank=False, keep_measured="false", data_weight="likelihood", window=2, rank=1, growing_rank=False, steps=1
)
DOMAINS: dict[str, Domain] = {
    "image": ImageDomain(),
    # A small exponent keeps the problem well conditioned.
    "weighted k-space": WeightedKspaceDomain(Weighting(slope=1.5, p=0.2)),
}


def white(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return math.sqrt(2) * torch.randn(shape, dtype=torch.complex64, generator=generator)


def no_noise(like: Tensor) -> Tensor:
    """The rules are linear on a Gaussian prior: without their noise they give the mean of their samples."""
    return torch.zeros_like(like)


class Problem:
    """A linear problem, and its data step."""

    def __init__(self, kind: str, domain: Domain) -> None:
        mask = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) < 0.6
        noise = torch.tensor([NOISE])
        self.arrays = 1
        if kind == "sense":
            maps = white(1, 1, COILS, SIZE, SIZE, seed=1)
            maps = maps / maps.abs().square().sum(2, keepdim=True).sqrt()
            self.forward = lambda x: mask * fft2c((maps * x.unsqueeze(2)).sum(1))
            data = mask * white(1, COILS, SIZE, SIZE, seed=2)
            self.step: Any = SenseStep(Measurement(data, mask, maps, noise), domain, SETTINGS)
        elif kind == "coils":
            self.arrays = 2
            self.forward = lambda x: mask * fft2c(x)
            data = mask * white(1, 2, SIZE, SIZE, seed=2)
            self.step = CoilStep(Measurement(data, mask, None, noise), domain, SETTINGS)
        else:
            matrix = white(40, SIZE * SIZE, seed=3) / SIZE
            self.forward = lambda x: x.flatten(1) @ matrix.T
            data = white(1, 40, seed=2)
            adjoint = lambda y: (y @ matrix.conj()).reshape(1, 1, SIZE, SIZE)  # noqa: E731
            self.step = LinearStep(self.forward, adjoint, data, noise, domain)
        self.data = data

    def wiener(self, precision: Tensor) -> Tensor:
        """Minimum of |A x - y|^2 / sigma^2 + x^H C^-1 x, by the dense normal equations."""
        count = self.arrays * SIZE * SIZE
        basis = torch.eye(count, dtype=torch.complex64).reshape(count, 1, self.arrays, SIZE, SIZE)
        a = torch.stack([self.forward(one).flatten() for one in basis], 1).to(torch.complex128)
        inverse = torch.stack([ifft2c(precision * fft2c(one)).flatten() for one in basis], 1).to(torch.complex128)
        normal = a.mH @ a / NOISE**2 + inverse
        right = a.mH @ self.data.flatten().to(torch.complex128) / NOISE**2
        return torch.linalg.solve(normal, right).reshape(1, self.arrays, SIZE, SIZE).to(torch.complex64)


def levels(rule: str) -> Tensor:
    """A schedule that ends slowly at LAST, so that the state has time to get to where it stays."""
    if rule in ("momentum", "proximal"):
        return torch.full((150 if rule == "momentum" else 60,), LAST, dtype=torch.float64)
    if rule == "annealed":
        return torch.cat([torch.linspace(2, LAST, 5, dtype=torch.float64), torch.full((40,), LAST)])
    falling = torch.linspace(1, 0, 40, dtype=torch.float64)
    return LAST + falling**8 + 1e-6 * falling


OPTIONS: dict[str, dict[str, float]] = {
    "annealed": {"relaxation": 0.7},
    "predictor_corrector": {"snr": 10.0, "corrector_steps": 2, "realisations": 1},  # steps as long as is stable
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sense", "coils", "linear"])
@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize(("way", "domain"), [*((way, "image") for way in WAYS), (ByDenoiser, "weighted k-space")])
def test_every_rule_and_data_step_gives_the_wiener_solution(way: Any, rule: str, kind: str, domain: str) -> None:
    variance = 0.5 + torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    variance = (variance + variance.flip(0, 1).roll((1, 1), (0, 1))) / 2
    prior: Prior = way(variance, DOMAINS[domain])
    if RULES[rule].needs_levels and not prior.sigma_levels:
        with pytest.raises(ValueError, match=f"{rule} needs a prior that knows noise levels"):
            check_rule(rule, prior)
        return
    problem = Problem(kind, prior.domain)
    loop = Loop(prior, problem.step, symmetries=False)
    found = loop.run(rule, loop.begin(), levels(rule), no_noise, **OPTIONS.get(rule, {}))
    # The prior at the last noise level is N(0, C_m + sigma^2) in its own domain; the alternation of proximal steps
    # with a dual variable alone takes the noise-free one.
    metric = prior.domain.metric(SIZE, SIZE, torch.device("cpu"))
    smoothing = 0.0 if rule == "proximal" else LAST**2
    seen = metric > 0  # weighted k-space has no prior at its centre
    wanted = problem.wiener(torch.where(seen, metric / torch.where(seen, metric * variance + smoothing, 1), 0))
    assert float((found - wanted).norm() / wanted.norm()) < 1e-4


@pytest.mark.parametrize("way", WAYS)
def test_all_ways_are_one_prior(way: Any) -> None:
    variance = 0.5 + torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    prior, exact = way(variance), ByDenoiser(variance)
    m = white(2, 1, SIZE, SIZE, seed=7)
    for sigma in (0.3, torch.tensor([0.3, 1.0])):
        assert torch.allclose(prior.denoise(m, sigma), exact.denoise(m, sigma), atol=1e-4)
        assert torch.allclose(prior.prox(m, torch.as_tensor(sigma) ** -2), exact.denoise(m, sigma), atol=1e-4)
    if prior.sigma_levels:
        assert torch.allclose(prior.score(m, 0.3), exact.score(m, 0.3), atol=1e-4)


class AtTwoLevels(ByDenoiser):
    sigma_levels: ClassVar[SigmaLevels] = SigmaLevels((0.7, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"all_levels": True}, {"jacobian": True}, {"all_levels": True, "jacobian": True}])
def test_momentum_over_all_levels_and_through_the_jacobian(options: dict[str, float]) -> None:
    variance = torch.full((SIZE, SIZE), 0.8)
    prior, problem = AtTwoLevels(variance), Problem("sense", ImageDomain())
    loop = Loop(prior, problem.step, symmetries=False)
    found = loop.run("momentum", loop.begin(), levels("momentum"), no_noise, **options)
    # D = v / (v + s^2) m, so that m - D = s^2 / (v + s^2) m; its squared norm has the gradient of the square of that.
    pull = [s**2 / (variance + s**2) for s in (prior.sigma_levels.values if "all_levels" in options else (LAST,))]
    precision = torch.stack([one ** (2 if "jacobian" in options else 1) for one in pull]).mean(0) / LAST**2
    assert float((found - problem.wiener(precision)).norm() / found.norm()) < 1e-4
    assert loop.evaluations == evaluations("momentum", 150, prior, options)


def test_only_a_finite_set_of_levels_can_be_averaged_over() -> None:
    prior = ByDenoiser(torch.ones(SIZE, SIZE))
    loop = Loop(prior, Problem("sense", ImageDomain()).step)
    with pytest.raises(ValueError, match="the prior has no finite set of noise levels to average over"):
        loop.run("momentum", loop.begin(), levels("momentum"), no_noise, all_levels=True)
