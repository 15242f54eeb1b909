"""Domains: the arrays m = W x on which a prior works, and the way back to images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from priors.signal.fourier import fft2c, ifft2c
from priors.signal.weighting import Weighting

SYMMETRIES = 8  # of a square: four quarter turns, each of them mirrored or not


class Domain(ABC):
    r"""A linear map W from images to the arrays that a prior sees.

    Notes
    -----
    The distance of two arrays, :math:`\|W x - W x_0\|^2 = \sum_k g_k |F x - F x_0|_k^2`, is diagonal in k-space; its
    metric g says what a step of the prior is worth to the data (see `priors.data_steps`). White noise of level sigma
    in m is noise of level :math:`\sigma / \sqrt{g_k}` at the sample k of the image's k-space.
    """

    @property
    def bands(self) -> int:
        """Arrays that make one m; where they are several, they are the axis before y and x."""
        return 1

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Arrays m of complex images (..., y, x)."""

    @abstractmethod
    def decode(self, m: Tensor, images: Tensor) -> Tensor:
        """Images of arrays m, the pseudo-inverse of `encode`.

        Parameters
        ----------
        m : Tensor
            Arrays of the domain.
        images : Tensor
            Images, complex, shape (..., y, x), of which what the domain does not see is taken.

        Returns
        -------
        Tensor
            Of the shape of `images`.
        """

    @abstractmethod
    def metric(self, height: int, width: int, device: torch.device) -> Tensor:
        """Metric g, float32, shape () or (y, x)."""

    def spectrum(self, m: Tensor) -> Tensor | None:
        """K-space of the arrays (..., y, x), orthonormal, where noise in m is white in it; None where it is not one."""
        return None

    def noise(self, draw: Callable[[Tensor], Tensor], m: Tensor) -> Tensor:
        """Noise of unit level that a rule adds to arrays m, of a source of white noise like an array."""
        return draw(m)

    def symmetric(self, m: Tensor, kind: int, back: bool = False) -> Tensor:
        """Arrays of images turned by quarters and mirrored, or turned back.

        Parameters
        ----------
        m : Tensor
            Arrays of the domain.
        kind : int
            Symmetry of a square, 0 (none) to 7.
        back : bool
            Undo it.

        Returns
        -------
        Tensor
            Arrays m; y and x change places for some kinds. A domain without symmetries returns `m` as it is.
        """
        return m


@dataclass(frozen=True)
class ImageDomain(Domain):
    """Images as they are."""

    def encode(self, images: Tensor) -> Tensor:
        """The images."""
        return images

    def decode(self, m: Tensor, images: Tensor) -> Tensor:
        """The images."""
        return m

    def metric(self, height: int, width: int, device: torch.device) -> Tensor:
        """One."""
        return torch.ones((), device=device)

    def spectrum(self, m: Tensor) -> Tensor:
        """K-space of the images."""
        return fft2c(m)

    def symmetric(self, m: Tensor, kind: int, back: bool = False) -> Tensor:
        """See `Domain.symmetric`."""
        return turned(m, kind, back)


@dataclass(frozen=True)
class ReplicaDomain(Domain):
    """Equal copies of images behind each other, shape (..., copy, y, x), which only noise tells apart.

    Parameters
    ----------
    copies : int
        How many; published: 3 (DAEP, DMSP, HGGDP).

    Notes
    -----
    Their mean is all that noisy copies tell about the image: noise of level sigma in each is noise of level
    :math:`\\sigma / \\sqrt{copies}` in it.
    """

    copies: int = 3

    @property
    def bands(self) -> int:
        """The number of copies."""
        return self.copies

    def encode(self, images: Tensor) -> Tensor:
        """Copies of complex images (..., y, x)."""
        return images.unsqueeze(-3).expand(*images.shape[:-2], self.copies, *images.shape[-2:]).clone()

    def decode(self, m: Tensor, images: Tensor) -> Tensor:
        """Their mean."""
        return m.mean(-3)

    def metric(self, height: int, width: int, device: torch.device) -> Tensor:
        """The number of copies."""
        return torch.full((), float(self.copies), device=device)

    def symmetric(self, m: Tensor, kind: int, back: bool = False) -> Tensor:
        """See `Domain.symmetric`."""
        return turned(m, kind, back)


@dataclass(frozen=True)
class WaveletDomain(Domain):
    """One level of the undecimated Haar transform: four bands behind each other, shape (..., band, y, x).

    Notes
    -----
    Low pass :math:`(1, 1) / \\sqrt 2` and high pass :math:`(1, -1) / \\sqrt 2` along y and along x, periodic: a tight
    frame, :math:`W^H W = 4`. Bands: low-low, low-high (along x), high-low, high-high (Wang et al., Neurocomputing
    2021).
    """

    @property
    def bands(self) -> int:
        """Four."""
        return 4

    def encode(self, images: Tensor) -> Tensor:
        """Bands of complex images (..., y, x)."""
        rows = _haar(images, -2)
        return torch.stack([band for half in rows for band in _haar(half, -1)], dim=-3)

    def decode(self, m: Tensor, images: Tensor) -> Tensor:
        """A quarter of the adjoint."""
        low_low, low_high, high_low, high_high = m.unbind(-3)
        low = _haar_adjoint(low_low, low_high, -1)
        high = _haar_adjoint(high_low, high_high, -1)
        return _haar_adjoint(low, high, -2) / 4

    def metric(self, height: int, width: int, device: torch.device) -> Tensor:
        """Four."""
        return torch.full((), 4.0, device=device)


@dataclass(frozen=True)
class WeightedKspaceDomain(Domain):
    """Weighted k-space of images (WKGM); see `priors.signal.weighting.Weighting`.

    Parameters
    ----------
    weighting : Weighting
        Weights w of k-space, in units of the orthonormal Fourier transform.
    """

    weighting: Weighting

    def encode(self, images: Tensor) -> Tensor:
        """Weighted k-space."""
        return self.weighting.weight(fft2c(images))

    def decode(self, m: Tensor, images: Tensor) -> Tensor:
        """Images whose samples of weight zero are those of `images`."""
        return ifft2c(self.weighting.unweight(m, fft2c(images)))

    def metric(self, height: int, width: int, device: torch.device) -> Tensor:
        """Squared weights."""
        return self.weighting.weights(height, width, device).square()

    def spectrum(self, m: Tensor) -> Tensor:
        """Weighted k-space itself."""
        return m

    def symmetric(self, m: Tensor, kind: int, back: bool = False) -> Tensor:
        """See `Domain.symmetric`; exact for weights that depend on the radius alone."""
        return fft2c(turned(ifft2c(m), kind, back)) if kind else m


def turned(images: Tensor, kind: int, back: bool = False) -> Tensor:
    """Images (..., y, x) turned by `kind` % 4 quarters and, from 4 on, mirrored along x; or turned back."""
    if not 0 <= kind < SYMMETRIES:
        raise ValueError(f"symmetry {kind} is not 0 to {SYMMETRIES - 1}")
    if kind >= 4 and back:
        images = images.flip(-1)
    images = torch.rot90(images, -(kind % 4) if back else kind % 4, (-2, -1))
    return images.flip(-1) if kind >= 4 and not back else images


def _haar(array: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    following = array.roll(-1, axis)
    return (array + following) / math.sqrt(2), (array - following) / math.sqrt(2)


def _haar_adjoint(low: Tensor, high: Tensor, axis: int) -> Tensor:
    return (low + high + (low - high).roll(1, axis)) / math.sqrt(2)
