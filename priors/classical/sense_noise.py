"""Noise of SENSE reconstructions, analytically."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.signal.aliasing import Aliasing, aliasing_sets, point_spread

_CHUNK_ENTRIES = 2**22  # of the matrices that are inverted together
_LEAST_RIDGE = 1e-10  # in double precision, of eigenvalues up to 1


def sense_covariance(
    maps: Tensor, mask: Tensor, regularisation: float = 1e-3, deviation: Tensor | None = None, largest: int = 1024
) -> Tensor | None:
    r"""Noise covariance of SENSE images between their map sets, pixel by pixel.

    Parameters
    ----------
    maps : Tensor
        Coil maps S, complex, shape (batch, set, coil, y, x), of prewhitened coils.
    mask : Tensor
        Sampling mask P (bool) or sample weights (float), shape (batch, 1, y, x) or broadcasting to it.
    regularisation : float
        Tikhonov weight :math:`\lambda` of the reconstruction (as `cg_sense`), zero or above.
    deviation : Tensor, optional
        Standard deviation of the noise of each sample in each of its two parts, float, shape as `mask`; 1 for all
        samples of the mask if not given. It is 0 for samples that were filled with zeros.
    largest : int
        Most pixels that may alias onto each other.

    Returns
    -------
    Tensor or None
        Complex, shape (batch, set, set, y, x): covariance of the noise in each of its two parts, Hermitian in the sets;
        zero where the maps are. None for sampling patterns that mix more than `largest` pixels.

    Raises
    ------
    ValueError
        If the regularisation is negative.

    Notes
    -----
    The image :math:`(A^H A + \lambda)^{-1} A^H P y` of noise of covariance D has the covariance
    :math:`G\, S^H F^H P^4 D F S\, G` with :math:`G = (A^H A + \lambda)^{-1}`. Both matrices are block-diagonal over the
    aliasing sets of the sampling pattern; a block is the Gram matrix of the coil maps at its pixels times the point
    spread function at their distances. For regular undersampling and :math:`\lambda = 0` this is
    :math:`R\,[(S^H S)^{-1}]_{pp}` over the set (Pruessmann et al., MRM 1999, whose
    noise covariance :math:`\Psi` prewhitening has made 1).
    """
    if regularisation < 0:
        raise ValueError(f"regularisation: {regularisation} is negative; take zero or more")
    batch, sets, _, height, width = maps.shape
    weights = mask.to(torch.float64).expand(batch, 1, height, width)[:, 0].cpu()
    if deviation is None:
        deviation = torch.ones(1)
    noise = deviation.to(torch.float64).expand(batch, 1, height, width)[:, 0].cpu() * weights**2
    result = torch.zeros(batch, sets, sets, height * width, dtype=maps.dtype)
    known: tuple[Tensor, Aliasing] | None = None  # of the image before
    for one, own_weights, own_noise, own_maps in zip(result, weights, noise, maps.cpu(), strict=True):
        if known is None or not torch.equal(known[0], own_weights):
            aliasing = aliasing_sets(own_weights, largest)
            if aliasing is None:
                return None
            known = own_weights, aliasing
        _fill(one, own_maps.flatten(2), known[1], own_weights, own_noise, regularisation)
    return result.reshape(batch, sets, sets, height, width).to(maps.device)


def combined_deviation(covariance: Tensor, maps: Tensor, images: Tensor) -> Tensor:
    r"""Standard deviation of the root-sum-of-squares of SENSE's coil images, along their phase.

    Parameters
    ----------
    covariance : Tensor
        Of `sense_covariance`, shape (batch, set, set, y, x).
    maps : Tensor
        Coil maps, complex, shape (batch, set, coil, y, x).
    images : Tensor
        The images x of the map sets, complex, shape (batch, set, y, x); of one set they do not matter.

    Returns
    -------
    Tensor
        Real, shape (batch, y, x), in the units of the noise; 0 where the maps are 0.

    Notes
    -----
    To first order the magnitude of :math:`c = \sum_m S_m x_m` changes by :math:`\mathrm{Re}\, a^T \delta x` with
    :math:`a_m = c^H S_m / |c|`. Fully sampled data of noise 1 in each part give 1.
    """
    if maps.shape[1] == 1:
        return (covariance[:, 0, 0].real.clamp_min(0) * maps[:, 0].abs().square().sum(1)).sqrt()
    coils = (maps * images[:, :, None]).sum(1)
    coils = torch.where((coils != 0).any(1, keepdim=True), coils, maps[:, 0])
    unit = coils / torch.linalg.vector_norm(coils, dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    direction = (unit.conj()[:, None] * maps).sum(2)  # (batch, set, y, x)
    variance = (direction[:, :, None] * covariance * direction.conj()[:, None]).sum((1, 2)).real
    return variance.clamp_min(0).sqrt()


def _fill(result: Tensor, maps: Tensor, aliasing: Aliasing, weights: Tensor, noise: Tensor, ridge: float) -> None:
    """Write the covariance (set, set, pixel) of one image, from maps (set, coil, pixel)."""
    sets = len(maps)
    members = len(aliasing.shifts)
    extent = torch.tensor(weights.shape)
    between = (aliasing.shifts[:, None] - aliasing.shifts) % extent
    kernels = [point_spread(one)[between[..., 0], between[..., 1]] for one in (weights, noise)]
    # Unknown u of a group of pixels: map set u // members at its member u % members; pixels without a map have none.
    present = (maps != 0).any(1)[:, aliasing.pixels].movedim(0, 1).flatten(1)  # (group, unknown)
    order = present.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    place = order.argsort(1)
    count = present.sum(1)
    by_count = count.argsort(dim=0, stable=True)
    start = int((count == 0).sum())
    while start < len(by_count):
        groups = by_count[start : start + max(1, _CHUNK_ENTRIES // int(count[by_count[start]]) ** 2)]
        groups = groups[: max(1, _CHUNK_ENTRIES // int(count[groups[-1]]) ** 2)]
        most = int(count[groups[-1]])
        start += len(groups)
        unknown = order[groups, :most]
        there = torch.gather(present[groups], 1, unknown)
        member, pixels = unknown % members, aliasing.pixels[groups]
        rows = maps.movedim(1, 2)[unknown // members, torch.gather(pixels, 1, member)]  # (group, unknown, coil)
        rows = rows.to(torch.complex128) * there[..., None]
        gram = rows.conj() @ rows.mT
        normal, coloured = (gram * kernel[member[:, :, None], member[:, None]] for kernel in kernels)
        normal.diagonal(dim1=1, dim2=2).add_(max(ridge, _LEAST_RIDGE) + (~there).to(torch.float64))
        # Not torch.linalg.inv: its batched LU can deadlock in MKL after the number of threads was changed.
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(normal))
        covariance = inverse @ coloured @ inverse
        own = torch.where(present[groups], place[groups], -1).reshape(-1, sets, members)
        number = torch.arange(len(groups))[:, None]
        for first in range(sets):
            for second in range(sets):
                left, right = own[:, first], own[:, second]
                values = covariance[number, left.clamp_min(0), right.clamp_min(0)]
                result[first, second, pixels] = torch.where((left < 0) | (right < 0), 0, values).to(result.dtype)
