"""Wavelet sparsity prior."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import sigpy
import torch

from priors.classical.wavelet import WaveletSparsity


def random_image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


def phantom(size: int = 64) -> torch.Tensor:
    image = torch.from_numpy(sigpy.shepp_logan((size, size)).astype(np.complex64))
    return (image * torch.exp(1j * torch.linspace(0, 2, size)))[None]


@pytest.mark.parametrize("shape", [(64, 64), (48, 80), (37, 51), (144, 192), (5, 9)])
@pytest.mark.parametrize("wavelet", ["db4", "haar", "sym5"])
def test_transform_is_orthonormal_for_any_size(shape: tuple[int, int], wavelet: str) -> None:
    prior = WaveletSparsity(wavelet=wavelet)
    image, other = random_image(2, *shape), random_image(2, *shape) * 1j
    coefficients = prior.analysis(image)
    assert coefficients.shape == image.shape
    torch.testing.assert_close(coefficients.norm(), image.norm(), rtol=1e-5, atol=0)
    torch.testing.assert_close(prior.synthesis(coefficients), image, rtol=1e-4, atol=1e-5)
    forward = torch.vdot(other.flatten(), coefficients.flatten())
    adjoint = torch.vdot(prior.synthesis(other).flatten(), image.flatten())
    torch.testing.assert_close(forward, adjoint, rtol=1e-4, atol=1e-3)


def test_coefficients_are_those_of_pywavelets() -> None:
    image = random_image(32, 48)
    ours = WaveletSparsity(levels=1).analysis(image)
    approximation, details = pywt.dwt2(image.numpy(), "db4", mode="periodization")
    for block, expected in (
        (ours[:16, :24], approximation),
        (ours[16:, :24], details[0]),
        (ours[:16, 24:], details[1]),
        (ours[16:, 24:], details[2]),
    ):
        np.testing.assert_allclose(block.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_polynomials_have_no_details_away_from_the_border() -> None:
    position = torch.arange(64, dtype=torch.float64)
    image = (position**3)[:, None] * torch.ones(64, dtype=torch.float64)
    details = WaveletSparsity(levels=1).analysis(image)[32:, :]
    assert details[4:-4].abs().max() < 1e-6 * image.abs().max()
    assert details.abs().max() > 1e-2 * image.abs().max()


def test_denoise_is_the_maximum_a_posteriori_estimate() -> None:
    prior = WaveletSparsity(strength=3.0)
    sigma = 0.2
    noisy = phantom(32) + sigma * random_image(1, 32, 32)

    def objective(image: torch.Tensor) -> torch.Tensor:
        data = (image - noisy).abs().square().sum((1, 2)) / (2 * sigma**2)
        return data + prior.strength * prior.norm(image)

    estimate = prior.denoise(noisy, sigma)
    lowest = objective(estimate)
    assert lowest < objective(noisy)
    for seed in range(5):
        step = torch.randn(1, 32, 32, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
        assert lowest < objective(estimate + 0.02 * step)
        assert lowest < objective(estimate + 0.02 * prior.denoise(step, sigma))


@pytest.mark.parametrize("shifts", [1, 4])
def test_denoising_lowers_the_error(shifts: int) -> None:
    clean = phantom()
    sigma = 0.1
    noisy = clean + sigma * random_image(*clean.shape)
    estimate = WaveletSparsity(strength=1.5 / sigma, shifts=shifts).denoise(noisy, sigma)
    assert (estimate - clean).norm() < 0.75 * (noisy - clean).norm()


def test_cycle_spinning_is_better_than_one_grid() -> None:
    clean = phantom()
    noisy = clean + 0.1 * random_image(*clean.shape)
    errors = [(WaveletSparsity(15, shifts=n).denoise(noisy, 0.1) - clean).norm() for n in (1, 8)]
    assert errors[1] < 0.95 * errors[0]


def test_sigma_per_batch_entry_and_score() -> None:
    prior = WaveletSparsity(strength=2.0)
    images = random_image(2, 3, 16, 16)
    sigma = torch.tensor([0.3, 1.1])
    together = prior.denoise(images, sigma)
    for index in range(2):
        torch.testing.assert_close(together[index], prior.denoise(images[index : index + 1], float(sigma[index]))[0])
    torch.testing.assert_close(prior.score(images, sigma)[1] * 1.1**2, together[1] - images[1])
    torch.testing.assert_close(prior.denoise(images, 0.0), images, rtol=1e-4, atol=1e-5)


def test_errors() -> None:
    with pytest.raises(ValueError, match="not an orthogonal wavelet"):
        WaveletSparsity(wavelet="bior2.2")
    with pytest.raises(ValueError, match="negative"):
        WaveletSparsity(strength=-1)
    with pytest.raises(ValueError, match="one a batch"):
        WaveletSparsity().denoise(random_image(2, 16, 16), torch.ones(3))
