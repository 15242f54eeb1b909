"""GRAPPA for any Cartesian sampling pattern: missing samples from their measured neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from priors.signal.encoding import check_maps
from priors.signal.espirit import calibration_region
from priors.signal.fourier import fft2c

_LARGEST_REGION = 64  # calibration samples used along each axis
_LARGEST_HALF = 20  # samples of a kernel on each side of its middle
_SHARE = 0.6  # of the calibration region's width that a kernel may span
_CHUNK = 2048  # missing samples filled in together
_CHUNK_ENTRIES = 2**22  # of the matrices solved together
_SYNTHETIC_REGION = 48
_LEAST_RIDGE = 1e-10  # the Gram matrix is in double precision


def grappa(kspace: Tensor, maps: Tensor, mask: Tensor, kernel: int = 5, regularisation: float = 1e-2) -> Tensor:
    r"""Fill the missing samples of multi-coil k-space from their measured neighbours in all coils.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x); samples outside the mask are not looked at.
    maps : Tensor
        Coil maps, complex, shape (batch, set, coil, y, x): they stand in for the calibration region of a scan whose
        reference lines were measured apart from the k-space.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x) or broadcasting to it; regular, of lines, or of any other kind.
    kernel : int
        Measured samples along each axis, from 2 to 15, that a kernel has where the sampling is regular; elsewhere at
        most kernel^2 of the nearest ones.
    regularisation : float
        Tikhonov weight relative to the mean energy of the kernel's sources, zero or above.

    Returns
    -------
    Tensor
        Complex k-space of the same shape, the measured samples as they were measured. Samples outside the rectangle
        that the sampling covers (partial Fourier), or without any measured neighbour in the kernel, stay zero.

    Raises
    ------
    ValueError
        If the shapes do not fit together or a number is out of range.

    Notes
    -----
    A missing sample of coil c is :math:`\sum_{c', i} w_{c c' i}\, k_{c'}(q + i)` over the measured neighbours i within
    the kernel; the weights solve the same equations over the calibration region in the least squares sense (Griswold et
    al., MRM 2002). Every pattern of neighbours has weights of its own, solved from parts of one Gram matrix, so that
    irregular sampling works too (Beatty et al., ISMRM 2007). Borders are not periodic.

    A calibration region that is too small for a kernel is replaced by the k-space of white noise seen through the coil
    maps: it obeys the same linear relations.
    """
    check_maps("grappa", kspace, maps)
    if not 2 <= kernel <= 15 or regularisation < 0:
        raise ValueError("grappa: the kernel must be from 2 to 15 samples wide, the regularisation not negative")
    sampled = mask.to(torch.bool).expand(len(kspace), 1, *kspace.shape[-2:])[:, 0]
    result = torch.where(sampled[:, None], kspace, 0)
    plan: Plan | None = None
    for index, (one, pattern) in enumerate(zip(result, sampled, strict=True)):
        if bool(pattern.all()) or not bool(pattern.any()):
            continue
        if plan is None or not torch.equal(plan.mask, pattern):
            plan = plan_of(pattern, kernel)
        result[index] = _filled(one, plan, gram_of(one, maps[index], plan), regularisation)
    return result


def needs_maps(mask: Tensor, kernel: int = 5) -> bool:
    """Whether the kernels of a sampling mask (y, x) are made from coil maps, for want of a calibration region in it."""
    pattern = mask.to(torch.bool)
    return bool(pattern.any()) and not bool(pattern.all()) and plan_of(pattern, kernel).region is None


def gram_of(kspace: Tensor, maps: Tensor, plan: Plan) -> Tensor:
    """Gram matrix of all windows of the calibration region of k-space (coil, y, x), complex128.

    Where that is too small, of k-space that is made with maps (set, coil, y, x). Unknowns are ordered (offset, coil).
    """
    calibration = kspace[:, plan.region[0], plan.region[1]] if plan.region else _synthetic(maps)
    patches = calibration.unfold(1, 2 * plan.half[0] + 1, 1).unfold(2, 2 * plan.half[1] + 1, 1)
    matrix = patches.permute(1, 2, 3, 4, 0).flatten(0, 1).flatten(1).to(torch.complex128)
    return matrix.mH @ matrix


@dataclass
class Plan:
    """What the sampling mask alone decides.

    Parameters
    ----------
    mask : bool (y, x)
    half : samples of a kernel on each side of its middle, along y and x
    region : rows and columns of the calibration region; None where it is too small
    targets : missing samples (n, 2), y and x
    number : pattern of every target (n,)
    patterns : offsets into the kernel's window of the sources of each pattern, nearest first
    """

    mask: Tensor
    half: tuple[int, int]
    region: tuple[slice, slice] | None
    targets: Tensor
    number: Tensor
    patterns: list[Tensor]

    @property
    def window(self) -> int:
        """Samples of the kernel's window."""
        return (2 * self.half[0] + 1) * (2 * self.half[1] + 1)


