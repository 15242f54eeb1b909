"""On a Gaussian prior every rule with every data step gives the Wiener solution, however the prior is given."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from priors.domains import ImageDomain
from priors.prior import Prior, SigmaLevels
from priors.reconstruct import Loop
from priors.rules.rule import RULES, check_rule, evaluations
from tests.priors.gaussian import WAYS, ByDenoiser
from tests.priors.linear_problems import DOMAINS, LAST, OPTIONS, SIZE, Problem, coloured, levels, no_noise, white


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sense", "coils", "linear"])
@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize(("way", "domain"), [*((way, "image") for way in WAYS), (ByDenoiser, "weighted k-space")])
def test_every_rule_and_data_step_gives_the_wiener_solution(way: Any, rule: str, kind: str, domain: str) -> None:
    variance = coloured()
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
