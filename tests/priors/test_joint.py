"""Lists of priors: on Gaussian ones every rule ends at the Wiener solution of their product."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from priors.domains import Domain, ImageDomain, ReplicaDomain, WaveletDomain, WeightedKspaceDomain
from priors.joint import HaarSparsity, JointDomain, JointPrior, common_levels
from priors.prior import Prior, SigmaLevels
from priors.prior_list import PriorTerm, is_prior_list, read_prior_list, with_absolute_files
from priors.reconstruct import Loop, reconstruct
from priors.rules.noise import SliceNoise
from priors.rules.rule import RULES
from priors.settings import ReconstructionSettings
from priors.signal.fourier import fft2c
from priors.signal.weighting import Weighting
from tests.priors.gaussian import ByDenoiser, ByDensity, ByLatent
from tests.priors.linear_problems import DOMAINS, LAST, OPTIONS, SIZE, Problem, coloured, levels, no_noise, white


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sense", "linear"])
@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("other", list(DOMAINS))
def test_two_gaussian_priors_give_the_wiener_solution_of_their_product(rule: str, kind: str, other: str) -> None:
    variances, weights = (coloured(), 2 - coloured()), (1.0, 3.0)
    domains = (ImageDomain(), DOMAINS[other])
    members = [ByDenoiser(variance, domain) for variance, domain in zip(variances, domains, strict=True)]
    prior = JointPrior(list(zip(weights, members, strict=True)))
    problem = Problem(kind, prior.domain)
    loop = Loop(prior, problem.step, symmetries=False)
    found = loop.run(rule, loop.begin(), levels(rule), no_noise, **OPTIONS.get(rule, {}))
    # The alternation of proximal steps ends at the product itself, the others at that of priors smoothed by the level.
    smoothing = 0.0 if rule == "proximal" else LAST**2
    precision = torch.zeros(SIZE, SIZE)
    for variance, domain, weight in zip(variances, domains, (0.25, 0.75), strict=True):
        metric = domain.metric(SIZE, SIZE, torch.device("cpu"))
        seen = metric > 0
        precision += weight * torch.where(seen, metric / torch.where(seen, metric * variance + smoothing, 1), 0)
    wanted = problem.wiener(precision)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-4


@pytest.mark.parametrize("way", [ByDensity, ByLatent])
def test_priors_without_levels_join_by_proximal_steps(way: Any) -> None:
    variances = (coloured(), 2 - coloured())
    prior = JointPrior([(1, way(variances[0])), (1, ByDenoiser(variances[1]))])
    assert not prior.sigma_levels
    problem = Problem("sense", prior.domain)
    loop = Loop(prior, problem.step, symmetries=False)
    found = loop.run("proximal", loop.begin(), levels("proximal"), no_noise)
    wanted = problem.wiener(sum(0.5 / variance for variance in variances))
    assert float((found - wanted).norm() / wanted.norm()) < 1e-4


DOMAIN_LISTS: list[tuple[Domain, ...]] = [
    (ImageDomain(), ImageDomain()),
    (ImageDomain(), WeightedKspaceDomain(Weighting())),
    (WeightedKspaceDomain(Weighting()), WeightedKspaceDomain(Weighting(slope=1.5, p=0.2))),
    (ReplicaDomain(1), WaveletDomain(), ReplicaDomain(3), ImageDomain()),
]


@pytest.mark.parametrize("domains", DOMAIN_LISTS)
@pytest.mark.parametrize("size", [(8, 8), (6, 9)])
def test_the_joint_domain(domains: tuple[Domain, ...], size: tuple[int, int]) -> None:
    domain = JointDomain(domains, [0.5, 0.3, 0.15, 0.05][: len(domains)])
    x = white(2, 3, *size, seed=1)
    m = domain.encode(x)
    assert m.shape == (2, 3, domain.bands, *size)
    torch.testing.assert_close(domain.decode(m, x), x, rtol=1e-4, atol=1e-5)
    metric = domain.metric(*size, torch.device("cpu")) * torch.ones(size)
    torch.testing.assert_close(
        m.abs().square().sum((-3, -2, -1)), (metric * fft2c(x).abs().square()).sum((-2, -1)), rtol=1e-4, atol=1e-4
    )
    for part, own in zip(domain.parts(m), domains, strict=True):
        torch.testing.assert_close(part, own.encode(x))
    for kind in range(8):
        torch.testing.assert_close(
            domain.symmetric(domain.symmetric(m, kind), kind, back=True), m, rtol=1e-4, atol=1e-5
        )


def test_noise_is_the_same_image_in_all_parts() -> None:
    domain = JointDomain((ImageDomain(), ImageDomain()), (0.5, 0.5))
    m = domain.encode(white(1, 1, 64, 64, seed=2))
    noise = domain.noise(SliceNoise(0, 0, [0], torch.device("cpu")), m)
    first, second = domain.parts(noise)
    torch.testing.assert_close(first, second)
    assert float(torch.view_as_real(first).std()) == pytest.approx(1, rel=0.05)


def test_a_list_of_one_prior_twice_is_that_prior() -> None:
    maps = white(1, 1, 3, SIZE, SIZE, seed=1)
    maps = maps / maps.abs().square().sum(2, keepdim=True).sqrt()
    mask = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) < 0.6
    kspace = mask * fft2c(maps[:, 0] * white(1, 1, SIZE, SIZE, seed=3)) / 5
    one = ByDenoiser(0.1 * coloured())
    twice = JointPrior([(0.2, one), (4.0, one)])
    for settings in (
        ReconstructionSettings(samples=2, steps=6),
        ReconstructionSettings(sampler="proximal", steps=6, data_weight="likelihood"),
        ReconstructionSettings(data_consistency="replacement", steps=6, sampler="momentum"),
    ):
        found = reconstruct(kspace, mask, maps, twice, settings, noise=0.01)
        wanted = reconstruct(kspace, mask, maps, one, settings, noise=0.01)
        torch.testing.assert_close(found.kspace, wanted.kspace, rtol=1e-3, atol=1e-5)
        assert found.evaluations == wanted.evaluations


def test_few_details() -> None:
    prior = HaarSparsity(rate=2.0)
    x = white(1, 1, 8, 8, seed=4)
    m = prior.domain.encode(x)
    found = prior.prox(m, 4.0)
    torch.testing.assert_close(found[..., 0, :, :], m[..., 0, :, :])
    torch.testing.assert_close(found[..., 1:, :, :].abs(), (m[..., 1:, :, :].abs() - 0.5).clamp_min(0))
    # The proximal step is the least of what it minimises.
    objective = lambda u: float(2 * (u - m).abs().square().sum() - prior.log_prior(u).sum())  # noqa: E731
    for seed in range(3):
        assert objective(found) < objective(found + 0.01 * white(*m.shape, seed=seed))
    joint = JointPrior([(1, prior), (1, ByDensity(torch.ones(8, 8)))])
    assert joint.log_prior(joint.domain.encode(x)) is not None


class Phaseless(ByDenoiser):
    phase_width = 24


def test_what_cannot_be_joined() -> None:
    one = ByDenoiser(torch.ones(SIZE, SIZE))
    for members, message in (
        ([(1.0, one)], "a list of priors has two or more"),
        ([(1.0, one), (0.0, one)], "finite weights above zero"),
        ([(1.0, one), (float("nan"), one)], "finite weights above zero"),
        ([(1.0, one), (1.0, Phaseless(torch.ones(SIZE, SIZE)))], "windows of 0 and 24 samples"),
    ):
        with pytest.raises(ValueError, match=message):
            JointPrior(members)  # type: ignore[arg-type]
    assert JointPrior([(1.0, HaarSparsity()), (1.0, Phaseless(torch.ones(SIZE, SIZE)))]).phase_width == 24


def test_common_levels() -> None:
    wide, narrow = SigmaLevels((0.01, 1.0), True), SigmaLevels((0.1, 2.0), True)
    few, others = SigmaLevels((0.05, 0.2)), SigmaLevels((0.3,))
    assert common_levels([wide, narrow]) == SigmaLevels((0.1, 1.0), True)
    assert common_levels([wide, few]) == few and common_levels([narrow, few]) == SigmaLevels((0.2,))
    assert not common_levels([wide, SigmaLevels()])
    for levels_, message in (
        ([few, others], "these know 0.05, 0.2 and 0.3"),
        ([SigmaLevels((3.0, 4.0), True), narrow], "these know 3 to 4 and 0.1 to 2"),
        ([SigmaLevels((2.0, 4.0), True), narrow], "these know 2 to 4 and 0.1 to 2"),
    ):
        with pytest.raises(ValueError, match=f"must know common noise levels; {message}"):
            common_levels(levels_)


def test_members_change_for_a_scan_and_a_device() -> None:
    class PerScan(ByDenoiser):
        def begin_scan(self, measurement: Any) -> Prior:
            return ByDenoiser(2 * self.variance)

    joint = JointPrior([(1, PerScan(torch.ones(SIZE, SIZE))), (3, HaarSparsity())])
    assert joint.each() == joint.members and joint.members[0].each() == (joint.members[0],)
    changed = joint.begin_scan(None).to(torch.device("cpu"))
    first = changed.members[0]
    assert isinstance(first, ByDenoiser) and torch.equal(first.variance, torch.full((SIZE, SIZE), 2.0))
    assert changed.weights == joint.weights == (0.25, 0.75)


def test_lists_as_texts(tmp_path: Any) -> None:
    found = read_prior_list(" 0.5*a.safetensors +wkgm + 2e-1*dir/b c.safetensors + low_rank")
    assert found.terms == (PriorTerm("a.safetensors", 0.5), PriorTerm("wkgm"), PriorTerm("dir/b c.safetensors", 0.2))
    assert found.low_rank
    assert read_prior_list(with_absolute_files("2*~/a.safetensors + wavelet")).terms[1] == PriorTerm("wavelet")
    assert is_prior_list("a + b") and is_prior_list("2*a") and not is_prior_list("a.safetensors")
    named_so = tmp_path / "a+b.safetensors"
    named_so.write_bytes(b"")
    assert not is_prior_list(str(named_so))
    for text, message in (
        ("wkgm +", "a list of priors has an empty term in 'wkgm \\+'"),
        ("*wkgm", "a list of priors has an empty term"),
        ("0*wkgm + hkgm", "weight '0' of prior wkgm is no number above 0"),
        ("-1*wkgm + hkgm", "weight '-1' of prior wkgm is no number above 0"),
        ("half*wkgm + hkgm", "weight 'half' of prior wkgm is no number above 0"),
        ("nan*wkgm + hkgm", "weight 'nan' of prior wkgm is no number above 0"),
        ("wkgm + 2*low_rank", "low_rank has no weight: it is part of the data step; leave '2\\*' out"),
        ("low_rank + low_rank", "low_rank alone is no prior; add one, as in wkgm \\+ low_rank"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            read_prior_list(text)
        assert "\n" not in str(caught.value)
