"""Partial Fourier: exact where theory says so, any side and number of axes, and never worse than zero filling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.simulation.phantom import phantom
from priors.classical.partial_fourier import homodyne, partial_fourier, pocs, symmetry
from priors.signal.coverage import Acquired, missing_samples, partial_axes
from priors.signal.fourier import fft2c, ifft2c

SIZE = 64


def brain(phase: float = 1.0, size: int = SIZE) -> torch.Tensor:
    """Phantom (y, x) of smooth phase, as band-limited as a scan's."""
    points = (np.arange(2 * size) - size) / size
    drawn = torch.from_numpy(phantom(points, points, 0.0).astype(np.complex64))
    y, x = torch.meshgrid(*[torch.from_numpy(points)] * 2, indexing="ij")
    drawn = drawn * torch.exp(1j * phase * (0.6 * x + 0.8 * y**2 - 0.5 * x * y)).to(torch.complex64)
    middle = slice(size - size // 2, 2 * size - size // 2)
    return ifft2c(fft2c(drawn)[middle, middle]) / 2


def cut(image: torch.Tensor, acquired: tuple[Acquired, ...]) -> torch.Tensor:
    """The image (1, ...) of the acquired part of its k-space."""
    kspace = torch.zeros_like(image)
    place = tuple(slice(one.first, one.stop) for one in acquired)
    kspace[place] = fft2c(image, range(image.ndim))[place]
    return ifft2c(kspace, range(image.ndim))[None]


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.abs() - truth.abs()).norm() / truth.norm())


