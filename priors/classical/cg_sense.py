"""Zero filling and SENSE by conjugate gradients, without a prior."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.signal.encoding import SenseOperator, check_maps, conjugate_gradient


def zero_filled(kspace: Tensor, mask: Tensor) -> Tensor:
    """K-space with zeros where nothing was measured.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x); samples outside the mask are not looked at.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x) or broadcasting to it.

    Returns
    -------
    Tensor
        Complex k-space of the same shape.
    """
    return torch.where(mask.to(torch.bool), kspace, 0)


def cg_sense(
    kspace: Tensor,
    maps: Tensor,
    mask: Tensor,
    regularisation: float = 1e-3,
    iterations: int = 30,
    tolerance: float = 1e-3,
) -> Tensor:
    r"""SENSE reconstruction by conjugate gradients with Tikhonov regularisation.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space y, complex, shape (batch, coil, y, x); samples outside the mask are not looked at.
    maps : Tensor
        Coil maps S, complex, shape (batch, set, coil, y, x).
    mask : Tensor
        Sampling mask (bool) or sample weights (float), shape (batch, 1, y, x) or broadcasting to it.
    regularisation : float
        Tikhonov weight relative to the largest eigenvalue 1 of fully sampled SENSE with normalised maps, zero
        or above.
    iterations : int
        Most iterations.
    tolerance : float
        Relative residual of the normal equations at which a slice is done.

    Returns
    -------
    Tensor
        Complex images, shape (batch, set, y, x), in the units of the image of `kspace`.

    Raises
    ------
    ValueError
        If the shapes do not fit together or the regularisation is negative.

    Notes
    -----
    :math:`\arg\min_x \|P (F S x - y)\|_2^2 + \lambda \|x\|_2^2` (Pruessmann et al., MRM 2001).
    """
    check_arguments(kspace, maps, regularisation)
    operator = SenseOperator(maps, mask)
    return conjugate_gradient(
        lambda image: operator.normal(image) + regularisation * image,
        operator.right_side(kspace),
        iterations=iterations,
        tolerance=tolerance,
    )


def check_arguments(kspace: Tensor, maps: Tensor, regularisation: float) -> None:
    """Raise ValueError for a negative regularisation or maps that do not fit to the k-space."""
    if regularisation < 0:
        raise ValueError(f"regularisation: {regularisation} is negative; take zero or more")
    check_maps("sense", kspace, maps)
