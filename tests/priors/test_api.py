"""The public functions on arrays: the images of a chain, defaults, units, and errors in one line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.evaluation.arrays import ArrayReconstruction
from priors import Prior, compress_coils, espirit_maps, expand_sigma, load_prior, posterior_samples, reconstruct
from priors.api import UnlikeTrainingWarning
from priors.signal.fourier import fft2c
from tests.paths import ROOT

SIZE, COILS = 40, 5
EXAMPLE = f"{ROOT / 'docs' / 'examples' / 'smoothing_prior.py'}:SmoothingPrior"


def scan(slices: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K-space (slice, coil, y, x) of smooth squares in a birdcage, its mask (R = 2) and the true images."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    angles = 2 * np.pi * np.arange(COILS) / COILS
    coils = np.stack([np.exp(1j * a) / (1 + (x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2) for a in angles])
    truth = np.stack([(1 + n) * ((abs(x) < 0.6) & (abs(y) < 0.7)) * (1.2 + x * y) for n in range(slices)])
    random = np.random.default_rng(1).standard_normal((2, slices, *coils.shape))
    kspace = fft2c(torch.from_numpy(truth[:, None] * coils)).numpy() + 0.02 * (random[0] + 1j * random[1])
    mask = np.zeros((SIZE, SIZE), bool)
    mask[::2] = mask[SIZE // 2 - 8 : SIZE // 2 + 8] = True
    return kspace.astype(np.complex64), mask, truth * np.linalg.norm(coils, axis=0)


class Halving(Prior):
    """Half of everything."""

    def denoise(self, m: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return m * (1 - expand_sigma(sigma, m) * 0.5)


@pytest.mark.parametrize("method", ["zero_filled", "cg_sense", "grappa"])
def test_classical_images_are_those_of_the_gadgets(method: str) -> None:
    (kspace,), mask, _ = scan()
    gadgets = ArrayReconstruction({"method": method})
    expected = gadgets(gadgets.with_maps(kspace * mask)).image
    for given in (reconstruct(kspace, mask, method), reconstruct(kspace * mask, method=method)):
        np.testing.assert_allclose(given, expected, atol=2e-5 * np.abs(expected).max())
        assert given.dtype == np.complex64


def test_images_with_a_prior_are_those_of_the_gadgets() -> None:
    (kspace,), mask, _ = scan()
    gadgets = ArrayReconstruction({"method": "custom", "prior": EXAMPLE, "steps": "6", "device": "cpu"})
    expected = gadgets(gadgets.with_maps(kspace * mask)).image
    for prior in (EXAMPLE, load_prior(EXAMPLE)):
        image = reconstruct(kspace, mask, prior, steps=6, device="cpu")
        np.testing.assert_allclose(image, expected, atol=2e-4 * np.abs(expected).max())


def test_slices_units_and_given_maps_change_nothing() -> None:
    kspace, mask, truth = scan(slices=2)
    together = reconstruct(kspace, mask, "cg_sense")
    assert together.shape == truth.shape and np.abs(np.abs(together) - truth).max() < 0.3 * truth.max()
    masks, maps = np.stack([mask, mask]), espirit_maps(kspace, mask)
    assert maps.shape == (2, 2, COILS, SIZE, SIZE)
    for number, one in enumerate(kspace):
        alone = reconstruct(1e-4 * one, mask, "cg_sense", maps=maps[number])
        np.testing.assert_allclose(1e4 * alone, together[number], atol=1e-4)
    np.testing.assert_array_equal(reconstruct(torch.from_numpy(kspace), masks, "cg_sense"), together)
    np.testing.assert_array_equal(reconstruct(kspace.astype(">c8"), masks, "cg_sense"), together)


def test_samples_differ_and_their_seed_repeats_them() -> None:
    kspace, mask, truth = scan(slices=2)
    samples = posterior_samples(kspace, mask, EXAMPLE, samples=3, steps=4)
    assert samples.shape == (3, *truth.shape) and np.abs(samples).std(0).max() > 0
    again = posterior_samples(kspace, mask, EXAMPLE, samples=3, steps=4)
    np.testing.assert_array_equal(again, samples)
    other = posterior_samples(kspace, mask, EXAMPLE, samples=3, steps=4, seed=1)
    assert np.abs(other - samples).max() > 0
    one = posterior_samples(kspace[0], mask, EXAMPLE, samples=2, steps=4)
    assert one.shape == (2, SIZE, SIZE)


def test_the_noise_level_is_in_the_unit_of_the_kspace() -> None:
    (kspace,), mask, _ = scan()
    images = [reconstruct(c * kspace, mask, EXAMPLE, steps=4, noise=c * 0.1) / c for c in (1.0, 1000.0)]
    np.testing.assert_allclose(images[1], images[0], atol=1e-3)
    assert np.abs(images[0] - reconstruct(kspace, mask, EXAMPLE, steps=4, noise=0.001)).max() > 0.01


def test_compressed_coils_keep_the_signal() -> None:
    (kspace,), mask, _ = scan()
    fewer = compress_coils(kspace, 3, mask)
    assert fewer.shape == (3, SIZE, SIZE) and fewer.dtype == np.complex64
    measured = kspace * mask
    assert np.linalg.norm(fewer) ** 2 > 0.9 * np.linalg.norm(measured) ** 2
    np.testing.assert_allclose(np.linalg.norm(compress_coils(kspace, COILS)), np.linalg.norm(kspace), rtol=1e-4)


def test_first_map_set_is_normalised_and_a_crop_ends_it() -> None:
    (kspace,), mask, _ = scan()
    maps = espirit_maps(kspace, mask, sets=1)
    np.testing.assert_allclose(np.linalg.norm(maps[0], axis=0), 1, atol=1e-3)
    assert np.linalg.norm(espirit_maps(kspace, mask, sets=1, crop=0.9)[0], axis=0).min() < 0.1


@pytest.mark.slow
def test_data_unlike_the_training_data_are_warned_of() -> None:
    (kspace,), mask, _ = scan()
    with pytest.warns(UnlikeTrainingWarning, match="less structure"):
        reconstruct(kspace, mask, "wkgm", steps=4)


FAULTS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], object], str]] = {
    "real k-space": (lambda k, m: reconstruct(abs(k), m), "float32 of shape .* is not complex"),
    "no numbers": (lambda k, m: reconstruct(np.array(["a"]), m), "k-space: <U1 is no array of numbers"),
    "two axes": (lambda k, m: reconstruct(k[0], m), "is not complex .coil, y, x."),
    "another mask": (lambda k, m: reconstruct(k, m[1:]), "mask: shape .39, 40. does not fit"),
    "not finite": (lambda k, m: reconstruct(k * np.nan, m), "NaN or infinite"),
    "nothing": (lambda k, m: reconstruct(0 * k, m), "slice 0 has no measured sample"),
    "no centre": (lambda k, m: reconstruct(k[:, ::2], None, "cg_sense", maps=espirit_maps(k * 0)), "no measured"),
    "few lines": (lambda k, m: espirit_maps(k, np.arange(SIZE)[:, None] % 2 + 0 * m == 0), "1 x 24 samples"),
    "other maps": (lambda k, m: reconstruct(k, m, maps=k), "maps: complex64 .* is not complex .set, coil, y, x."),
    "no such method": (lambda k, m: reconstruct(k, m, "telepathy"), "no method 'telepathy'; take zero_filled"),
    "no name": (lambda k, m: reconstruct(k, m, None), "method: an object of type NoneType is no name"),
    "no variant": (lambda k, m: reconstruct(k, m, "wkgm:bold"), "method wkgm: there is no variant .bold."),
    "no weights": (lambda k, m: reconstruct(k, m, "ebm"), "no weights come with it"),
    "no such setting": (lambda k, m: reconstruct(k, m, EXAMPLE, stepz=3), "no setting 'stepz'; it has low_rank"),
    "no such option": (lambda k, m: reconstruct(k, m, "cg_sense", seed=3), "cg_sense has no setting 'seed'"),
    "a bad value": (lambda k, m: reconstruct(k, m, EXAMPLE, steps=-1), "steps, seed and rank must be 0 or more"),
    "samples of one image": (lambda k, m: reconstruct(k, m, EXAMPLE, samples=4), "take posterior_samples"),
    "one sample": (lambda k, m: posterior_samples(k, m, EXAMPLE, samples=1), "not two or more"),
    "samples without a prior": (lambda k, m: posterior_samples(k, m, "cg_sense"), "has no prior to sample"),
    "complete samples": (lambda k, m: posterior_samples(k, None, EXAMPLE), "nothing to sample"),
    "too many coils": (lambda k, m: compress_coils(k, 6, m), "6 virtual coils cannot be made of 5"),
    "several slices": (lambda k, m: compress_coils(k[None].repeat(2, 0), 2), "one after the other"),
    "negative noise": (lambda k, m: reconstruct(k, m, EXAMPLE, noise=-1.0), "noise -1.0 is not a standard deviation"),
    "no device": (lambda k, m: reconstruct(k, m, EXAMPLE, device="abacus"), "device 'abacus' is not there"),
    "no file": (lambda k, m: load_prior(Path("missing.safetensors")), "missing"),
    "no prior": (lambda k, m: load_prior("telepathy"), "no method 'telepathy'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_errors_are_one_line(fault: str) -> None:
    (kspace,), mask, _ = scan()
    call, text = FAULTS[fault]
    with warnings.catch_warnings(), pytest.raises(ValueError, match=text) as error:
        call(kspace, mask)
    assert "\n" not in str(error.value)
