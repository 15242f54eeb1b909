"""Centred orthonormal Fourier transforms between image and k-space."""

from __future__ import annotations

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