def plan_of(mask: Tensor, kernel: int) -> Plan:
    """The plan of a sampling mask (y, x) that is neither full nor empty."""
    sampled: np.ndarray = mask.cpu().numpy()
    region = tuple(_middle(part) for part in calibration_region(sampled))
    factors = _accelerations(sampled, region)
    half = [min(max(1, math.ceil(factor * kernel / 2) - 1), _LARGEST_HALF) for factor in factors]
    half = [min(h, (n - 1) // 2) for h, n in zip(half, sampled.shape, strict=True)]
    sizes = [part.stop - part.start for part in region]
    fitting = [min(h, int(_SHARE * size) // 2) for h, size in zip(half, sizes, strict=True)]
    # Narrower kernels are worth more than relations from the maps, unless they no longer reach any measured sample.
    enough = all(2 * narrow >= wide for narrow, wide in zip(fitting, half, strict=True))
    if enough:
        half = fitting
    covered = np.zeros_like(sampled)
    covered[_extent(sampled, 1, factors[0]), _extent(sampled, 0, factors[1])] = True
    rows, columns = np.nonzero(covered & ~sampled)
    height, width = 2 * half[0] + 1, 2 * half[1] + 1
    padded = np.pad(sampled, [(half[0], half[0]), (half[1], half[1])])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width))[rows, columns].reshape(
        len(rows), height * width
    )
    y, x = np.mgrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1].reshape(2, -1)
    order = np.argsort(y**2 + x**2, kind="stable")
    nearest = windows[:, order]
    nearest &= np.cumsum(nearest, axis=1) <= kernel**2
    unique, number = np.unique(np.packbits(nearest, axis=1), axis=0, return_inverse=True)
    chosen = np.unpackbits(unique, axis=1, count=nearest.shape[1]).astype(bool)
    return Plan(
        mask=mask,
        half=(half[0], half[1]),
        region=(region[0], region[1]) if enough else None,
        targets=torch.from_numpy(np.stack([rows, columns], axis=1)),
        number=torch.from_numpy(number.reshape(-1)),
        patterns=[torch.from_numpy(order[row]) for row in chosen],
    )


def _accelerations(sampled: np.ndarray, region: tuple[slice, ...]) -> tuple[float, float]:
    """Undersampling along y and x, outside the calibration region."""
    outside = np.ones(sampled.shape, bool)
    outside[region[0], region[1]] = False
    lines = [sampled[sampled.any(1)], sampled[:, sampled.any(0)]]
    if not sampled[outside].any():  # as of a low resolution: there is nothing between samples
        return 1.0, 1.0
    factor = 1 / float(sampled[outside].mean())
    if bool(lines[0].all()):  # whole rows
        return factor, 1.0
    if bool(lines[1].all()):
        return 1.0, factor
    return math.sqrt(factor), math.sqrt(factor)


def _extent(sampled: np.ndarray, other: int, factor: float) -> slice:
    """Along the axis that is not `other`: from the first to the last sample, and the missing ones next to these."""
    found, beyond = np.flatnonzero(sampled.any(axis=other)), math.ceil(factor) - 1
    return slice(max(int(found[0]) - beyond, 0), int(found[-1]) + 1 + beyond)


def _middle(part: slice) -> slice:
    excess = max(part.stop - part.start - _LARGEST_REGION, 0)
    return slice(part.start + (excess + 1) // 2, part.stop - excess // 2)


def _synthetic(maps: Tensor) -> Tensor:
    """K-space (coil, y, x) of white noise seen through coil maps (set, coil, y, x)."""
    generator = torch.Generator().manual_seed(0)
    sets, _, height, width = maps.shape
    noise = torch.randn(sets, 1, height, width, dtype=maps.dtype, generator=generator).to(maps.device)
    rows, columns = (slice(max(n // 2 - _SYNTHETIC_REGION, 0), n // 2 + _SYNTHETIC_REGION) for n in (height, width))
    return fft2c((maps * noise).sum(0))[:, rows, columns]


def weights_of(plan: Plan, gram: Tensor, regularisation: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Kernels of the patterns of a plan, as many at a time as fit in memory; patterns without sources have none.

    Parameters
    ----------
    plan : of the sampling mask
    gram : Gram matrix of the calibration region's windows, unknowns ordered (offset, coil)
    regularisation : Tikhonov weight relative to the mean energy of the sources

    Yields
    ------
    Numbers of the patterns (pattern,), offsets of their sources into the window (pattern, source), and complex128
    weights (pattern, source * coil, coil).
    """
    coils = len(gram) // plan.window
    centre = (plan.window // 2) * coils + torch.arange(coils, device=gram.device)
    sizes = torch.tensor([len(sources) for sources in plan.patterns])
    for size in sizes.unique().tolist():
        members = torch.nonzero(sizes == size).flatten()
        if not size:
            continue
        step = max(1, _CHUNK_ENTRIES // (size * coils) ** 2)
        for part in members.split(step):
            offsets = torch.stack([plan.patterns[i] for i in part.tolist()])
            unknowns = (offsets[:, :, None] * coils + torch.arange(coils)).flatten(1).to(gram.device)
            normal = gram[unknowns[:, :, None], unknowns[:, None, :]]
            energy = normal.diagonal(dim1=-2, dim2=-1).real.mean(1)
            ridge = max(regularisation, _LEAST_RIDGE) * energy + torch.finfo(energy.dtype).tiny
            normal.diagonal(dim1=-2, dim2=-1).add_(ridge[:, None])
            # Not torch.linalg.solve: its batched LU can deadlock in MKL after the number of threads was changed.
            factors = torch.linalg.cholesky(normal)
            yield part, offsets, torch.cholesky_solve(gram[unknowns[:, :, None], centre], factors)


def _filled(kspace: Tensor, plan: Plan, gram: Tensor, regularisation: float) -> Tensor:
    """K-space (coil, y, x) with its missing samples."""
    width = 2 * plan.half[1] + 1
    padded = torch.nn.functional.pad(kspace, (plan.half[1], plan.half[1], plan.half[0], plan.half[0]))
    stride = padded.shape[2]
    flat = padded.flatten(1).T.contiguous()  # (sample, coil)
    filled = kspace.clone()
    for part, offsets, kernels in weights_of(plan, gram, regularisation):
        weights = kernels.to(kspace.dtype)
        # Positions of the part's targets, and which of its patterns each has.
        local = torch.full((len(plan.patterns),), -1)
        local[part] = torch.arange(len(part))
        which = local[plan.number]
        for chosen in torch.nonzero(which >= 0).flatten().split(_CHUNK):
            y, x = plan.targets[chosen].T
            of = which[chosen]
            moved = offsets[of]
            places = (y[:, None] + moved // width) * stride + x[:, None] + moved % width
            sources = flat[places.to(flat.device)].flatten(1)  # (target, source * coil)
            values = torch.bmm(sources[:, None], weights[of.to(weights.device)])[:, 0]
            filled[:, y.to(filled.device), x.to(filled.device)] = values.T
    return filled
