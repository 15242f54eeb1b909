"""Generative reconstruction: what it is given, what it keeps, how it chooses, and what it refuses."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sigpy
import sigpy.mri
import torch

from priors.classical.cg_sense import cg_sense
from priors.data_steps.choice import unexplained_fraction
from priors.data_steps.step import measured_share
from priors.learning.checkpoints import shipped_checkpoint
from priors.learning.networks import Architecture, EdmDenoiser
from priors.reconstruct import reconstruct
from priors.registry import load_prior
from priors.rules.predictor_corrector import predictor_corrector
from priors.settings import Reconstruction, ReconstructionSettings
from priors.signal.espirit import espirit_maps
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.scale import image_scale
from priors.signal.weighting import Weighting
from priors.typicality import denoising_gain
from priors.weighted_kspace import WeightedKspacePrior

SIZE = 64
Scan = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def simulated(coils: int = 4, noise: float = 0.003, acceleration: float = 4, size: int = SIZE) -> Scan:
    """K-space of signal level 1, mask, ESPIRiT maps (one set) and the true coil k-space."""
    image = torch.from_numpy(sigpy.shepp_logan((size, size)).astype(np.complex64))
    maps = torch.from_numpy(sigpy.mri.birdcage_maps((coils, size, size)).astype(np.complex64))
    maps = (maps / torch.linalg.vector_norm(maps, dim=0))[None, None]
    truth = fft2c((maps * image)[:, 0])
    generator = torch.Generator().manual_seed(0)
    sampled = torch.rand(1, 1, size, size, generator=generator) < 1 / acceleration
    sampled[..., size // 2 - 10 : size // 2 + 10, size // 2 - 10 : size // 2 + 10] = True
    white = math.sqrt(2) * torch.randn(truth.shape, dtype=torch.complex64, generator=generator)
    kspace = (truth + noise * white) * sampled
    level = image_scale(kspace, sampled)
    centre = slice(size // 2 - 10, size // 2 + 10)
    maps = espirit_maps(kspace[..., centre, centre], (size, size), crop=0.0)
    return kspace / level, sampled, maps, truth / level


@pytest.fixture(scope="module")
def shipped() -> WeightedKspacePrior:
    prior = load_prior(shipped_checkpoint("wkgm"))[0]
    assert isinstance(prior, WeightedKspacePrior)
    return prior


def shrinking(**options: Any) -> WeightedKspacePrior:
    """A prior that only shrinks what it is given, by its noise level."""
    model = EdmDenoiser(Architecture(8, (1,), groups=4, sigma_data=0.05))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return WeightedKspacePrior(model, Weighting(), (1e-4, 10.0), bf16=False, **options)


def error(result: Reconstruction, truth: torch.Tensor, sample: int = 0) -> float:
    image, true = (torch.linalg.vector_norm(ifft2c(k), dim=1) for k in (result.kspace[sample], truth))
    return float((image - true).norm() / true.norm())


def plain(kspace: torch.Tensor) -> Reconstruction:
    """K-space as if it were a result."""
    return Reconstruction(kspace[None], "", "", torch.zeros(len(kspace)), 0, 1.0, [[] for _ in kspace])


@pytest.mark.slow
def test_better_than_sense_and_measured_samples_stay(shipped: WeightedKspacePrior) -> None:
    kspace, mask, maps, truth = simulated()
    image = cg_sense(kspace, maps, mask)
    classical = fft2c((maps * image.unsqueeze(2)).sum(1))
    before = error(plain(classical), truth)
    for settings in (ReconstructionSettings(), ReconstructionSettings(low_rank=True)):
        result = reconstruct(kspace, mask, maps, shipped, settings)
        assert result.kspace.shape == (1, *kspace.shape)
        assert result.consistency == "sense"
        assert error(result, truth) < 0.7 * before
        every = mask.expand_as(kspace)
        torch.testing.assert_close(result.kspace[0][every], kspace[every], rtol=1e-4, atol=1e-5)
        assert result.evaluations == 18  # two look whether the data are like those of the training
        assert result.finished == 1
        assert float(result.noise) == pytest.approx(0.003 / 0.97, rel=0.3)


@pytest.mark.slow
def test_calibrationless_without_maps(shipped: WeightedKspacePrior) -> None:
    kspace, mask, _, truth = simulated()
    result = reconstruct(kspace, mask, None, shipped, ReconstructionSettings(low_rank=True))
    assert result.consistency == "low_rank" and result.reason == "no coil maps"
    zero_filled = error(plain(kspace), truth)
    assert error(result, truth) < 0.35 * zero_filled
    replaced = reconstruct(kspace, mask, None, shipped, ReconstructionSettings(data_consistency="replacement"))
    assert replaced.consistency == "replacement"
    assert error(result, truth) < error(replaced, truth) < zero_filled


@pytest.mark.slow
def test_a_single_coil(shipped: WeightedKspacePrior) -> None:
    kspace, mask, maps, truth = simulated(coils=1, acceleration=2.5)
    result = reconstruct(kspace, mask, maps, shipped)
    assert error(result, truth) < 0.6 * error(plain(kspace), truth)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(48, 64), (45, 51)])
@pytest.mark.parametrize("consistency", ["sense", "low_rank"])
def test_a_slice_is_the_same_whatever_stands_beside_it(
    shape: tuple[int, int], consistency: Any, shipped: WeightedKspacePrior
) -> None:
    kspace, mask, maps, _ = simulated()
    rows, columns = (slice((SIZE - n) // 2, (SIZE - n) // 2 + n) for n in shape)
    cut = kspace[..., rows, columns].repeat(2, 1, 1, 1)
    cut[1] = 0.3 * cut[1].roll(1, 0)  # another rank, scale and noise
    small = torch.nn.functional.interpolate(torch.view_as_real(maps[0, 0]).movedim(-1, 1), shape).movedim(1, -1)
    some = torch.view_as_complex(small.contiguous())[None, None]
    some = (some / torch.linalg.vector_norm(some, dim=2, keepdim=True)).repeat(2, 1, 1, 1, 1)
    sampled = mask[..., rows, columns].repeat(2, 1, 1, 1)
    sampled[1, :, ::2] = sampled[1, :, 1:2]
    settings = ReconstructionSettings(steps=4, data_consistency=consistency, samples=2, low_rank=True)
    noise = torch.tensor([0.01, 0.03])
    keys = ["one", "other"]
    prior = shrinking()
    both = reconstruct(cut, sampled, some, prior, settings, noise=noise, keys=keys)
    turned = reconstruct(
        cut.flip(0), sampled.flip(0), some.flip(0), prior, settings, noise=noise.flip(0), keys=keys[::-1]
    )
    torch.testing.assert_close(turned.kspace.flip(1), both.kspace, rtol=1e-4, atol=1e-5)
    for index in range(2):
        one = slice(index, index + 1)
        alone = reconstruct(cut[one], sampled[one], some[one], prior, settings, noise=noise[one], keys=keys[one])
        torch.testing.assert_close(alone.kspace[:, 0], both.kspace[:, index], rtol=1e-4, atol=1e-5)


def test_slices_have_noise_of_their_own() -> None:
    kspace, mask, _, _ = simulated()
    settings = ReconstructionSettings(steps=3, samples=2, data_consistency="replacement")
    twice = kspace.repeat(2, 1, 1, 1)
    result = reconstruct(twice, mask, None, shrinking(), settings, keys=[(0, 1), (0, 2)]).kspace
    first, second = (result[1] - result[0]).flatten(1)
    correlation = (first.conj() @ second).abs() / (first.norm() * second.norm())
    assert float(correlation) < 0.05  # 1 where they repeat it


def test_the_symmetry_follows_the_step_not_the_noise_level(shipped: WeightedKspacePrior) -> None:
    kspace, mask, maps, _ = simulated()
    settings = ReconstructionSettings(steps=5, sigma_max=0.1, sigma_min=0.01, data_consistency="sense")
    first, again = (
        reconstruct(kspace, mask, maps, shipped, replace(settings, sigma_max=0.1 * (1 + 3e-6 * change)), noise=0.01)
        for change in (0, 1)
    )
    assert float((first.kspace - again.kspace).norm() / first.kspace.norm()) < 1e-4


@pytest.mark.slow
def test_seed_decides_the_samples(shipped: WeightedKspacePrior) -> None:
    kspace, mask, maps, _ = simulated()
    settings = ReconstructionSettings(samples=2, steps=6)
    first, again = (reconstruct(kspace, mask, maps, shipped, settings) for _ in range(2))
    assert torch.equal(first.kspace, again.kspace)
    assert first.kspace.shape[0] == 2
    assert not torch.equal(first.kspace[0], first.kspace[1])
    other = reconstruct(kspace, mask, maps, shipped, replace(settings, seed=1))
    assert not torch.equal(other.kspace[0], first.kspace[0])


def test_auto_looks_at_what_the_maps_explain() -> None:
    kspace, mask, maps, _ = simulated(noise=0.0)
    assert unexplained_fraction(kspace, mask, maps, torch.zeros(1)) < 0.03
    wrong = maps.roll(1, dims=2)
    assert unexplained_fraction(kspace, mask, wrong, torch.zeros(1)) > 0.3
    empty = torch.cat((wrong, 0 * maps), 1)
    assert unexplained_fraction(kspace, mask, empty, torch.zeros(1)) > 0.3
    assert unexplained_fraction(kspace, mask, torch.cat((wrong, maps), 1), torch.zeros(1)) < 0.03
    settings = ReconstructionSettings(steps=2)
    good, bad = (reconstruct(kspace, mask, some, shrinking(), settings) for some in (maps, wrong))
    assert good.consistency == "sense" and "% of the calibration signal" in good.reason
    assert bad.consistency == "low_rank" and "% of the calibration signal" in bad.reason


def test_noise_alone_is_not_a_fault_of_the_maps() -> None:
    kspace, mask, maps, _ = simulated(noise=0.05)
    right, none = (unexplained_fraction(kspace, mask, maps, torch.tensor([noise])) for noise in (0.05, 0.0))
    assert right < 0.03 < none


def test_positions_beside_the_object_are_not_judged(shipped: WeightedKspacePrior) -> None:
    kspace, mask, maps, _ = simulated(noise=0.01)
    generator = torch.Generator().manual_seed(5)
    white = 0.01 * math.sqrt(2) * torch.randn(kspace.shape, dtype=torch.complex64, generator=generator)
    both = torch.cat((kspace, white * mask))
    result = reconstruct(both, mask, maps.repeat(2, 1, 1, 1, 1), shipped, ReconstructionSettings(steps=4))
    assert result.consistency == "sense"
    assert result.warnings[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("consistency", ["sense", "low_rank"])
def test_weighted_samples_are_less_noisy_than_kept_ones(consistency: Any, shipped: WeightedKspacePrior) -> None:
    kspace, mask, maps, truth = simulated(noise=0.05)
    settings = ReconstructionSettings(data_consistency=consistency)
    kept, weighted = (
        reconstruct(kspace, mask, maps, shipped, replace(settings, keep_measured=keep)) for keep in ("true", "false")
    )
    assert error(weighted, truth) < 0.95 * error(kept, truth)


def test_share_of_measured_samples() -> None:
    mask = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) < 0.5
    misfit = torch.full((1, 1, 64, 64), 5.0) * mask
    share = measured_share(misfit, mask, torch.ones(1))
    torch.testing.assert_close(share, torch.full_like(share, 4 / 5))
    assert not measured_share(0.5 * mask, mask, torch.ones(1)).any()
    some = measured_share(misfit, mask, torch.ones(1), accepted=0.8)
    torch.testing.assert_close(some, torch.full_like(some, 4 / (4 + 1 - 0.64)))
    assert bool((measured_share(misfit, mask, torch.ones(1), accepted=1.0) == 1).all())


def test_denoising_counts_noise_more_or_less() -> None:
    mask = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.5
    misfit = 4.0 * mask
    less, same, more = (measured_share(misfit, mask, torch.ones(1), denoising=factor) for factor in (0.5, 1.0, 2.0))
    assert torch.equal(same, measured_share(misfit, mask, torch.ones(1)))
    assert torch.allclose(same[mask], torch.tensor(3 / 4)) and torch.allclose(less[mask], torch.tensor(12 / 13))
    assert torch.allclose(more[mask], torch.tensor(3 / 7))


@pytest.mark.slow
@pytest.mark.parametrize("weight", ["misfit", "likelihood"])
def test_more_denoising_follows_noisy_data_less(weight: Any, shipped: WeightedKspacePrior) -> None:
    kspace, mask, maps, _ = simulated(noise=0.03)
    settings = ReconstructionSettings(steps=6, data_consistency="sense", data_weight=weight)
    distances = []
    for factor in (0.5, 1.0, 2.0):
        result = reconstruct(kspace, mask, maps, shipped, replace(settings, denoising=factor)).kspace[0]
        distances.append(float((mask * (result - kspace)).abs().square().sum()))
    assert distances[0] < 0.9 * distances[1] < 0.81 * distances[2]


def test_little_noise_is_kept_and_much_is_weighted(shipped: WeightedKspacePrior) -> None:
    for noise, kept in ((0.003, True), (0.04, False)):
        kspace, mask, maps, _ = simulated(noise=noise)
        result = reconstruct(kspace, mask, maps, shipped, ReconstructionSettings(steps=4))
        every = mask.expand_as(kspace)
        assert torch.allclose(result.kspace[0][every], kspace[every], rtol=1e-4, atol=1e-5) is kept


def test_full_kspace_is_left_alone() -> None:
    kspace, mask, maps, _ = simulated()
    result = reconstruct(kspace, torch.ones_like(mask), maps, shrinking())
    assert torch.equal(result.kspace[0], kspace)
    assert result.consistency == "complete" and result.evaluations == 0
    sampled = reconstruct(kspace, torch.ones_like(mask), maps, shrinking(), ReconstructionSettings(samples=2))
    assert len(sampled.kspace) == 1
    assert sampled.warnings == [["k-space is complete: there is nothing to sample"]]


@pytest.mark.slow
def test_full_kspace_loses_noise_where_that_is_asked_for(shipped: WeightedKspacePrior) -> None:
    _, mask, maps, truth = simulated(noise=0.0)
    generator = torch.Generator().manual_seed(5)
    kspace = truth + 0.05 * math.sqrt(2) * torch.randn(truth.shape, dtype=torch.complex64, generator=generator)
    noisy = plain(kspace)
    result = reconstruct(kspace, torch.ones_like(mask), maps, shipped, ReconstructionSettings(keep_measured="false"))
    assert error(result, truth) < 0.8 * error(noisy, truth)


def test_window_fits_thin_slabs() -> None:
    kspace, mask, maps, _ = simulated(size=32)
    middle = slice(14, 18)
    settings = ReconstructionSettings(steps=3, low_rank=True, rank=10**6)
    for some in (maps[..., middle], None):
        result = reconstruct(kspace[..., middle], mask[..., middle], some, shrinking(), settings)
        assert bool(torch.isfinite(torch.view_as_real(result.kspace)).all())


def test_published_sampler_counts_its_evaluations() -> None:
    kspace, mask, maps, _ = simulated(size=32)
    settings = ReconstructionSettings(
        sampler="predictor_corrector", steps=5, data_consistency="low_rank", low_rank=True
    )
    result = reconstruct(kspace, mask, maps, shrinking(), settings)
    assert result.evaluations == 4 * 4 + 1
    assert result.finished == 1


@pytest.mark.parametrize("with_maps", [True, False])
def test_published_sampler_begins_with_noise_or_the_measured_samples(
    with_maps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kspace, mask, maps, _ = simulated(size=32)
    seen: list[torch.Tensor] = []

    def noting(prior: Any, initial: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        seen.append(initial)
        return predictor_corrector(prior, initial, *rest, **options)

    monkeypatch.setitem(sys.modules["priors.reconstruct"]._RUN, "predictor_corrector", noting)
    settings = ReconstructionSettings(sampler="predictor_corrector", steps=3, low_rank=True)
    for start in ("noise", "measured"):
        reconstruct(kspace, mask, maps if with_maps else None, shrinking(), replace(settings, start=start))
    assert not seen[0].any()
    measured = (maps.conj() * ifft2c(kspace)[:, None]).sum(2) if with_maps else ifft2c(kspace)
    weighted = Weighting().weight(fft2c(0.6 * measured))
    torch.testing.assert_close(seen[1], weighted[:, : seen[1].shape[1]], rtol=1e-4, atol=1e-4)


def stopping_after(steps: int) -> Callable[[], bool]:
    asked = iter(range(10**6))
    return lambda: next(asked) >= steps - 1


def test_stop_leaves_the_estimate_so_far() -> None:
    kspace, mask, maps, _ = simulated(size=32)
    result = reconstruct(kspace, mask, maps, shrinking(), ReconstructionSettings(steps=8), stop=stopping_after(2))
    assert result.finished == 2 / 8
    assert bool(torch.isfinite(torch.view_as_real(result.kspace)).all())
    settings = ReconstructionSettings(steps=8, samples=3)
    for steps, whole in ((9, 1), (15, 1), (17, 2)):  # a stopped sample is none
        shorter = reconstruct(kspace, mask, maps, shrinking(), settings, stop=stopping_after(steps))
        assert len(shorter.kspace) == whole


def test_unlike_data_are_warned_of() -> None:
    kspace, mask, maps, _ = simulated()
    for limits, text in (((1e-6, 1e6), None), ((1e5, 1e6), "less structure"), ((1e-6, 1e-5), "more noise")):
        result = reconstruct(kspace, mask, maps, shrinking(typical_gain=limits), ReconstructionSettings(steps=2))
        assert len(result.warnings[0]) == (text is not None)
        assert text is None or text in result.warnings[0][0]


def test_the_shipped_prior_knows_a_phantom_from_noise(shipped: WeightedKspacePrior) -> None:
    y, x = torch.meshgrid(torch.arange(128) - 64, torch.arange(128) - 64, indexing="ij")
    disc = ((x.square() + y.square()) < 45**2).to(torch.complex64)
    noise = torch.randn(128, 128, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    gains = denoising_gain(shipped, torch.stack((disc, noise, 0 * noise)))
    low, high = shipped.typical_gain or (0, 0)
    assert gains[0] < low < high < gains[1]
    assert gains[2] == 1
    torch.testing.assert_close(denoising_gain(shipped, 7 * disc[None])[0], gains[0], rtol=0.05, atol=0)


def test_a_prior_that_gives_nan_is_found_out() -> None:
    prior = shrinking()
    kspace, mask, maps, _ = simulated(size=32)
    torch.nn.init.constant_(next(iter(prior.model.parameters())), math.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        reconstruct(kspace, mask, maps, prior, ReconstructionSettings(steps=2))


def test_errors() -> None:
    kspace, mask, maps, _ = simulated(size=32)
    prior = shrinking()
    for empty in ((kspace, 0 * mask), (0 * kspace, mask)):
        with pytest.raises(ValueError, match="no sample of k-space"):
            reconstruct(*empty, maps, prior)
    with pytest.raises(ValueError, match="no coil maps"):
        reconstruct(kspace, mask, None, prior, ReconstructionSettings(data_consistency="sense"))
    with pytest.raises(ValueError, match="leave the range"):
        reconstruct(kspace, mask, maps, prior, ReconstructionSettings(sigma_max=100.0))
    with pytest.raises(ValueError, match="not complex"):
        reconstruct(kspace.real, mask, maps, prior)
    with pytest.raises(ValueError, match="mask of shape"):
        reconstruct(kspace, mask[..., 1:], maps, prior)
    with pytest.raises(ValueError, match="coil maps of shape"):
        reconstruct(kspace, mask, maps[:, :, 1:], prior)
    for values in (
        {"steps": -1}, {"samples": 0}, {"window": 0}, {"sigma_max": math.nan},
        {"sigma_max": 0.1, "sigma_min": 0.2}, {"sampler": "best"}, {"keep_measured": "no"},
        {"data_consistency": "none"},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(values))):
            ReconstructionSettings(**values)  # type: ignore[arg-type]
