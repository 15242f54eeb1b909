"""Sparse-view CT: the projections and their adjoint, a Gaussian prior, the norm's exponent, the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.transform import radon

from benchmarks import ct
from benchmarks.ct import PRIOR_WEIGHT, SIGMA, ParallelBeam, PositiveStep, filtered_back_projection, reconstructed
from priors.data_steps.linear import LinearStep
from priors.domains import ImageDomain
from priors.prior import SigmaLevels
from priors.reconstruct import Loop
from priors.rules.relaxation import BLUNT, SCALE, SHARP, SHARP_AFTER, WEIGHTED_AFTER, momentum
from priors.signal.fourier import fft2c, ifft2c
from tests.priors.gaussian import ByDenoiser, ByDensity
from tests.priors.linear_problems import no_noise, white


@pytest.mark.parametrize("size", [8, 9])
def test_projections_are_those_of_scikit_image(size: int) -> None:
    beam = ParallelBeam(size, 12)
    image = torch.rand(size, size, generator=torch.Generator().manual_seed(0))
    found = beam.forward(image.to(torch.complex64)[None, None])[0, 0]
    wanted = radon(image.numpy().astype(np.float64), beam.angles, circle=False).T
    assert found.shape == wanted.shape and not found.imag.any()
    assert np.abs(found.real.numpy() - wanted).max() < 1e-4 * wanted.max()


def test_the_adjoint() -> None:
    beam = ParallelBeam(7, 5)
    x, y = white(2, 3, 7, 7, seed=1), white(2, 3, 5, beam.bins, seed=2)
    left = (beam.forward(x).conj() * y).sum()
    right = (x.conj() * beam.adjoint(y)).sum()
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_a_gaussian_prior_gives_the_wiener_solution() -> None:
    size, noise, level = 6, 0.5, 1.0
    beam, variance = ParallelBeam(size, 4), torch.full((size, size), 0.8)
    prior = ByDenoiser(variance)
    data = white(1, 1, 4, beam.bins, seed=3)
    step = LinearStep(beam.forward, beam.adjoint, data, torch.tensor([noise]), prior.domain)
    loop = Loop(prior, step, symmetries=False)
    found = loop.run("momentum", loop.begin(), torch.full((150,), level, dtype=torch.float64), no_noise)
    basis = torch.eye(size**2, dtype=torch.complex64).reshape(-1, 1, 1, size, size)
    a = torch.stack([beam.forward(one).flatten() for one in basis], 1).to(torch.complex128)
    inverse = torch.stack([ifft2c(fft2c(one) / (variance + level**2)).flatten() for one in basis], 1)
    normal = a.mH @ a / noise**2 + inverse.to(torch.complex128)
    right = a.mH @ data.flatten().to(torch.complex128) / noise**2
    wanted = torch.linalg.solve(normal, right).reshape(1, 1, size, size).to(torch.complex64)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-4


@pytest.mark.parametrize(("round_", "threshold"), [(WEIGHTED_AFTER, BLUNT), (SHARP_AFTER, SHARP)])
@pytest.mark.parametrize("jacobian", [False, True])
def test_the_exponent_weights_large_errors_less(round_: int, threshold: float, jacobian: bool) -> None:
    prior = ByDenoiser(torch.ones(4, 4))  # D = m / 2 at level 1
    seen: list[torch.Tensor] = []

    def data_step(m: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        seen.append(m)
        return start

    start = white(1, 1, 4, 4, seed=4)
    sigmas = torch.ones(round_ + 1, dtype=torch.float64)
    momentum(prior, start, sigmas, data_step, no_noise, momentum=0.0, jacobian=jacobian, exponent=0.8)
    error = start / 2
    gradient = error / 2 if jacobian else error
    weight = threshold / (threshold + (SCALE * error.abs()) ** 1.2)
    torch.testing.assert_close(seen[-1], start - weight * gradient)
    torch.testing.assert_close(seen[WEIGHTED_AFTER - 1], start - gradient)
    with pytest.raises(ValueError, match="exponent 0 must be above 0 and at most 2"):
        momentum(prior, start, sigmas, data_step, no_noise, exponent=0)


class Known(ByDenoiser):
    sigma_levels = SigmaLevels((0.01, 1.0), True)  # type: ignore[misc]


def test_images_are_positive_and_better_than_without_a_prior() -> None:
    beam = ParallelBeam(16, 10)
    y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, 16)], indexing="ij")
    truth = ((y.square() + x.square()).sqrt() < 0.6).float()
    projections = beam.forward(truth.to(torch.complex64)[None, None])[0, 0].real
    power = fft2c(truth.to(torch.complex64)).abs().square() / 2 + 1e-3
    found = reconstructed(Known(power), beam, projections, 2.0, 10)
    assert found.shape == (16, 16) and bool((found >= 0).all())
    plain = filtered_back_projection(projections, beam)
    assert float((found - truth).norm()) < 0.5 * float((plain - truth).norm())
    with pytest.raises(ValueError, match=f"noise levels: {SIGMA:.3g} to {SIGMA:.3g} leave the range"):
        narrow = Known(power)
        narrow.sigma_levels = SigmaLevels((0.5, 1.0), True)  # type: ignore[misc]
        reconstructed(narrow, beam, projections, 2.0, 1)
    assert reconstructed(ByDensity(power), beam, projections, 2.0, 1).shape == (16, 16)  # none needed


def test_negative_values_go_before_and_after_the_data_step() -> None:
    beam = ParallelBeam(6, 4)
    data = beam.forward(white(1, 1, 6, 6, seed=5))
    noise = torch.full((1,), PRIOR_WEIGHT)
    step = PositiveStep(LinearStep(beam.forward, beam.adjoint, data, noise, ImageDomain()))
    first = step.begin()
    assert bool((first.real >= 0).all()) and not first.imag.any()
    moved = white(1, 1, 6, 6, seed=6)
    variance = torch.tensor(1.0)
    torch.testing.assert_close(step(moved, variance), step(moved.real.clamp_min(0).to(moved.dtype), variance))


def test_the_table_without_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    np.save(tmp_path / "ct.npy", np.random.default_rng(0).random((2, 20, 20)))
    monkeypatch.setattr("sys.argv", ["ct", "--size", "16", "--images", str(tmp_path / "ct.npy")])
    ct.main()
    printed = capsys.readouterr().out
    assert "filtered back projection" in printed and "not measured" in printed and "47.54" in printed
    assert ct.slices_of(None, 32).shape == (2, 32, 32)
