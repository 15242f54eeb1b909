"""ESPIRiT coil maps from the fully sampled centre of k-space: the gadget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gadgetron.types import ReconData
from gadgetron.types.recon_data import ReconBit
from torch import Tensor

from gadgets.acquisitions import calibration_mode
from gadgets.buffers import (
    Array,
    first_line,
    is_3d,
    keep,
    kspace_problems,
    maps_from_problems,
    replace_data,
    sampled,
    slices_come_again,
)
from gadgets.calibration_quality import CalibrationQuality
from gadgets.placed_readouts import checked_readouts
from gadgets.references import with_references
from gadgets.stream import Gadget, parameter
from priors.signal.espirit import calibration_region, espirit_maps
from priors.signal.hankel import low_rank_completion


class Espirit(Gadget):
    """Estimates coil maps from each slice's calibration data and attaches them to its ReconBit as `coil_maps`.

    The calibration is the largest fully sampled centre of the reference lines, or of the k-space when there are none;
    reference lines may come in an encoding space of their own (`gadgets.references`).
    Repetitions, phases, sets and contrasts without calibration get the earlier maps of the slice in their encoding
    space. Interleaved calibration takes the lines of as many repetitions as fill the centre, and their images wait for
    it. In a scan without any calibration the centre is first completed by low rank, and its images carry a warning.
    """

    @dataclass(frozen=True)
    class Parameters:
        map_sets: int = parameter(1, "sets of maps; 2 for anatomy larger than the field of view", minimum=1, maximum=4)
        kernel: int = parameter(6, "width of the k-space kernel in 2D", minimum=2, maximum=12)
        kernel_3d: int = parameter(5, "width of the k-space kernel in 3D", minimum=2, maximum=12)
        threshold: float = parameter(
            0.02, "singular values below this fraction of the largest are noise", minimum=0.0, maximum=0.99
        )
        crop: float = parameter(0.0, "eigenvalue at which the support of the maps ends", minimum=0.0, maximum=0.999)
        soft: bool = parameter(True, "weight the maps smoothly by their eigenvalue instead of cutting them at `crop`")
        calibration_size: int = parameter(24, "most calibration samples used along each axis", minimum=4)

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        kept: dict[tuple[int, int], tuple[Array, str]] = {}
        shared: dict[tuple[int, ...], _SharedCalibration] = {}
        waiting: list[ReconData] = []
        self._quality = CalibrationQuality()
        self._come_again = slices_come_again(self.header, self.survey)
        for item in checked_readouts(items, self.header):
            if not isinstance(item, ReconData):
                yield item
                continue
            item = with_references(item)
            for space, bit in enumerate(item.bits):
                interleaved = calibration_mode(self.header.encoding[space]) == "interleaved"
                if interleaved and bit.data.data.size and _slice(space, bit) not in kept:
                    shared.setdefault(_key(space, bit), _SharedCalibration()).add(bit.data.data)
            waiting.append(item)
            for candidate in list(waiting):
                if self._attach(candidate, kept, shared):
                    waiting.remove(candidate)
                    yield candidate
        for item in waiting:
            self._attach(item, kept, {})
            yield item

    def _attach(
        self,
        item: ReconData,
        kept: dict[tuple[int, int], tuple[Array, str]],
        shared: dict[tuple[int, ...], _SharedCalibration],
    ) -> bool:
        """Attach maps to all ReconBits; False when some must wait for the lines of later repetitions."""
        for space, bit in enumerate(item.bits):
            if not bit.data.data.size or hasattr(bit, "coil_maps"):
                continue
            key, place = _key(space, bit), _slice(space, bit)
            calibration, source = self._calibrations(bit), "measured"
            earlier, earlier_source = kept.get(place, (None, ""))
            if calibration is None and earlier is not None and earlier.shape[:4] == bit.data.data.shape[:4]:
                bit.coil_maps, bit.calibration = earlier, earlier_source
                continue
            if calibration is None and key in shared:
                calibration, source = self._calibrations(shared[key].bit(bit)), "all repetitions"
                if calibration is None:
                    return False
            if calibration is None:
                calibration, source = self._completed(bit), "completed"
            bit.coil_maps, bit.calibration = self._maps(bit, calibration), source
            self._quality.add(calibration, bit, source)
            known = bit.coil_maps, "earlier repetition" if source == "measured" else source
            keep(kept, place, known, self._come_again)
            shared.pop(key, None)
        return True

    def _maps(self, bit: ReconBit, calibrations: list[list[Tensor]]) -> Array:
        """Maps [RO, E1, E2, CHA, SET, S, LOC] from the calibration k-space of each LOC and S."""
        shape = bit.data.data.shape
        three_d = is_3d(bit.data.data)
        size = (shape[1], shape[2]) if three_d else (shape[1], shape[0])
        kernel = self.parameters.kernel_3d if three_d else self.parameters.kernel

        def maps(calibration: Tensor) -> Array:
            found = espirit_maps(
                calibration,
                size,
                sets=self.parameters.map_sets,
                kernel=min(kernel, *calibration.shape[-2:]),
                threshold=self.parameters.threshold,
                crop=self.parameters.crop,
                soft=self.parameters.soft,
            )
            return maps_from_problems(found, three_d)

        return np.stack([np.stack([maps(one) for one in row], axis=-1) for row in calibrations], axis=-1)

    def _calibrations(self, bit: ReconBit) -> list[list[Tensor]] | None:
        """Calibration k-space (batch, coil, cy, cx) for each LOC and S; None when a slice has too little of it."""
        three_d = is_3d(bit.data.data)
        smallest = min(3, *bit.data.data.shape[1:3]) if three_d else 4
        _, _, _, _, _, s_count, locations = bit.data.data.shape
        found = []
        for loc in range(locations):
            row = []
            for s in range(s_count):
                own_first = [s, *(other for other in range(s_count) if other != s)]  # one average may have all of it
                regions = (self._region(part) for part in _parts(bit, own_first, loc))
                fitting = (region for region in regions if region is not None and min(region.shape[-2:]) >= smallest)
                region = next(fitting, None)
                if region is None:
                    return None
                row.append(region)
            found.append(row)
        return found

    def _region(self, data: Array) -> Tensor | None:
        """Fully sampled centre of a buffer [RO, E1, E2, CHA, N], of the first N that has one; no larger than set."""
        for n in range(data.shape[4]):
            mask = sampled(data[..., n])[0]
            rows, columns = calibration_region(mask.numpy(), self.parameters.calibration_size)
            if rows.stop > rows.start and columns.stop > columns.start:
                return kspace_problems(data[..., n])[..., rows, columns].contiguous()
        return None

    def _completed(self, bit: ReconBit) -> list[list[Tensor]]:
        """The centre of k-space with its missing samples filled in by low rank (SAKE, Shin et al., MRM 2014)."""
        data = bit.data.data
        window, width = 6, 2 * self.parameters.calibration_size
        found = []
        for loc in range(data.shape[6]):
            row = []
            for s in range(data.shape[5]):
                kspace = kspace_problems(data[..., 0, s, loc])
                mask = sampled(data[..., 0, s, loc])
                centre = [slice(max(n // 2 - width // 2, 0), n // 2 + width // 2) for n in kspace.shape[-2:]]
                kspace, mask = kspace[..., centre[0], centre[1]], mask[..., centre[0], centre[1]]
                fitting = min(window, *kspace.shape[-2:])
                rank = min(fitting * fitting * 3 // 2, kspace.shape[1] * fitting * fitting // 2 + 1)
                row.append(low_rank_completion(kspace, mask[:, None], fitting, rank, 30))
            found.append(row)
        return found


def _parts(bit: ReconBit, order: list[int], loc: int) -> Iterator[Array]:
    """Buffers [RO, E1, E2, CHA, N] that may hold the calibration of a LOC: by S in this order, reference first."""
    for s in order:
        for buffer in (bit.ref, bit.data):
            if buffer is not None:
                yield buffer.data[..., min(s, buffer.data.shape[5] - 1), min(loc, buffer.data.shape[6] - 1)]


class _SharedCalibration:
    """The mean of the repetitions so far, each sample over the repetitions that measured it."""

    def __init__(self) -> None:
        self._sum: Array | None = None
        self._count: Array | None = None

    def add(self, data: Array) -> None:
        count = (data != 0).any(axis=3, keepdims=True).astype(np.float32)
        self._sum = data if self._sum is None else self._sum + data
        self._count = count if self._count is None else self._count + count

    def bit(self, like: ReconBit) -> ReconBit:
        assert self._sum is not None and self._count is not None
        return ReconBit(replace_data(like.data, self._sum / np.maximum(self._count, 1)))


def _slice(space: int, bit: ReconBit) -> tuple[int, int]:
    """Encoding space and slice: what shares coil maps."""
    return space, int(first_line(bit.data).idx.slice)


def _key(space: int, bit: ReconBit) -> tuple[int, ...]:
    """Encoding space and counters of an image within its repetition."""
    counters = first_line(bit.data).idx
    return (space, counters.slice, counters.contrast, counters.phase, counters.set)
