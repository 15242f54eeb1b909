"""Images of map sets or coils into one."""

from __future__ import annotations

import torch
from torch import Tensor


def combine_sets(images: Tensor, maps: Tensor) -> Tensor:
    """One image of all map sets: root-sum-of-squares of the coil images maps x images, phase of the first set.

    Parameters
    ----------
    images : complex64 (batch, set, y, x)
    maps : complex64 (batch, set, coil, y, x)

    Returns
    -------
    complex64 (batch, y, x)
    """
    return combine_coils((maps * images[:, :, None]).sum(1), images[:, 0])


def combine_with_maps(coils: Tensor, maps: Tensor) -> Tensor:
    """Root-sum-of-squares of coil images (batch, coil, y, x), phase of their combination by the first set of maps."""
    return combine_coils(coils, (maps[:, 0].conj() * coils).sum(1))


def combine_coils(coils: Tensor, phase_of: Tensor) -> Tensor:
    """Root-sum-of-squares of coil images (batch, coil, y, x) with the phase of other images (batch, y, x)."""
    return torch.polar(torch.linalg.vector_norm(coils, dim=1), phase_of.angle())
