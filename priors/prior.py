"""The interface that every prior has: a denoised estimate at a noise level, equivalently a score."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


def expand_sigma(sigma: float | Tensor, image: Tensor) -> Tensor:
    """Noise level as a real tensor that broadcasts against an image batch.

    Parameters
    ----------
    sigma : float or Tensor
        One noise level, or one for each entry of the batch, shape (batch,).
    image : Tensor
        Array of shape (batch, ...), real or complex.

    Returns
    -------
    Tensor
        Shape () or (batch, 1, ...), on the device of the image and of its real precision.

    Raises
    ------
    ValueError
        If `sigma` is neither one value nor one a batch entry.
    """
    level = torch.as_tensor(sigma, dtype=image.abs().dtype if image.is_complex() else image.dtype, device=image.device)
    if level.numel() == 1:
        return level.reshape(())
    if level.shape != image.shape[:1]:
        raise ValueError(f"sigma: shape {tuple(level.shape)} is neither one value nor ({image.shape[0]},), one a batch")
    return level.reshape(-1, *[1] * (image.ndim - 1))


class Prior(ABC):
    """A density p over images or k-space, known through its denoiser at any noise level."""

    @abstractmethod
    def denoise(self, image: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoised estimate D(m, sigma) of an array with additive white Gaussian noise.

        Parameters
        ----------
        image : Tensor
            Complex array m of shape (batch, ..., y, x).
        sigma : float or Tensor
            Standard deviation of the noise in each of the real and imaginary parts, in the units of `image`:
            one value or one for each batch entry.

        Returns
        -------
        Tensor
            Array of the shape and type of `image`.
        """

    def score(self, image: Tensor, sigma: float | Tensor) -> Tensor:
        r"""Gradient of the log density of the noisy arrays, by Tweedie's formula.

        Parameters
        ----------
        image : Tensor
            Complex array m of shape (batch, ..., y, x).
        sigma : float or Tensor
            Noise level in the units of `image`: one value or one for each batch entry; above zero.

        Returns
        -------
        Tensor
            Array of the shape and type of `image`.

        Notes
        -----
        :math:`\nabla \log p_\sigma(m) = (D(m, \sigma) - m) / \sigma^2` (Vincent, Neural Computation 2011).
        """
        return (self.denoise(image, sigma) - image) / expand_sigma(sigma, image) ** 2
