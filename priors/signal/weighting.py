"""The weighting of k-space that makes its low and high frequencies alike in size (WKGM)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Weighting:
    r"""Radial weight of k-space, zero at its centre.

    Parameters
    ----------
    slope : float
        Weight at one cycle per sample (with p = 1/2), above zero, for k-space of the centred orthonormal Fourier
        transform of images with maximum 1.
    r, s : float
        Factors of the squared frequency along x and along y, zero or above, not both zero.
    p : float
        Exponent, zero or above; 1/2 makes the weight proportional to the radius, 0 leaves k-space as it is but for
        the factor `slope`.

    Raises
    ------
    ValueError
        If a value is out of range.

    Notes
    -----
    :math:`k_w = w k` with :math:`w = \mathrm{slope} \cdot (r f_x^2 + s f_y^2)^p` and the frequencies f in cycles
    per sample, -1/2 to 1/2 on every matrix: images of any size have the same weighted statistics (Tu et al., NMR in
    Biomedicine 2022).
    """

    slope: float = 4.0
    r: float = 1.0
    s: float = 1.0
    p: float = 0.5

    def __post_init__(self) -> None:
        values = (self.slope, self.r, self.s, self.p)
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
            raise ValueError(f"weighting: slope, r, s, p = {values} are not all finite numbers")
        if self.slope <= 0 or min(self.r, self.s, self.p) < 0 or max(self.r, self.s) == 0:
            raise ValueError(
                f"weighting: slope, r, s, p = {values}; slope above 0, the others 0 or above, r or s above 0"
            )

    @classmethod
    def published(cls, slope: float = 0.018 / 128, matrix: int = 256) -> Weighting:
        """Weighting of the papers, whose slope is per sample of unnormalised square k-space.

        Parameters
        ----------
        slope : float
            Slope per sample of k-space: 0.011/128 and 0.018/128 in WKGM, 0.031/128 in HKGM.
        matrix : int
            Matrix size that the slope was meant for.

        Returns
        -------
        Weighting
            The same weights in the units of this project.
        """
        return cls(slope=slope * matrix**2)

    @classmethod
    def of_power(cls, p: float) -> Weighting:
        """Weighting of another exponent whose mean squared weight, hence noise, is that of the standard one.

        Parameters
        ----------
        p : float
            Exponent, zero or above; 0: no weighting but a factor.
        """
        standard, other = (one.weights(256, 256).square().mean().sqrt() for one in (cls(), cls(slope=1.0, p=p)))
        return cls(slope=round(float(standard / other), 4), p=p)

    def weights(self, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
        """Weights of a matrix.

        Parameters
        ----------
        height, width : int
            Samples along y and x; the centre is at index n // 2.
        device : torch.device or str
            Device of the result.

        Returns
        -------
        Tensor
            float32, shape (y, x), read only.
        """
        return _weights(self, height, width, torch.device(device))

    def weight(self, kspace: Tensor) -> Tensor:
        """Weighted k-space.

        Parameters
        ----------
        kspace : Tensor
            Complex k-space, shape (..., y, x).

        Returns
        -------
        Tensor
            Complex array of the same shape, zero where the weight is zero.
        """
        return kspace * self.weights(kspace.shape[-2], kspace.shape[-1], kspace.device)

    def unweight(self, weighted: Tensor, centre: Tensor) -> Tensor:
        """K-space of weighted k-space; samples that the weight hides are taken from another k-space.

        Parameters
        ----------
        weighted : Tensor
            Complex weighted k-space, shape (..., y, x).
        centre : Tensor
            Complex k-space that broadcasts to the shape of `weighted`; only samples of weight zero are taken from
            it: the centre (measured, in nearly every scan).

        Returns
        -------
        Tensor
            Complex k-space of the shape of `weighted`.
        """
        weights = self.weights(weighted.shape[-2], weighted.shape[-1], weighted.device)
        hidden = weights == 0
        return torch.where(hidden, centre, weighted / torch.where(hidden, 1, weights))


@lru_cache(maxsize=32)
def _weights(weighting: Weighting, height: int, width: int, device: torch.device) -> Tensor:
    f_y = (torch.arange(height, device=device) - height // 2) / height
    f_x = (torch.arange(width, device=device) - width // 2) / width
    squared = weighting.r * f_x.square() + weighting.s * f_y.square()[:, None]
    return weighting.slope * squared**weighting.p
