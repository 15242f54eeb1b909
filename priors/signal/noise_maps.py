"""SNR units and g-factors: what the noise of an image is compared with, and noise by pseudo replicas."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

SEEN = 5.0  # SNR of a pixel that counts as object
FEWEST_SEEN = 50  # pixels of an object


class Reference(NamedTuple):
    """What the noise of an image is compared with.

    Parameters
    ----------
    deviation : noise, in each part, that an image of the same number of samples has without parallel imaging
    acceleration : undersampling R within what the sampling covers
    """

    deviation: float
    acceleration: float


def reference(deviation: Tensor) -> Reference:
    r"""Noise of an image for g = 1, and the acceleration that belongs to it.

    Parameters
    ----------
    deviation : Tensor
        Standard deviation of the noise of each sample of k-space in each of its two parts, any shape: 1 for one readout
        of prewhitened coils, :math:`n^{-1/2}` for the mean of n, 0 where nothing was measured.

    Returns
    -------
    Reference
        Of 0 and 1 where nothing was measured.

    Notes
    -----
    With the share c of k-space that the smallest box around all samples has (with the gap beside its last line), N
    samples of k-space, and M readout samples that were measured (averages counted), :math:`R = c N / M` and the
    deviation is :math:`c \sqrt{N / M}`: :math:`\sqrt{R}` of fully covered k-space, less where a part was filled with
    zeros (partial Fourier, partial echoes). An image's noise is g times that: SNR = SNR of full sampling / (g sqrt(R))
    (Pruessmann et al., MRM 1999).
    """
    measured = deviation > 0
    samples = float((1 / deviation[measured].to(torch.float64).square()).sum())
    if not samples:
        return Reference(0.0, 1.0)
    cover = 1.0
    for axis in range(measured.ndim):
        others = [other for other in range(measured.ndim) if other != axis]
        found = torch.nonzero(measured.any(dim=others) if others else measured).flatten().tolist()
        gap = max(found[-1] - found[-2], found[1] - found[0]) if len(found) > 1 else 1
        cover *= min(found[-1] - found[0] + gap, measured.shape[axis]) / measured.shape[axis]
    return Reference(cover * math.sqrt(measured.numel() / samples), cover * measured.numel() / samples)


class Replicas:
    r"""Standard deviation of images over pseudo replicas: the same reconstruction of data with more noise added.

    Parameters
    ----------
    images : Tensor
        The image without added noise, complex, any shape.

    Attributes
    ----------
    images : the same
    count : replicas so far

    Notes
    -----
    The deviation is that of the real part after the image's phase was taken off, which is the noise of the magnitude
    where the SNR is not low (pseudo multiple replica, Robson et al., MRM 2008). n replicas know it to
    :math:`1 / \sqrt{2 (n - 1)}`. Of a nonlinear method it is how noise of this level passes through it at this image,
    not its error.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self._phase = torch.polar(torch.ones_like(images.real), -images.angle())
        self._sum = torch.zeros_like(images.real)
        self._squares = torch.zeros_like(images.real)
        self.count = 0

    def add(self, images: Tensor) -> None:
        """Take a replica, complex, of the shape of the image."""
        difference = ((images - self.images) * self._phase).real
        self._sum += difference
        self._squares += difference.square()
        self.count += 1

    def deviation(self) -> Tensor:
        """Standard deviation, of the shape of the image; two replicas or more are needed."""
        variance = (self._squares - self._sum.square() / self.count) / (self.count - 1)
        return variance.clamp_min(0).sqrt()

    def ratio(self, deviation: Tensor) -> float:
        """Noise of the replicas over what is expected of it, by the median pixel of those where that is not 0.

        Pixels of the object count, those of the background only where there is no object: coils hear little there, and
        a solver that stops early has less noise there than in the object.
        """
        inside = deviation > 0
        if not bool(inside.any()):
            return 1.0
        seen = inside & (self.images.abs() > SEEN * deviation)
        inside = seen if int(seen.sum()) >= FEWEST_SEEN else inside
        squares = self._squares[inside] / deviation[inside].square()
        # Median of the chi-squared distribution (Wilson and Hilferty, PNAS 1931).
        expected = self.count * (1 - 2 / (9 * self.count)) ** 3
        return math.sqrt(float(squares.median()) / expected)
