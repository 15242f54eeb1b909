"""Pixels that a sampling pattern mixes with each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_NOTHING = 1e-9  # of the point spread function's peak
_COPY = 0.7  # of that peak: what is as high elsewhere makes a copy of the image there
_NEAR = 16  # of these parts of an image: copies that are nearer are its own blur


class Aliasing(NamedTuple):
    """Sets of pixels that alias onto each other and onto no others.

    Parameters
    ----------
    pixels : int64 (set, member), indices of the pixels of an image (y, x) in row-major order; each is in one set
    shifts : int64 (member, 2), distance of each member from the first of its set along y and x, the same for all sets
    """

    pixels: Tensor
    shifts: Tensor


def aliasing_sets(mask: Tensor, largest: int = 1024) -> Aliasing | None:
    r"""The sets of pixels that undersampling mixes.

    Parameters
    ----------
    mask : Tensor
        Sampling mask (bool) or sample weights (float), shape (y, x), centre of k-space at n // 2.
    largest : int
        Most members that a set may have.

    Returns
    -------
    Aliasing or None
        R members for regular R-fold undersampling; a column where whole lines are left out irregularly. None where the
        sets are larger: of other patterns a set is the whole image.

    Notes
    -----
    The normal operator :math:`S^H F^H P^2 F S` couples two pixels where the point spread function
    :math:`K = F^{-1} P^2` is not zero at their distance. The distances that sums of such distances reach are a subgroup
    of the cyclic shifts; its cosets are the sets (for regular undersampling those of Pruessmann et al., MRM 1999).
    """
    height, width = mask.shape
    reached = point_spread(mask).abs()
    reached = reached > _NOTHING * reached[0, 0]
    reached[0, 0] = True
    while True:  # sums of two distances, until there are no new ones
        spectrum = torch.fft.fft2(reached.to(torch.float64))
        grown = torch.fft.ifft2(spectrum * spectrum).real > 0.5
        if torch.equal(grown, reached):
            break
        reached = grown
    shifts = torch.nonzero(reached)
    if len(shifts) > largest:
        return None
    number = torch.arange(height * width).reshape(height, width)
    first = number.clone()
    for y, x in shifts.tolist():
        first = torch.minimum(first, number.roll((-y, -x), (0, 1)))
    begins = torch.nonzero(first == number)
    members = (begins[:, None] + shifts) % torch.tensor([height, width])
    return Aliasing(members[..., 0] * width + members[..., 1], shifts)


def point_spread(weights: Tensor) -> Tensor:
    """Point spread function of squared sample weights (y, x): complex128 (y, x), distance 0 at index 0.

    Its value there is the mean of the squared weights: the image of a fully sampled point has 1.
    """
    return torch.fft.ifft2(torch.fft.ifftshift(weights.to(torch.float64) ** 2))


def folds(mask: Tensor) -> bool:
    """Whether undersampling lays copies of the image over each other: samples that are missing at regular intervals.

    Parameters
    ----------
    mask : Tensor
        Sampling mask (bool), shape (y, x), centre of k-space at n // 2.
    """
    size = [2 * samples for samples in mask.shape]  # half pixels: a copy need not lie on a whole one
    spread = torch.fft.fft2(mask.to(torch.float64), s=size).abs()
    shift_y, shift_x = (torch.arange(n).minimum(n - torch.arange(n)) / n for n in size)
    far = (shift_y[:, None] > 1 / _NEAR) | (shift_x > 1 / _NEAR)
    return bool((spread * far).max() > _COPY * spread[0, 0])
