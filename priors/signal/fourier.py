"""Centred orthonormal Fourier transforms between image and k-space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def fft2c(image: Tensor, axes: Sequence[int] = (-2, -1)) -> Tensor:
    r"""Centred orthonormal Fourier transform from image to k-space.

    Parameters
    ----------
    image : Tensor
        Complex or real array of any shape; the zero position of an axis of length n is index n // 2.
    axes : sequence of int
        Axes that are transformed, any number of them.

    Returns
    -------
    Tensor
        Complex array of the same shape, zero frequency at index n // 2 of each transformed axis.

    Notes
    -----
    :math:`k_q = n^{-1/2} \sum_r x_r e^{-2 \pi i (q - c)(r - c) / n}` with c = n // 2 along every axis.
    """
    shifted = torch.fft.ifftshift(image, dim=tuple(axes))
    return torch.fft.fftshift(torch.fft.fftn(shifted, dim=tuple(axes), norm="ortho"), dim=tuple(axes))


def ifft2c(kspace: Tensor, axes: Sequence[int] = (-2, -1)) -> Tensor:
    r"""Centred orthonormal inverse Fourier transform from k-space to image; the adjoint of `fft2c`.

    Parameters
    ----------
    kspace : Tensor
        Complex array of any shape; the zero frequency of an axis of length n is index n // 2.
    axes : sequence of int
        Axes that are transformed, any number of them.

    Returns
    -------
    Tensor
        Complex array of the same shape, zero position at index n // 2 of each transformed axis.

    Notes
    -----
    :math:`x_r = n^{-1/2} \sum_q k_q e^{2 \pi i (q - c)(r - c) / n}` with c = n // 2 along every axis.
    """
    shifted = torch.fft.ifftshift(kspace, dim=tuple(axes))
    return torch.fft.fftshift(torch.fft.ifftn(shifted, dim=tuple(axes), norm="ortho"), dim=tuple(axes))


def low_resolution_phase(kspace: Tensor, width: int) -> Tensor:
    r"""Phase factor of the image that the centre of k-space holds.

    Parameters
    ----------
    kspace : Tensor
        Complex k-space, shape (..., y, x), any size.
    width : int
        Width of the window at the centre, in samples, one or more.

    Returns
    -------
    Tensor
        Complex numbers of modulus 1, shape (..., y, x); 1 where the low-resolution image is zero.

    Notes
    -----
    :math:`e^{i \arg F^{-1} (h k)}` with the Hann window h of the given width along both axes, as in homodyne
    reconstruction (Noll et al., IEEE TMI 1991): images times its conjugate are nearly real.
    """
    height, length = kspace.shape[-2:]
    window = hann(height, width, kspace.device)[:, None] * hann(length, width, kspace.device)
    image = ifft2c(kspace * window)
    modulus = image.abs()
    return torch.where(modulus > 0, image / modulus.clamp_min(torch.finfo(modulus.dtype).tiny), 1)


def radial_frequency(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Distance of the samples of a matrix from the centre of k-space.

    Parameters
    ----------
    height, width : int
        Samples along y and x; the centre is at index n // 2.
    device : torch.device or str
        Device of the result.

    Returns
    -------
    Tensor
        float32, shape (y, x), in cycles per sample.
    """
    f_y, f_x = (((torch.arange(n, device=device) - n // 2) / n).square() for n in (height, width))
    return (f_y[:, None] + f_x).sqrt()


def hann(size: int, width: int, device: torch.device) -> Tensor:
    """Hann window of a width in the middle of `size` samples.

    Parameters
    ----------
    size : int
        Number of samples.
    width : int
        Samples from zero to zero of the window, one or more.
    device : torch.device
        Device of the result.

    Returns
    -------
    Tensor
        float32, shape (size,), 1 at index size // 2.
    """
    position = (torch.arange(size, device=device) - size // 2) * (math.pi / width)
    return torch.where(position.abs() < math.pi / 2, position.cos().square(), 0)
