"""The signal level of a scan, by which data are divided before a reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.signal.fourier import ifft2c

# 99.9th percentile of an image in the units of the priors, which learn from images of maximum 1.
SIGNAL_LEVEL = 0.6


def image_scale(kspace: Tensor, mask: Tensor, width: int = 24) -> Tensor:
    """Signal level of a scan: the 99.9th percentile of its low-resolution root-sum-of-squares image.

    Parameters
    ----------
    kspace : Tensor
        Complex k-space, shape (batch, coil, y, x).
    mask : Tensor
        Sampling mask or weights that broadcast to (batch, 1, y, x). Samples missing from the centre are made
        up for by scaling.
    width : int
        Samples of the k-space centre that are used along y and x.

    Returns
    -------
    Tensor
        Real, shape (batch,), in the units of the image; 1 where the centre of k-space is empty.
    """
    height, length = kspace.shape[-2:]
    rows = slice(max(height // 2 - width // 2, 0), height // 2 + (width + 1) // 2)
    columns = slice(max(length // 2 - width // 2, 0), length // 2 + (width + 1) // 2)
    weights = mask.to(kspace.real.dtype).expand(len(kspace), 1, height, length)[..., rows, columns]
    centre = torch.zeros_like(kspace)
    centre[..., rows, columns] = kspace[..., rows, columns] * weights
    sampled = weights.mean(dim=(-3, -2, -1)).clamp_min(torch.finfo(weights.dtype).tiny)
    root_sum_of_squares = torch.linalg.vector_norm(ifft2c(centre), dim=1).flatten(1)
    rank = max(1, round(0.999 * root_sum_of_squares.shape[1]))
    scale = root_sum_of_squares.kthvalue(rank, dim=1).values / sampled
    return torch.where(scale > 0, scale, torch.ones_like(scale))
