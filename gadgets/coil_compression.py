"""Coil compression: fewer virtual coils that keep the signal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gadgetron.types import ReconData
from gadgetron.types.recon_data import ReconBit
from torch import Tensor

from gadgets.buffers import Array, first_line, is_3d, keep, replace_data, slices_come_again
from gadgets.placed_readouts import checked_readouts
from gadgets.references import with_references
from gadgets.stream import Gadget, parameter
from priors.signal.fourier import fft2c, ifft2c


def svd_compression(
    calibration: Tensor, coils: int | None = None, energy: float | None = None, *, coil_axis: int = 0
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
    values, vectors = _principal_axes(calibration.movedim(coil_axis, 0).flatten(1))
    kept = available if coils is None else coils
    if energy is not None:
        cumulative = values.cumsum(0)
        # Without a rounding error of slack, asking for all the energy could ask for more than there is.
        needed = int((cumulative < energy * cumulative[-1] * (1 - torch.finfo(values.dtype).eps)).sum()) + 1
        kept = min(kept, needed)
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


def _principal_axes(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Energies and left singular vectors (..., coil, component) of (..., coil, sample), largest first."""
    values, vectors = torch.linalg.eigh(samples @ samples.mH)
    return values.clamp_min(0).flip(-1), vectors.flip(-1)


def _check_coils(coils: int | None, available: int) -> None:
    if coils is not None and not 1 <= coils <= available:
        raise ValueError(f"coil compression: {coils} virtual coils cannot be made of {available} coils")


# --- the gadget ------------------------------------------------------------------------------------------------------


class CoilCompression(Gadget):
    """Replaces the coils of k-space and calibration buffers by fewer virtual coils.

    The compression is learned from each slice's calibration lines (from its k-space when it has none) when the slice
    first comes in an encoding space, and used for all its repetitions, phases, sets and contrasts there. 2D slices get
    one matrix, 3D volumes one a readout position, aligned (geometric coil compression), unless `method` says otherwise.
    """

    @dataclass(frozen=True)
    class Parameters:
        method: str = parameter(
            "auto",
            "auto: svd in 2D, geometric in 3D; none passes the coils on",
            choices=("auto", "svd", "geometric", "none"),
        )
        virtual_coils: int = parameter(0, "number of virtual coils; 0: as many as `energy` needs", minimum=0)
        energy: float = parameter(0.995, "fraction of the calibration data's energy to keep", minimum=0.5, maximum=1.0)

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        self._matrices: dict[tuple[int, ...], list[Tensor]] = {}
        self._come_again = slices_come_again(self.header, self.survey)
        for item in checked_readouts(items, self.header):
            if isinstance(item, ReconData) and self.parameters.method != "none":
                item = with_references(item)
                item = ReconData([self._compressed(space, bit) for space, bit in enumerate(item.bits)])
            yield item

    def _compressed(self, space: int, bit: ReconBit) -> ReconBit:
        data = bit.data.data
        if not data.size or data.shape[3] == 1:
            return bit
        same_coils = bit.ref is not None and bit.ref.data.shape[3] == data.shape[3]
        key = (space, first_line(bit.data).idx.slice, data.shape[3])
        matrices = self._matrices.get(key) or self._learned(bit.ref.data if same_coils else data, data)
        keep(self._matrices, key, matrices, self._come_again)
        ref = replace_data(bit.ref, _applied(bit.ref.data, matrices)) if same_coils else None
        return ReconBit(replace_data(bit.data, _applied(data, matrices)), ref)

    def _learned(self, calibration: Array, data: Array) -> list[Tensor]:
        """One matrix (virtual, coil), or one a readout position (x, virtual, coil), for each LOC."""
        available = calibration.shape[3]
        method = self.parameters.method
        geometric = method == "geometric" or (method == "auto" and is_3d(data))
        if geometric and calibration.shape[0] != data.shape[0]:
            geometric = False  # calibration of another readout length has no position for each of the data's
        slices = [torch.from_numpy(np.ascontiguousarray(calibration[..., loc])) for loc in range(calibration.shape[6])]
        wanted = min(self.parameters.virtual_coils, available)
        if not wanted:
            energy = self.parameters.energy
            wanted = max(len(svd_compression(samples, energy=energy, coil_axis=3)) for samples in slices)
        if not geometric:
            return [svd_compression(samples, wanted, coil_axis=3) for samples in slices]
        hybrid = [ifft2c(samples.movedim(3, 1), axes=(0,)) for samples in slices]
        return [geometric_compression(samples, wanted) for samples in hybrid]


def _applied(data: Array, matrices: list[Tensor]) -> Array:
    """Virtual coils of a buffer [RO, E1, E2, CHA, N, S, LOC]."""
    compressed = []
    for loc in range(data.shape[6]):
        matrix = matrices[min(loc, len(matrices) - 1)]
        samples = torch.from_numpy(np.ascontiguousarray(data[..., loc])).movedim(3, 1)  # RO, CHA, E1, E2, N, S
        if matrix.ndim == 3:
            hybrid = matrix @ ifft2c(samples, axes=(0,)).flatten(2)
            mixed = fft2c(hybrid.unflatten(2, samples.shape[2:]), axes=(0,))
            mixed *= (samples != 0).any(1, keepdim=True)  # places never sampled stay exactly zero
        else:
            mixed = (matrix @ samples.flatten(2)).unflatten(2, samples.shape[2:])
        compressed.append(mixed.movedim(1, 3).numpy())
    return np.stack(compressed, axis=6)
