"""Centred orthonormal Fourier transforms."""

from __future__ import annotations

import pytest
import sigpy
import torch

from priors.signal.fourier import fft2c, hann, ifft2c, low_resolution_phase


def random_array(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(8, 12), (7, 9), (8, 5), (1, 6)])
def test_agrees_with_sigpy_for_even_and_odd_sizes(shape: tuple[int, int]) -> None:
    image = random_array(2, 3, *shape)
    expected = torch.from_numpy(sigpy.fft(image.numpy(), axes=(-2, -1)))
    torch.testing.assert_close(fft2c(image), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ifft2c(fft2c(image)), image, rtol=1e-4, atol=1e-5)


def test_orthonormal_and_adjoint_to_the_inverse() -> None:
    image, kspace = random_array(9, 6), random_array(9, 6) * 1j
    torch.testing.assert_close(fft2c(image).norm(), image.norm())
    left, right = (
        torch.vdot(kspace.flatten(), fft2c(image).flatten()),
        torch.vdot(ifft2c(kspace).flatten(), image.flatten()),
    )
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [7, 8])
def test_constant_image_is_one_sample_at_the_centre(size: int) -> None:
    kspace = fft2c(torch.ones(size, size, dtype=torch.complex64))
    expected = torch.zeros(size, size, dtype=torch.complex64)
    expected[size // 2, size // 2] = size
    torch.testing.assert_close(kspace, expected, rtol=0, atol=1e-5)


def test_other_axes() -> None:
    volume = random_array(5, 4, 6)
    torch.testing.assert_close(fft2c(volume, axes=(0,)).movedim(0, -1), fft2c(volume.movedim(0, -1), axes=(-1,)))
    torch.testing.assert_close(fft2c(volume, axes=(0, 1, 2)), fft2c(fft2c(volume), axes=(0,)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(32, 32), (31, 40)])
def test_low_resolution_phase_is_that_of_smooth_images(shape: tuple[int, int]) -> None:
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    phase = torch.polar(torch.ones(shape), 1.5 * y - x)
    image = torch.exp(-4 * (y.square() + x.square())) * phase
    found = low_resolution_phase(fft2c(image)[None], 26)[0]
    torch.testing.assert_close(found.abs(), torch.ones(shape))
    assert (found - phase).abs()[image.abs() > 0.1].max() < 0.05
    assert torch.equal(low_resolution_phase(torch.zeros(1, 4, 4, dtype=torch.complex64), 4), torch.ones(1, 4, 4) + 0j)


def test_hann_window() -> None:
    window = hann(12, 6, torch.device("cpu"))
    assert window.argmax() == 6 and window[6] == 1
    assert int((window > 1e-6).sum()) == 5
    torch.testing.assert_close(window[1:], window[1:].flip(0))
