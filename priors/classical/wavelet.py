"""Sparsity in an orthonormal periodic wavelet basis."""

from __future__ import annotations

from functools import lru_cache

import pywt
import torch
from torch import Tensor

from priors.prior import Prior, expand_sigma

_SMALLEST_APPROXIMATION = 8


@lru_cache(maxsize=64)
def _analysis_matrix(wavelet: str, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One level of the periodic wavelet transform as an orthonormal (size, size) matrix, low pass rows first.

    The last sample of an odd length goes to the low pass unchanged, which keeps the matrix orthonormal
    without padding.
    """
    matrix = torch.zeros(size, size, dtype=torch.float64)
    half = size // 2
    low = size - half
    for taps, first_row in ((pywt.Wavelet(wavelet).rec_lo, 0), (pywt.Wavelet(wavelet).rec_hi, low)):
        for row in range(half):
            for tap, value in enumerate(taps):
                matrix[first_row + row, (2 * row + tap + 1 - len(taps) // 2) % (2 * half)] += value
    if size % 2:
        matrix[low - 1, size - 1] = 1
    return matrix.to(dtype=dtype, device=device)


class WaveletSparsity(Prior):
    r"""Laplace prior on the detail coefficients of an orthonormal periodic wavelet transform.

    Parameters
    ----------
    strength : float
        Inverse scale of the Laplace density, in 1 / image units; zero or above.
    wavelet : str
        Name of an orthogonal wavelet of PyWavelets.
    levels : int, optional
        Number of decomposition levels; as many as leave an approximation of at least 8 samples if not given,
        at most 5.
    shifts : int
        Number of diagonal shifts that `denoise` averages over (cycle spinning); 1 is the plain basis.

    Raises
    ------
    ValueError
        If the wavelet is not orthogonal or a number is out of range.

    Notes
    -----
    :math:`\log p(x) = -\lambda \|W x\|_1` over the detail coefficients, the modulus of complex coefficients
    being taken, so that :math:`D(m, \sigma) = W^H \mathrm{soft}(W m, \lambda \sigma^2)` is the maximum a
    posteriori estimate. Images of any size, odd too. Cycle spinning: Coifman and Donoho, 1995.
    """

    def __init__(self, strength: float = 1.0, wavelet: str = "db4", levels: int | None = None, shifts: int = 1) -> None:
        if strength < 0 or shifts < 1 or (levels is not None and levels < 0):
            raise ValueError("wavelet sparsity: strength and levels must not be negative and shifts must be at least 1")
        if not pywt.Wavelet(wavelet).orthogonal:
            raise ValueError(f"wavelet sparsity: {wavelet!r} is not an orthogonal wavelet; take db4, sym4 or haar")
        self.strength = strength
        self.wavelet = wavelet
        self.levels = levels
        self.shifts = shifts

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Sizes of the approximations that the levels start from.

        Parameters
        ----------
        height, width : int
            Size of the image.

        Returns
        -------
        list of (int, int)
            One (y, x) for every level, the image itself first; then the size of the last approximation.
        """
        sizes = [(height, width)]
        levels = 5 if self.levels is None else self.levels
        while len(sizes) <= levels:
            smaller = ((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2)
            if min(sizes[-1]) < 2 or (self.levels is None and min(smaller) < _SMALLEST_APPROXIMATION):
                break
            sizes.append(smaller)
        return sizes

    def analysis(self, image: Tensor) -> Tensor:
        """Wavelet coefficients in the usual nested layout, the approximation at the top left.

        Parameters
        ----------
        image : Tensor
            Real or complex array of shape (..., y, x).

        Returns
        -------
        Tensor
            Coefficients of the shape of `image`; the transform is orthonormal.
        """
        coefficients = _planes(image).clone()
        for height, width in self.sizes(*image.shape[-2:])[:-1]:
            corner = coefficients[..., :height, :width]
            corner.copy_(self._matrix(height, corner) @ corner @ self._matrix(width, corner).mT)
        return _from_planes(coefficients, image)

    def synthesis(self, coefficients: Tensor) -> Tensor:
        """Image of wavelet coefficients; the inverse and the adjoint of `analysis`.

        Parameters
        ----------
        coefficients : Tensor
            Real or complex array of shape (..., y, x).

        Returns
        -------
        Tensor
            Image of the shape of `coefficients`.
        """
        image = _planes(coefficients).clone()
        for height, width in reversed(self.sizes(*coefficients.shape[-2:])[:-1]):
            corner = image[..., :height, :width]
            corner.copy_(self._matrix(height, corner).mT @ corner @ self._matrix(width, corner))
        return _from_planes(image, coefficients)

    def norm(self, image: Tensor) -> Tensor:
        """Sum of the moduli of the detail coefficients.

        Parameters
        ----------
        image : Tensor
            Real or complex array of shape (batch, ..., y, x).

        Returns
        -------
        Tensor
            Real, shape (batch,).
        """
        coefficients = _modulus(self.analysis(image))
        height, width = self.sizes(*image.shape[-2:])[-1]
        coefficients[..., :height, :width] = 0
        return coefficients.flatten(1).sum(1)

    def denoise(self, image: Tensor, sigma: float | Tensor) -> Tensor:
        """Soft-threshold the detail coefficients at strength * sigma^2.

        Parameters
        ----------
        image : Tensor
            Real or complex array of shape (batch, ..., y, x).
        sigma : float or Tensor
            Noise level in the units of `image`: one value or one for each batch entry.

        Returns
        -------
        Tensor
            Array of the shape and type of `image`.
        """
        threshold = self.strength * expand_sigma(sigma, image) ** 2
        estimate = torch.zeros_like(image)
        for shift in range(self.shifts):
            shifted = torch.roll(image, (shift, shift), (-2, -1)) if shift else image
            denoised = self.synthesis(self._soft_threshold(self.analysis(shifted), threshold))
            estimate += torch.roll(denoised, (-shift, -shift), (-2, -1)) if shift else denoised
        return estimate / self.shifts

    def _matrix(self, size: int, like: Tensor) -> Tensor:
        return _analysis_matrix(self.wavelet, size, like.dtype, like.device)

    def _soft_threshold(self, coefficients: Tensor, threshold: Tensor) -> Tensor:
        height, width = self.sizes(*coefficients.shape[-2:])[-1]
        approximation = coefficients[..., :height, :width].clone()
        modulus = _modulus(coefficients)
        gain = (modulus - threshold).clamp_min_(0) / modulus.clamp_min_(torch.finfo(modulus.dtype).tiny)
        coefficients = coefficients * gain
        coefficients[..., :height, :width] = approximation
        return coefficients


def _planes(image: Tensor) -> Tensor:
    """Real and imaginary part stacked in front of a complex array: real matrices then act on both at once."""
    return torch.stack((image.real, image.imag)) if image.is_complex() else image


def _from_planes(planes: Tensor, like: Tensor) -> Tensor:
    return torch.complex(planes[0], planes[1]) if like.is_complex() else planes


def _modulus(coefficients: Tensor) -> Tensor:
    """Modulus without the overflow care of the library's, which is several times slower."""
    if coefficients.is_complex():
        return (coefficients.real.square() + coefficients.imag.square()).sqrt_()
    return coefficients.abs()
