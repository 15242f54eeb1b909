"""Coil compression: fewer virtual coils that keep the signal: the gadget."""

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
from gadgets.twins.noise_adjust import is_prewhitened
from priors.signal.compression import geometric_compression, svd_compression
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.noise import noise_level

LEAST_ENERGY = 0.995  # of the calibration that is kept in any case


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
        energy: float = parameter(
            0.0,
            "fraction of the calibration data's energy to keep; 0: 0.995, and all that stands out of the noise",
            minimum=0.0,
            maximum=1.0,
        )

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
        matrices = self._matrices.get(key) or self._learned(
            bit.ref.data if same_coils else data, data, is_prewhitened(bit.data.headers)
        )
        keep(self._matrices, key, matrices, self._come_again)
        ref = replace_data(bit.ref, _applied(bit.ref.data, matrices)) if same_coils else None
        return ReconBit(replace_data(bit.data, _applied(data, matrices)), ref)

    def _learned(self, calibration: Array, data: Array, prewhitened: bool) -> list[Tensor]:
        """One matrix (virtual, coil), or one a readout position (x, virtual, coil), for each LOC."""
        available = calibration.shape[3]
        method = self.parameters.method
        geometric = method == "geometric" or (method == "auto" and is_3d(data))
        if geometric and calibration.shape[0] != data.shape[0]:
            geometric = False  # calibration of another readout length has no position for each of the data's
        slices = [torch.from_numpy(np.ascontiguousarray(calibration[..., loc])) for loc in range(calibration.shape[6])]
        wanted = min(self.parameters.virtual_coils, available)
        if not wanted:
            wanted = max(self._needed(samples, prewhitened) for samples in slices)
        if not geometric:
            return [svd_compression(samples, wanted, coil_axis=3) for samples in slices]
        hybrid = [ifft2c(samples.movedim(3, 1), axes=(0,)) for samples in slices]
        return [geometric_compression(samples, wanted) for samples in hybrid]

    def _needed(self, samples: Tensor, prewhitened: bool) -> int:
        """Virtual coils that calibration samples [RO, E1, E2, CHA, N, S] need."""
        if self.parameters.energy:
            return len(svd_compression(samples, energy=self.parameters.energy, coil_axis=3))
        noise = 1.0 if prewhitened else _noise_of(samples[:, :, samples.shape[2] // 2, :, 0, 0].movedim(2, 0))
        # Calibration without signal says nothing of the coils that later repetitions need: energy keeps nearly all.
        return len(svd_compression(samples, energy=LEAST_ENERGY, noise=noise, coil_axis=3))


def _noise_of(kspace: Tensor) -> float:
    """Noise of k-space (coil, x, y) in which samples may be missing; 0 where there are none."""
    return noise_level(kspace[None], (kspace != 0).any(0)[None, None])


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
