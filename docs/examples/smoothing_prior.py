"""A prior of your own, in one file outside the package: images change slowly from pixel to pixel, up to a variance."""

import torch

from priors import Prior, SigmaLevels, expand_sigma, fft2c, ifft2c, radial_frequency


class SmoothingPrior(Prior):
    r"""Gaussian images whose power falls with frequency, :math:`C(f) = C_0 (f / f_0)^{-3}`, at most C_0.

    Its denoiser is the Wiener filter :math:`C / (C + \sigma^2)`, so it needs no training; a network would stand here.
    """

    sigma_levels = SigmaLevels((1e-3, 1.0), continuous=True)

    def __init__(self, power: float = 30.0, corner: float = 0.004) -> None:
        self.power, self.corner = power, corner

    def denoise(self, m: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Images (batch, array, y, x) of maximum 1, less white noise of level sigma in each part."""
        frequency = radial_frequency(m.shape[-2], m.shape[-1], m.device).clamp_min(self.corner)
        variance = self.power * (frequency / self.corner) ** -3
        return ifft2c(fft2c(m) * variance / (variance + expand_sigma(sigma, m) ** 2))
