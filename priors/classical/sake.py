"""SAKE: calibrationless completion of multi-coil k-space by Hankel low rank."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.signal.hankel import low_rank_completion

# First and last rank in units of the window's samples, where none is given, and the largest share of all.
_FIRST_RANK, _LAST_RANK, _LARGEST_SHARE = 1.0, 2.5, 0.75


def sake(kspace: Tensor, mask: Tensor, window: int = 6, rank: int = 0, iterations: int = 50) -> Tensor:
    """Fill the missing samples of multi-coil k-space by low rank of its Hankel matrix, without calibration.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x); samples outside the mask are not looked at.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x) or broadcasting to it.
    window : int
        Width w of the square window in samples.
    rank : int
        Rank of the Hankel matrix, from 1 to coil * w * w; 0 lets it grow from w^2 to 2.5 w^2 over the iterations,
        which suits more accelerations than any fixed rank.
    iterations : int
        Number of projections, at least one.

    Returns
    -------
    Tensor
        Complex k-space of the same shape, with the measured samples where they were measured.

    Raises
    ------
    ValueError
        If the window does not fit into the k-space or a number is out of range.

    Notes
    -----
    Shin et al., MRM 2014, with periodic borders and the projection of `low_rank_projection`.
    """
    if iterations < 1 or rank < 0:
        raise ValueError("sake: there must be an iteration, and the rank must not be negative")
    if rank:
        return low_rank_completion(kspace, mask, window, rank, iterations)
    largest = max(1, int(_LARGEST_SHARE * kspace.shape[1] * window**2))
    growing = torch.linspace(_FIRST_RANK * window**2, _LAST_RANK * window**2, iterations).round().int().tolist()
    return low_rank_completion(kspace, mask, window, [min(one, largest) for one in growing])
