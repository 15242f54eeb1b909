"""Coil compression: fewer virtual coils that keep the signal."""

from __future__ import annotations

import torch
from torch import Tensor

LEFT_OUT = 0.25  # signal in the virtual coils that are left out, in units of the noise of all coils


def svd_compression(
    calibration: Tensor,
    coils: int | None = None,
    energy: float | None = None,
    *,
    noise: float | None = None,
    coil_axis: int = 0,
) -> Tensor:
    r"""Matrix to the virtual coils that hold the most energy of the calibration data.

    Parameters
    ----------
    calibration : Tensor
        Complex data (k-space or image), shape (coil, ...), or with the coils along another axis.
    coils : int, optional
        Number of virtual coils; no more than there are coils.
    energy : float, optional
        Fraction of the energy, above 0 up to 1, that the virtual coils must keep: the fewest that do. With
        `coils` too, the smaller number is taken; with neither, all virtual coils are kept.
    noise : float, optional
        Standard deviation of the white noise of the data in each of the real and imaginary parts: the fewest virtual
        coils are kept whose left-out signal has at most a quarter of the energy of the noise of all coils. With
        `energy` too, the larger of both numbers.
    coil_axis : int
        Axis of the coils.

    Returns
    -------
    Tensor
        Complex matrix of orthonormal rows, shape (virtual, coil), by descending energy; white noise stays
        white. The largest entry of a row is real and positive.

    Raises
    ------
    ValueError
        If `coils` or `energy` is out of range.

    Notes
    -----
    The conjugate leading left singular vectors :math:`U^H` of the (coil, sample) data matrix (Buehrer et al.,
    MRM 2007; Huang et al., MRI 2008).
    """
    available = calibration.shape[coil_axis]
    _check_coils(coils, available)
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"coil compression: energy {energy} is not above 0 and up to 1")
    samples = calibration.movedim(coil_axis, 0).flatten(1)
    values, vectors = _principal_axes(samples)
    needed = []
    if energy is not None:
        cumulative = values.cumsum(0)
        # Without a rounding error of slack, asking for all the energy could ask for more than there is.
        needed.append(int((cumulative < energy * cumulative[-1] * (1 - torch.finfo(values.dtype).eps)).sum()) + 1)
    if noise is not None:
        needed.append(_above_noise(values, 2 * noise**2 * int(samples.any(0).sum())))
    kept = min(available if coils is None else coils, max(needed, default=available))
    matrix = vectors[:, :kept].mH
    largest = matrix.gather(1, matrix.abs().argmax(1, keepdim=True))
    return matrix * (largest.conj() / largest.abs())


def geometric_compression(calibration: Tensor, coils: int) -> Tensor:
    r"""Matrices to virtual coils for every position along the readout, aligned from position to position.

    Parameters
    ----------
    calibration : Tensor
        Complex hybrid data, readout in image space and phase encoding in k-space, shape (x, coil, ...).
    coils : int
        Number of virtual coils; no more than there are coils.

    Returns
    -------
    Tensor
        Complex matrices of orthonormal rows, shape (x, virtual, coil).

    Raises
    ------
    ValueError
        If `coils` is out of range or there is no sample at all.

    Notes
    -----
    At each position the leading left singular vectors :math:`A_x^0`, rotated to the smooth :math:`A_x = V U^H
    A_x^0` with :math:`A_x^0 A_{x-1}^H = U \Sigma V^H` (geometric coil compression, Zhang et al., MRM 2013).
    The rotation runs from the central position outwards, where the signal is strong.
    """
    if calibration.ndim < 3:
        raise ValueError(f"coil compression: hybrid data of shape {tuple(calibration.shape)} is not (x, coil, ...)")
    positions, available = calibration.shape[:2]
    _check_coils(coils, available)
    matrices = _principal_axes(calibration.flatten(2))[1][..., :coils].mH.clone()
    centre = positions // 2
    for position, neighbour in [
        *((x, x - 1) for x in range(centre + 1, positions)),
        *((x, x + 1) for x in range(centre - 1, -1, -1)),
    ]:
        left, _, right = torch.linalg.svd(matrices[position] @ matrices[neighbour].mH)
        matrices[position] = right.mH @ left.mH @ matrices[position]
    return matrices


def _above_noise(values: Tensor, noise: float) -> int:
    """How many of falling energies to keep, of which each has so much noise, one at least."""
    left_out = (values - noise).clamp_min(0).flip(0).cumsum(0)
    return max(len(values) - int((left_out <= LEFT_OUT * len(values) * noise).sum()), 1)


def _principal_axes(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Energies and left singular vectors (..., coil, component) of (..., coil, sample), largest first."""
    values, vectors = torch.linalg.eigh(samples @ samples.mH)
    return values.clamp_min(0).flip(-1), vectors.flip(-1)


def _check_coils(coils: int | None, available: int) -> None:
    if coils is not None and not 1 <= coils <= available:
        raise ValueError(f"coil compression: {coils} virtual coils cannot be made of {available} coils")
