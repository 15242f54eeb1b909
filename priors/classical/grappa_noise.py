"""Noise of GRAPPA reconstructions, analytically."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priors.classical.grappa import Plan, gram_of, plan_of, weights_of
from priors.signal.aliasing import aliasing_sets

_COLUMNS = 8  # readout positions done together


def grappa_deviation(
    kspace: Tensor,
    maps: Tensor,
    mask: Tensor,
    directions: Tensor,
    kernel: int = 5,
    regularisation: float = 1e-2,
    deviation: Tensor | None = None,
) -> Tensor | None:
    r"""Standard deviation of the noise of GRAPPA's combined image.

    Parameters
    ----------
    kspace, maps, mask, kernel, regularisation
        As `grappa`, of prewhitened coils.
    directions : Tensor
        Coil vectors c that the combination is along, complex, shape (batch, coil, y, x): the reconstructed coil images
        for a root-sum-of-squares, or coil maps. Their length does not matter; where it is 0, so is the result.
    deviation : Tensor, optional
        Standard deviation of the noise of each sample in each of its two parts, float, shape as `mask`; 1 for all
        samples of the mask if not given. It is 0 for samples that were filled with zeros.

    Returns
    -------
    Tensor or None
        Real, shape (batch, y, x), in the units of `deviation`. None for sampling patterns that neither consist of whole
        lines nor are regular.

    Notes
    -----
    GRAPPA is linear in k-space, T y, with weights that count as free of noise. The combination of coil images
    :math:`c^H F^{-1} T y / |c|` of white noise y has the variance :math:`\|c^H F^{-1} T\|^2 / |c|^2`.

    Of regular sampling T is a convolution, W in the image, and a pixel's variance is :math:`\|c^H W\|^2 / (R |c|^2)`
    (Breuer et al., MRM 2009). Where whole lines are measured, each line has kernels of its own (at the calibration
    lines and at the edges, which that formula leaves out); along the lines they are convolutions. Their ends are taken
    for periodic, which they are not in `grappa`.
    """
    batch, _, height, width = kspace.shape
    sampled = mask.to(torch.bool).expand(batch, 1, height, width)[:, 0].cpu()
    noise = torch.ones(1) if deviation is None else deviation.to(torch.float32).cpu()
    variance = noise.square().expand(batch, 1, height, width)[:, 0] * sampled
    length = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    unit = (directions / length.clamp_min(torch.finfo(length.dtype).tiny)).cpu()
    result = torch.zeros(batch, height, width)
    plan: Plan | None = None
    for index, (one, pattern) in enumerate(zip(kspace.cpu(), sampled, strict=True)):
        along = _lines_along(pattern)
        if along is None and (aliasing_sets(pattern) is None or not _is_regular(pattern)):
            return None
        one = torch.where(pattern, one, 0)
        if bool(pattern.all()):
            result[index] = variance[index].mean().sqrt() * (length[index, 0].cpu() > 0)
            continue
        if plan is None or not torch.equal(plan.mask, pattern):
            plan = plan_of(pattern, kernel)
        taps = _taps(plan, gram_of(one, maps[index].cpu(), plan), regularisation, along)
        if along is None:
            result[index] = _of_convolution(taps, unit[index], variance[index].mean())
        else:
            turned = [array.transpose(-2, -1) if along == 0 else array for array in (unit[index], variance[index])]
            found = _of_lines(taps, turned[0], turned[1].mean(1), pattern.any(along))
            result[index] = found.T if along == 0 else found
    return result.to(kspace.device)


# Kernel weights (coil in, coil out) by their distance to the missing sample along y and x, of one pattern.
Taps = dict[tuple[int, int], Tensor]


def _lines_along(mask: Tensor) -> int | None:
    """The axis along which a mask (y, x) does not change; None without one."""
    for axis in (1, 0):
        if torch.equal(mask.any(axis), mask.all(axis)):
            return axis
    return None


def _is_regular(mask: Tensor) -> bool:
    """Whether a mask is a lattice: as many pixels alias as samples are left out."""
    aliasing = aliasing_sets(mask)
    return aliasing is not None and len(aliasing.shifts) * int(mask.sum()) == mask.numel()


def _taps(plan: Plan, gram: Tensor, regularisation: float, along: int | None) -> dict[int, Taps]:
    """Kernels of the missing samples: by line, of its middle sample; or by number, of one cell of a lattice."""
    height, width = plan.mask.shape
    targets = plan.targets.tolist()
    number = {tuple(target): int(pattern) for target, pattern in zip(targets, plan.number, strict=True)}
    if along == 1:
        chosen = {y: number[y, x] for y, x in targets if x == width // 2}
    elif along == 0:
        chosen = {x: number[y, x] for y, x in targets if y == height // 2}
    else:
        chosen = _of_one_cell(plan, number)
    columns = 2 * plan.half[1] + 1
    kernels: dict[int, Taps] = {}
    wanted = set(chosen.values())
    coils = len(gram) // plan.window
    for part, offsets, weights in weights_of(plan, gram, regularisation):
        for pattern, places, values in zip(part.tolist(), offsets.tolist(), weights, strict=True):
            if pattern in wanted:
                distances = [(place // columns - plan.half[0], place % columns - plan.half[1]) for place in places]
                distances = [(x, y) for y, x in distances] if along == 0 else distances
                by_source = values.reshape(len(places), coils, coils).to(torch.complex64)
                kernels[pattern] = dict(zip(distances, by_source, strict=True))
    return {line: kernels.get(pattern, {}) for line, pattern in chosen.items()}


def _of_one_cell(plan: Plan, number: dict[tuple[int, ...], int]) -> dict[int, int]:
    """Patterns of the missing samples of one cell of a lattice, in the middle of k-space."""
    height, width = plan.mask.shape
    aliasing = aliasing_sets(plan.mask)
    assert aliasing is not None
    middle = min(plan.mask.nonzero().tolist(), key=lambda sample: math.dist(sample, (height // 2, width // 2)))
    found: dict[tuple[int, ...], int] = {}
    reach = len(aliasing.shifts)
    for y in range(middle[0], min(middle[0] + reach, height)):
        for x in range(middle[1], min(middle[1] + reach, width)):
            phases = aliasing.shifts * torch.tensor([(y - middle[0]) / height, (x - middle[1]) / width])
            # Samples of one kind have the same phase at all distances of the lattice's dual.
            kind = tuple(((phases.sum(1) % 1) * 1e6).round().long().remainder(1000000).tolist())
            if any(kind) and kind not in found:
                found[kind] = number[y, x]
    return dict(enumerate(found.values()))


def _of_convolution(taps: dict[int, Taps], unit: Tensor, variance: Tensor) -> Tensor:
    """Deviation (y, x) of a convolution with all kernels of a lattice, combined along unit vectors (coil, y, x)."""
    coils, height, width = unit.shape
    total: Taps = {(0, 0): torch.eye(coils, dtype=torch.complex64)}
    for kernel in taps.values():
        for place, weights in kernel.items():
            total[place] = total[place] + weights if place in total else weights
    rows = _phases(height, [y for y, _ in total])  # (tap, y)
    columns = _phases(width, [x for _, x in total])
    stacked = torch.stack(list(total.values()))  # (tap, coil in, coil out)
    result = torch.zeros(height, width)
    for y in range(height):
        image = torch.einsum("tx,tio->xio", rows[:, y, None] * columns, stacked)
        combined = torch.einsum("xio,ox->xi", image, unit[:, y].conj())
        result[y] = (variance * combined.abs().square().sum(1)).sqrt()
    return result


def _of_lines(lines: dict[int, Taps], unit: Tensor, variance: Tensor, measured: Tensor) -> Tensor:
    """Deviation (y, x) where whole lines along x are measured.

    Parameters
    ----------
    lines : kernels of the missing lines, by their place along y
    unit : complex64 (coil, y, x), what is combined along
    variance : of the noise of each line (y,), after the transform along x
    measured : bool (y,)
    """
    _, height, width = unit.shape
    transform = _phases(height, [height // 2 - line for line in range(height)]) / math.sqrt(height)  # (line, y)
    rows = torch.nonzero(measured).flatten()
    place = {int(row): index for index, row in enumerate(rows)}
    # Missing lines with the same kernel share what is done with it; of a kernel, what reaches the same line is one sum.
    kernels = {id(taps): taps for taps in lines.values()}
    reached = {
        number: {step: [x for y, x in taps if y == step] for step in dict.fromkeys(y for y, _ in taps)}
        for number, taps in kernels.items()
    }
    result = torch.zeros(height, width)
    for columns in torch.arange(width).split(_COLUMNS):
        along = unit[:, :, columns].conj().movedim(2, 0)  # (x, coil, y)
        spread = transform[rows][:, None, None] * along  # (row, x, coil, y)
        seen: dict[tuple[int, int], Tensor] = {}
        for number, steps in reached.items():
            for step, shifts in steps.items():
                stacked = torch.stack([kernels[number][step, shift] for shift in shifts])  # (shift, coil in, coil out)
                image = torch.einsum("sx,sio->xio", _phases(width, shifts)[:, columns], stacked)
                seen[number, step] = image @ along
        for line, taps in lines.items():
            for step in reached[id(taps)]:
                spread[place[line + step]] += transform[line] * seen[id(taps), step]
        energy = (spread.abs().square().sum(2) * variance[rows][:, None, None]).sum(0)  # (x, y)
        result[:, columns] = energy.sqrt().T
    return result


def _phases(size: int, distances: list[int]) -> Tensor:
    """What a distance in k-space multiplies the image by: complex64 (distance, pixel)."""
    pixel = torch.arange(size) - size // 2
    angle = -2 * torch.pi / size * torch.tensor(distances, dtype=torch.float64)[:, None] * pixel
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