WHOLE = Acquired(SIZE, 0, SIZE)
SIDES = {
    "lower rows": (Acquired(SIZE, 20, SIZE), WHOLE),
    "upper rows": (Acquired(SIZE, 0, 45), WHOLE),
    "lower columns": (WHOLE, Acquired(SIZE, 20, SIZE)),
    "upper columns": (WHOLE, Acquired(SIZE, 0, 45)),
    "less resolution": (Acquired(SIZE, 20, 60), WHOLE),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("method", ["pocs", "homodyne"])
def test_a_smooth_phase_gives_the_missing_side(side, method):
    acquired, truth = SIDES[side], brain()
    truth_of_resolution = cut(truth, (Acquired(SIZE, 5, 60), WHOLE))[0] if side == "less resolution" else truth
    before = cut(truth, acquired)
    found, trust = partial_fourier(before, acquired, method)
    assert error(found[0], truth_of_resolution) < 0.35 * error(before[0], truth_of_resolution)
    assert trust.shape == (1,) and 0.8 < float(trust) <= 1
    missing = missing_samples(acquired)
    change = fft2c(found[0] - before[0])
    assert float(change[~missing.expand(SIZE, SIZE)].abs().max()) < 1e-5 * float(fft2c(truth).abs().max())


def test_an_odd_matrix_and_several_map_sets():
    truth = torch.stack([brain(size=45), 0.3 * brain(2.0, size=45)])
    acquired = (Acquired(45, 0, 30), Acquired(45, 0, 45))
    before = torch.stack([cut(one, acquired)[0] for one in truth])[None]
    found, _ = partial_fourier(before, acquired)
    for index in range(2):
        assert error(found[0, index], truth[index]) < 0.6 * error(before[0, index], truth[index])


def test_a_volume_and_two_axes_at_once():
    """POCS fills what has a mirror image; the corner that has none stays as it was."""
    profile = torch.linspace(0.5, 1.0, 24)[:, None, None]
    slab = (torch.arange(24)[:, None, None] > 5) & (torch.arange(24)[:, None, None] < 19)
    truth = brain()[None] * (profile * slab)
    acquired = (Acquired(24, 7, 24), Acquired(SIZE, 16, SIZE), WHOLE)
    before = cut(truth, acquired)
    found, _ = partial_fourier(before, acquired)
    assert partial_axes(acquired) == [-3, -2]
    assert error(found[0], truth) < 0.6 * error(before[0], truth)
    missing = missing_samples(acquired)
    assert missing[1, 1] and missing[1, 40] and not missing[1, 60] and not missing[12, 40]
    with pytest.raises(ValueError, match="homodyne: samples are missing along more than one axis"):
        partial_fourier(before, acquired, "homodyne")


def test_of_a_real_image_both_methods_are_exact():
    """Also where it is negative, and turned by any constant phase. The first sample of an even matrix has no mirror."""
    generator = torch.Generator().manual_seed(1)
    real = torch.randn(SIZE, SIZE, generator=generator)
    kspace = fft2c(real.to(torch.complex64))
    kspace[0], kspace[:, 0] = 0, 0
    smooth = fft2c(brain(0.0))  # most of the energy is in the centre, where the phase comes from
    truth = ifft2c(kspace * 1e-3 + smooth)
    truth = ifft2c(fft2c(truth.real.to(torch.complex64)) * (torch.arange(SIZE) > 0)[:, None]) * np.exp(0.7j)
    acquired = SIDES["lower rows"]
    before = cut(truth, acquired)
    inside = truth.abs() > 0.1 * truth.abs().max()
    for method, allowed in ((pocs, 2e-3), (homodyne, 1e-4)):
        found = method(before, acquired)[0]
        difference = (found - truth)[inside].abs().max() / truth.abs().max()
        assert float(difference) < allowed, method


def test_phase_that_the_centre_does_not_know_leaves_zeros():
    """Only where it is: elsewhere the missing side is filled in."""
    truth = brain()
    generator = torch.Generator().manual_seed(2)
    quick = torch.exp(2j * torch.pi * torch.rand(SIZE, SIZE, generator=generator))
    top = (torch.arange(SIZE) < SIZE // 2)[:, None]
    mixed = torch.where(top, truth * quick, truth)
    acquired = SIDES["lower rows"]
    before = cut(mixed, acquired)
    found, trust = partial_fourier(before, acquired)
    plain = pocs(before, acquired)
    assert error(found[0], mixed) < error(before[0], mixed) < error(plain[0], mixed)
    below = slice(SIZE // 2 + 8, None)
    assert error(found[0, below], mixed[below]) < 0.85 * error(before[0, below], mixed[below])
    local, _ = symmetry(before, acquired)
    assert float(local[0, 40:56, 16:48].mean()) > 0.3 > 0.1 > float(local[0, 8:24, 16:48].mean())
    assert float(trust) < 0.6


def test_what_mirrors_only_noise_is_not_filled_in():
    truth, level = brain(), 0.03
    generator = torch.Generator().manual_seed(3)
    noise = level * torch.view_as_complex(torch.randn(SIZE, SIZE, 2, generator=generator))
    acquired = SIDES["lower rows"]
    before = cut(truth + noise, acquired)
    blind, found = (partial_fourier(before, acquired, noise=value)[0][0] for value in (0.0, level))
    assert error(found, truth) < min(error(one, truth) for one in (before[0], blind, pocs(before, acquired)[0]))


def test_what_a_prior_knows_better_stays():
    """The missing side is already there: conjugate symmetry, which holds only in part, must not spoil it."""
    truth = brain(4.0)
    acquired = SIDES["lower rows"]
    generator = torch.Generator().manual_seed(4)
    scatter = 1e-3 * torch.view_as_complex(torch.randn(SIZE, SIZE, 2, generator=generator))
    known = cut(truth, acquired) + ifft2c(fft2c(truth + scatter) * missing_samples(acquired))
    found, _ = partial_fourier(known, acquired)
    assert error(pocs(known, acquired)[0], truth) > 3 * error(found[0], truth)
    assert error(found[0], truth) < 1.5 * error(known[0], truth) + 2e-3


@pytest.mark.parametrize(
    ("acquired", "message"),
    [
        ((WHOLE, WHOLE), "no side of k-space is missing"),
        ((Acquired(SIZE, 30, SIZE), WHOLE), "2 samples past the centre"),
        ((Acquired(32, 10, 32), WHOLE), "are not complex"),
    ],
)
def test_what_cannot_be_is_refused(acquired, message):
    with pytest.raises(ValueError, match=message):
        partial_fourier(brain()[None], acquired)


def test_acquired_samples_hold_the_centre():
    with pytest.raises(ValueError, match="33 to 63 of 64 do not hold the centre"):
        Acquired(64, 33, 64)
    assert Acquired(64, 16, 64).fraction == pytest.approx(48 / 63)
    assert Acquired(64, 16, 64).short == 16 and Acquired(64, 0, 49).short == 16
