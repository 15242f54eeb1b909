"""ESPIRiT coil maps, from the fully sampled centre of k-space or from the low-rank space of all of it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from priors.signal.hankel import gram_matrix, leading_subspace

_CHUNK_BYTES = 4 * 2**20
_POWER_TOLERANCE = 1e-3
_SQUARINGS = 4
_LATER_SET_CROP = 0.8
_TINY = torch.finfo(torch.float32).tiny


def calibration_region(mask: NDArray[np.bool_] | Tensor, largest: int | None = None) -> tuple[slice, slice]:
    """Largest fully sampled rectangle around the centre of a sampling mask.

    Parameters
    ----------
    mask : array of bool
        Sampling mask, shape (y, x), with the centre of k-space at (y // 2, x // 2).
    largest : int, optional
        Most samples along each axis: the middle of a larger rectangle is returned.

    Returns
    -------
    (slice, slice)
        Rows and columns of the rectangle of the largest area that holds the centre, symmetric about it or
        with one sample more on one side. Both are empty if the centre is not sampled.

    Raises
    ------
    ValueError
        If the mask is not two-dimensional.
    """
    sampled: NDArray[np.bool_] = np.asarray(mask, dtype=bool)
    if sampled.ndim != 2:
        raise ValueError(f"sampling mask: shape {sampled.shape} is not (y, x)")
    row, column = sampled.shape[0] // 2, sampled.shape[1] // 2
    best = (slice(row, row), slice(column, column))
    best_area = 0
    for first, last in _centred_ranges(row, sampled.shape[0]):
        full = np.logical_and.reduce(sampled[first:last])
        if not full[column]:
            break
        gaps = np.flatnonzero(~full)
        left = column - (gaps[gaps < column].max(initial=-1) + 1)
        right = gaps[gaps > column].min(initial=len(full)) - column - 1
        start, stop = int(column - min(left, right + 1)), int(column + min(right, left + 1) + 1)
        if (area := (last - first) * (stop - start)) > best_area:
            best, best_area = (slice(first, last), slice(start, stop)), area
    return best if largest is None else (_at_most(best[0], largest), _at_most(best[1], largest))


def _at_most(part: slice, size: int) -> slice:
    """The middle of a range, no longer than `size`, its centre sample at half its length."""
    excess = max(part.stop - part.start - size, 0)
    return slice(part.start + (excess + 1) // 2, part.stop - excess // 2)


def _centred_ranges(centre: int, size: int) -> list[tuple[int, int]]:
    """Ranges around the centre sample with at most one sample more on one side, smallest first."""
    ranges = [
        (centre - half - before, centre + half + after)
        for half in range(size)
        for before, after in ((0, 1), (1, 1), (0, 2))
    ]
    return [(first, last) for first, last in ranges if first >= 0 and last <= size]


def espirit_maps(
    calibration: Tensor,
    shape: tuple[int, int],
    *,
    sets: int = 1,
    kernel: int = 6,
    threshold: float = 0.02,
    crop: float = 0.6,
    soft: bool = True,
    iterations: int = 100,
) -> Tensor:
    r"""Coil sensitivity maps by ESPIRiT from a fully sampled calibration region.

    Parameters
    ----------
    calibration : Tensor
        Complex k-space of the calibration region, shape (batch, coil, cy, cx), no sample missing.
    shape : (int, int)
        Size (y, x) of the maps; any size, odd too.
    sets : int
        Number of map sets: 1 for plain SENSE, 2 or more for anatomy larger than the field of view
        (soft-SENSE).
    kernel : int
        Width of the k-space kernel in samples.
    threshold : float
        Singular values of the calibration matrix below this fraction of the largest one are noise, from 0 to
        1.
    crop : float
        Eigenvalue of the coil operator (from 0 to 1) where the support of the maps ends; 0 does not crop.
        Later sets, whose eigenvalues come near 1 only where anatomy is aliased, use at least 0.8.
    soft : bool
        Let the weight of the maps rise smoothly from 0 to 1 around `crop`, on a width of 2 (1 - crop);
        otherwise the maps are cut there.
    iterations : int
        Most subspace iterations.

    Returns
    -------
    Tensor
        Complex maps, shape (batch, set, coil, y, x), dimensionless. The sum of squares over the coils is the
        square of the weight: 1 inside the support and 0 outside.

    Raises
    ------
    ValueError
        If the calibration region is smaller than the kernel or a number is out of range.

    Notes
    -----
    The patches of the calibration k-space span the signal space V of the calibration matrix. Its projection
    :math:`V V^H`, averaged over all patches that hold a sample, is a convolution; in the image it is one
    Hermitian coil-by-coil matrix a pixel, and the maps are its eigenvectors of eigenvalue 1 (Uecker et al.,
    MRM 2014). The phase of set m makes its inner product over the coils with the m-th principal
    component of the calibration data real and positive.
    """
    _check_arguments(calibration, sets, kernel, threshold, crop)
    maps = calibration.new_zeros(len(calibration), sets, calibration.shape[1], *shape)
    for slice_maps, slice_calibration in zip(maps, calibration, strict=True):
        norm = torch.linalg.vector_norm(slice_calibration)
        if norm == 0:
            continue
        normed = slice_calibration / norm
        if torch.isinf(norm):  # squares of samples above 1e19 have no room in 32 bits
            precise = slice_calibration.to(torch.complex128)
            normed = (precise / torch.linalg.vector_norm(precise)).to(slice_calibration.dtype)
        space = _signal_space(normed, kernel, threshold)
        _fill_slice(slice_maps, space, _principal_components(normed), crop, soft, iterations)
    return maps


def low_rank_maps(kspace: Tensor, window: int, rank: int, *, sets: int = 1, iterations: int = 100) -> Tensor:
    r"""Coil maps from the low-rank space of whole k-space, measured or estimated.

    Parameters
    ----------
    kspace : Tensor
        Complex k-space without gaps, shape (batch, coil, y, x).
    window : int
        Width of the window of the Hankel matrix in samples.
    rank : int
        Dimension of its signal space, from 1 to coil * window^2.
    sets : int
        Number of map sets.
    iterations : int
        Most subspace iterations.

    Returns
    -------
    Tensor
        Complex maps, shape (batch, set, coil, y, x); the sum of squares over the coils is 1 in the first set, and the
        weight of the set from 0 to 1 in the others. Zero for slices that are empty.

    Raises
    ------
    ValueError
        If the window does not fit into the k-space or the rank is out of range.

    Notes
    -----
    The projection :math:`V V^H` on the signal space of the periodic Hankel matrix is one Hermitian coil-by-coil matrix
    a pixel, the one that `low_rank_projection` multiplies the coil images by (Shin et al., MRM 2014). Its leading
    eigenvectors are the maps, as in ESPIRiT, whose calibration region is here all of k-space.
    """
    space = leading_subspace(gram_matrix(kspace, window), rank).to(kspace.dtype)
    maps = kspace.new_zeros(len(kspace), sets, *kspace.shape[1:])
    rows, columns = (slice(max(n // 2 - 12, 0), n // 2 + 12) for n in kspace.shape[-2:])
    for one, vectors, centre in zip(maps, space, kspace[..., rows, columns], strict=True):
        if not bool((centre != 0).any()):
            continue
        kernels = vectors.mT.reshape(rank, kspace.shape[1], window, window)
        references = _principal_components(centre / torch.linalg.vector_norm(centre))
        _fill_slice(one, kernels, references, crop=0.0, soft=True, iterations=iterations)
    return maps


def _check_arguments(calibration: Tensor, sets: int, kernel: int, threshold: float, crop: float) -> None:
    if calibration.ndim != 4:
        raise ValueError(f"ESPIRiT: calibration of shape {tuple(calibration.shape)} is not (batch, coil, y, x)")
    height, width = calibration.shape[-2:]
    if kernel < 1 or min(height, width) < kernel:
        raise ValueError(
            f"ESPIRiT: calibration region of {height} x {width} samples is smaller than the {kernel} x {kernel}"
            " kernel; acquire more calibration lines or take a smaller kernel"
        )
    if sets < 1:
        raise ValueError(f"ESPIRiT: {sets} map sets; take 1 or more")
    if not (0 <= threshold < 1 and 0 <= crop < 1):
        raise ValueError(f"ESPIRiT: threshold {threshold} and crop {crop} must be from 0 to below 1")


def _fill_slice(maps: Tensor, space: Tensor, references: Tensor, crop: float, soft: bool, iterations: int) -> None:
    """Write the maps of one slice, (set, coil, y, x), from the kernels (index, coil, ky, kx) of its signal space.

    Rows of pixels are done in chunks that fit the cache: the coil-by-coil matrices of a whole slice would
    take gigabytes with many coils.
    """
    sets, coils, height, width = maps.shape
    kernel = space.shape[-1]
    projection = _projection_kernel(space)
    rows = _fourier_matrix(height, kernel, projection)
    columns = projection.reshape(-1, 2 * kernel - 1) @ _fourier_matrix(width, kernel, projection).mT
    columns = columns.reshape(coils, coils, -1, width).permute(2, 3, 1, 0).reshape(2 * kernel - 1, -1)
    rows_at_once = max(1, _CHUNK_BYTES // (coils * coils * width * maps.element_size()))
    for start in range(0, height, rows_at_once):
        chunk = slice(start, min(start + rows_at_once, height))
        operator = (rows[chunk] @ columns).reshape(-1, coils, coils)
        operator = (operator + operator.mH) / 2  # Hermitian to the last digit: its powers have positive traces
        for index in range(min(sets, coils)):
            vector, value = _leading_eigenvector(operator, references[:, index], iterations)
            weight = _support_weight(value, max(crop, _LATER_SET_CROP) if index else crop, soft)
            weighted = vector * weight[:, None]
            maps[index, :, chunk] = weighted.T.reshape(coils, -1, width)
            if index + 1 < sets:
                operator = _deflate(operator, vector)


def _principal_components(calibration: Tensor) -> Tensor:
    """Coil combinations of descending energy, (coil, component), each of a fixed phase."""
    samples = calibration.flatten(1)
    components = torch.linalg.eigh(samples @ samples.mH).eigenvectors.flip(1)
    largest = components.gather(0, components.abs().argmax(0, keepdim=True))
    return components * (largest.conj() / largest.abs())


def _signal_space(calibration: Tensor, kernel: int, threshold: float) -> Tensor:
    """Orthonormal kernels that span the patches of the calibration region, (index, coil, ky, kx)."""
    coils = calibration.shape[0]
    patches = calibration.unfold(1, kernel, 1).unfold(2, kernel, 1)
    unknowns = coils * kernel * kernel
    if patches.shape[1] * patches.shape[2] < unknowns:
        matrix = patches.permute(1, 2, 0, 3, 4).reshape(-1, unknowns)
        values, left = torch.linalg.eigh(matrix @ matrix.mH)
        kept = values > threshold**2 * values[-1]
        space = (matrix.mH @ left[:, kept]) / values[kept].sqrt()
    else:
        gram = calibration.new_zeros(unknowns, unknowns)
        rows_at_once = max(1, _CHUNK_BYTES // (patches.shape[2] * unknowns * calibration.element_size()))
        for rows in patches.split(rows_at_once, dim=1):
            matrix = rows.permute(1, 2, 0, 3, 4).reshape(-1, unknowns)
            gram += matrix.mH @ matrix
        values, space = torch.linalg.eigh(gram)
        space = space[:, values > threshold**2 * values[-1]]
    return space.mT.reshape(-1, coils, kernel, kernel)


def _projection_kernel(space: Tensor) -> Tensor:
    """Kernel of the averaged projection on the signal space, (coil in, coil out, 2 k - 1, 2 k - 1).

    Sums of the outer products over equal distances are correlations of the kernels, hence products of their
    transforms.
    """
    kernel = space.shape[-1]
    size = 2 * kernel - 1
    spectra = torch.fft.fft2(space, s=(size, size)).permute(2, 3, 1, 0)
    correlation = torch.fft.ifft2((spectra @ spectra.mH).permute(2, 3, 0, 1)) / kernel**2
    return torch.fft.fftshift(correlation, dim=(-2, -1))


def _fourier_matrix(size: int, kernel: int, like: Tensor) -> Tensor:
    """Transform of the 2 k - 1 kernel samples to `size` pixels along one axis, (size, 2 k - 1)."""
    pixel = torch.arange(size, dtype=torch.float64, device=like.device) - size // 2
    sample = torch.arange(1 - kernel, kernel, dtype=torch.float64, device=like.device)
    phase = -2 * torch.pi / size * pixel[:, None] * sample
    return torch.polar(torch.ones_like(phase), phase).to(like.dtype)


def _leading_eigenvector(operator: Tensor, reference: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Eigenvectors (pixel, coil) and eigenvalues (pixel) of Hermitian matrices (pixel, coil, coil).

    Power iteration with the 16th power of the matrices. It starts from the reference combination: as the
    matrices are positive semi-definite, the inner product with the reference is real and positive, and where
    several eigenvalues are 1 (aliased anatomy) the map is the smooth projection of the reference on their
    space.
    """
    power = operator
    for _ in range(_SQUARINGS):
        power = power @ power
        # The trace keeps the powers of small eigenvalues (background) within single precision.
        power = power / power.diagonal(dim1=1, dim2=2).real.sum(1).clamp_min(_TINY)[:, None, None]
    vector = reference.expand(len(operator), -1).unsqueeze(-1)
    for _ in range(max(1, -(-iterations // 2**_SQUARINGS))):
        following = power @ vector
        following = following / _squared_norm(following).sqrt().clamp_min(_TINY)
        change = _squared_norm(following - vector)
        vector = following
        if bool(change.max() < _POWER_TOLERANCE**2):
            break
    value = (vector.conj() * (operator @ vector)).sum((1, 2)).real
    return vector.squeeze(-1), value


def _squared_norm(vector: Tensor) -> Tensor:
    """Squared norms of vectors (pixel, coil, 1) as (pixel, 1, 1), without the slow complex modulus."""
    return torch.view_as_real(vector).square().sum((1, 3)).unsqueeze(-1)


def _deflate(operator: Tensor, vector: Tensor) -> Tensor:
    """Hermitian matrices restricted to the orthogonal complement of one unit vector each."""
    column = vector.unsqueeze(-1)
    mapped = operator @ column
    value = column.mH @ mapped
    return operator - mapped @ column.mH - column @ (mapped - value * column).mH


def _support_weight(value: Tensor, crop: float, soft: bool) -> Tensor:
    """Weight of the maps from 0 to 1: a cubic step over the eigenvalue, 1 - crop either side of `crop`."""
    if crop == 0:
        return torch.ones_like(value)
    if not soft:
        return (value > crop).to(value.dtype)
    position = ((value - crop) / (2 * (1 - crop)) + 0.5).clamp(0, 1)
    return position**2 * (3 - 2 * position)
