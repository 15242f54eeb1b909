"""Buckets of readouts, sorted into k-space buffers."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types import AcquisitionBucket, ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer, SamplingDescription

from gadgets.acquisitions import calibration_mode, counter_of, encoding_of, phase_encodings, signed_step
from gadgets.phase_encodings import Axis, partition_axis, phase_axis
from gadgets.readouts import is_block_of_its_own
from gadgets.stream import Gadget, ReconError, parameter

log = logging.getLogger("genrecon")

BUFFER_COUNTERS = ("average", "slice", "contrast", "phase", "repetition", "set", "segment")  # that sort into buffers
DIMENSIONS = ("average", "contrast", "phase", "repetition", "set", "segment", "slice", "none", "")


class BucketToBufferGadget(Gadget):
    """Sorts a bucket's lines into buffers [RO, E1, E2, CHA, N, S, LOC], the k-space centre at the matrix centre.

    Differences from the C++ gadget:

    - a scan without `parallelImaging` gets the encoded matrix like any other (the C++ one takes the number of lines
      within the encoding limits, which loses lines of a partial Fourier scan);
    - N, S and LOC have a place for each counter that came (in the C++ one the highest overwrite each other when the
      lowest is not 0, and counters between them that did not come have a place, too), also slices along N or S (there
      they overwrite each other) and slices beyond the header's limits (there the server crashes);
    - two lines for the same place are reported (in both the later one stays);
    - where header and lines contradict each other about the matrix, its centre, 2D or 3D, the lines count
      (`gadgets.phase_encodings`); fields of view are those of the samples and lines that came;
    - Cartesian encodings only.
    """

    @dataclass(frozen=True)
    class Parameters:
        N_dimension: str = parameter("none", "counter along the buffers' N", choices=DIMENSIONS)
        S_dimension: str = parameter("none", "counter along the buffers' S", choices=DIMENSIONS)
        split_slices: bool = parameter(False, "one buffer a slice instead of slices along LOC")
        ignore_segment: bool = parameter(False, "lines of all segments go to one buffer")
        verbose: bool = parameter(False, "accepted for Gadgetron; not used", same_image=True)

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        self._notes: set[str] = set()
        for item in items:
            if isinstance(item, AcquisitionBucket):
                yield from self._buffers(item)
            else:
                yield item

    def _buffers(self, bucket: AcquisitionBucket) -> Iterator[ReconData]:
        groups: dict[tuple[int, ...], dict[int, dict[bool, _Filling]]] = defaultdict(lambda: defaultdict(dict))
        axes = self._axes([*bucket.data, *bucket.ref])
        for is_ref, lines, stats in ((True, bucket.ref, bucket.refstats), (False, bucket.data, bucket.datastats)):
            for line in lines:
                space = line.encoding_space_ref
                filling = groups[self._key(line)][space]
                if is_ref not in filling:
                    encoding = encoding_of(self.header, line)
                    filling[is_ref] = _Filling(self.parameters, encoding, axes[space], stats[space], line, is_ref)
                filling[is_ref].add(line)
        for _, spaces in sorted(groups.items()):
            if not any(False in filling for filling in spaces.values()):
                log.warning("BucketToBufferGadget: calibration lines without imaging lines are dropped")
                continue
            bits = []
            for space in range(max(spaces) + 1):  # the place in the list is the encoding space
                filling = spaces.get(space, {})
                data = filling[False].buffer() if False in filling else _empty_buffer()
                bits.append(ReconBit(data, filling[True].buffer() if True in filling else None))
            yield ReconData(bits)

    def _axes(self, lines: list[ismrmrd.Acquisition]) -> dict[int, tuple[Axis, Axis]]:
        """E1 and E2 of each encoding space, from all of its lines; warns where header and lines disagree."""
        energies: dict[int, dict[tuple[int, int], float]] = defaultdict(dict)
        of_blocks: dict[int, dict[tuple[int, int], float]] = defaultdict(dict)
        for line in lines:
            steps = phase_encodings(line)
            energy = (of_blocks if is_block_of_its_own(self.header, line) else energies)[line.encoding_space_ref]
            energy[steps] = energy.get(steps, 0.0) + float(np.linalg.norm(line.data)) ** 2
        axes = {}
        for space, energy in (of_blocks | energies).items():
            along: dict[int, float] = defaultdict(float)
            for (step_1, _), value in energy.items():
                along[step_1] += value
            encoding = self.header.encoding[space]
            axes[space] = (phase_axis(encoding, along), partition_axis(encoding, energy))
            for note in (*axes[space][0].notes, *axes[space][1].notes):
                if note not in self._notes:
                    self._notes.add(note)
                    log.warning("%s", note)
        return axes

    def _key(self, line: ismrmrd.Acquisition) -> tuple[int, ...]:
        idx = line.idx  # a copy at each access
        key = {name: int(getattr(idx, name)) for name in BUFFER_COUNTERS}
        for dimension in (self.parameters.N_dimension, self.parameters.S_dimension):
            if dimension in key and dimension != "slice":
                key[dimension] = 0
        if not self.parameters.split_slices:
            key["slice"] = 0
        if self.parameters.ignore_segment:
            key["segment"] = 0
        return tuple(key.values())


class _Filling:
    """One buffer while lines are sorted into it."""

    def __init__(
        self,
        parameters: Any,
        encoding: Any,
        axes: tuple[Axis, Axis],
        stats: Any,
        line: ismrmrd.Acquisition,
        is_ref: bool,
    ) -> None:
        self._parameters = parameters
        self._two_d = axes[1].size == 1
        self._mode = calibration_mode(encoding) or "embedded"
        self._centred = not is_ref or self._mode == "embedded"
        own_block = is_ref and self._mode in {"separate", "external"}
        e1 = set(map(signed_step, stats.kspace_encode_step_1))
        e2 = set(map(signed_step, stats.kspace_encode_step_2))
        if own_block:
            lines = max(e1) - min(e1) + 1
            low, high = _announced(encoding, "kspace_encoding_step_2", axes[1].size)
            partitions = max(0 if self._two_d else high - low + 1, max(e2) - min(e2) + 1)
            self._first = (min(e1), min(e2))
        else:
            lines, partitions = axes[0].size, axes[1].size
            self._first = (0, 0)
        shifts = [axis.size // 2 - axis.centre for axis in axes]
        self._shift = (shifts[0], 0 if self._two_d else shifts[1]) if self._centred else (0, 0)
        self._slices = [0] if parameters.split_slices else sorted(stats.slice)
        self._extents = [self._extent(stats, name) for name in (parameters.N_dimension, parameters.S_dimension)]
        counts, locations = map(len, self._extents), len(self._slices)
        places = (lines, partitions, *counts, locations)
        shape = (line.number_of_samples, lines, partitions, line.active_channels, *places[2:])
        self.data = np.zeros(shape, dtype=np.complex64, order="F")
        self.headers = np.empty(places, dtype=object)
        never_came = ismrmrd.AcquisitionHeader()  # as a real Gadgetron leaves it
        never_came.version = never_came.available_channels = never_came.active_channels = 1
        self.headers.fill(never_came)
        self._filled = np.zeros(self.headers.shape, dtype=bool)
        self._repeated = self._outside_matrix = 0
        self.sampling = self._sampling(encoding, axes, line)

    @staticmethod
    def _extent(stats: Any, dimension: str) -> list[int]:
        """Counters of a dimension that have a place; of segments Gadgetron takes those of the averages."""
        if dimension in {"", "none"}:
            return [0]
        return sorted(getattr(stats, "average" if dimension == "segment" else dimension))

    def _sampling(self, encoding: Any, axes: tuple[Axis, Axis], line: ismrmrd.Acquisition) -> SamplingDescription:
        sampling, samples = SamplingDescription(), line.number_of_samples
        recon = encoding.reconSpace
        extent = recon.fieldOfView_mm.x
        # The readout's oversampling is gone by now.
        sampling.encoded_FOV[:] = [extent, *(axis.extent for axis in axes)]
        sampling.encoded_matrix[:] = [recon.matrixSize.x, *(axis.size for axis in axes)]
        sampling.recon_FOV[:] = [extent, *(axis.recon_extent for axis in axes)]
        sampling.recon_matrix[:] = [recon.matrixSize.x, *(axis.recon_size for axis in axes)]
        limits = [(line.discard_pre, samples // 2, samples - line.discard_post - 1)]
        for axis, shift, name in zip(axes, self._shift, ("step_1", "step_2"), strict=True):
            low, high = _announced(encoding, f"kspace_encoding_{name}", axis.size)
            limits.append((low + shift, axis.size // 2 if self._centred else axis.centre, high + shift))
        for axis_number, (low, centre, high) in enumerate(limits):
            limit = sampling.sampling_limits[axis_number]
            limit.min, limit.center, limit.max = max(low, 0), centre, max(high, 0)
        return sampling

    def add(self, line: ismrmrd.Acquisition) -> None:
        """Put a line in its place. Raises ReconError when it does not fit the buffer."""
        samples, channels = self.data.shape[0], self.data.shape[3]
        name = f"acquisition {line.scan_counter}"
        if line.active_channels != channels:
            raise ReconError(
                f"{name}: it has {line.active_channels} coils, the lines before it {channels}; check the raw data"
            )
        points = line.number_of_samples - line.discard_pre - line.discard_post
        if line.number_of_samples == samples and (
            line.center_sample == samples // 2 or line.center_sample >= line.number_of_samples
        ):
            offset = line.discard_pre
        else:
            offset = self.sampling.sampling_limits[0].center - line.center_sample
        if offset < 0 or points < 0 or offset + points > samples:
            raise ReconError(
                f"{name}: its {points} samples (centre {line.center_sample}) do not fit a readout of {samples}; "
                "header and data disagree"
            )
        step_1, step_2 = phase_encodings(line)
        e1 = step_1 + self._shift[0] - self._first[0]
        e2 = 0 if self._two_d and self.data.shape[2] == 1 else step_2 + self._shift[1] - self._first[1]
        if not (0 <= e1 < self.data.shape[1] and 0 <= e2 < self.data.shape[2]):
            self._outside_matrix += 1
            return
        n = _place(self._extents[0], counter_of(line, self._parameters.N_dimension))
        s = _place(self._extents[1], counter_of(line, self._parameters.S_dimension))
        location = 0 if self._parameters.split_slices else _place(self._slices, int(line.idx.slice))
        place = (e1, e2, n, s, location)
        self._repeated += bool(self._filled[place])
        self._filled[place] = True
        source = line.data[:, line.discard_pre : line.discard_pre + points]
        self.data[offset : offset + points, e1, e2, :, n, s, location] = source.T
        self.headers[place] = line.getHead()

    def buffer(self) -> ReconBuffer:
        """The buffer with the lines so far; warns of lines that were left out or replaced."""
        if self._outside_matrix:
            log.warning(
                "BucketToBufferGadget: %d lines lie outside the encoded matrix and are left out; check the encoding "
                "limits' centre in the header",
                self._outside_matrix,
            )
        if self._repeated:
            log.warning(
                "BucketToBufferGadget: %d lines came more than once for one place and the last one was kept; choose "
                "N_dimension and S_dimension so that each has its own",
                self._repeated,
            )
        return ReconBuffer(self.data, None, None, self.headers, self.sampling)


def _place(values: list[int], value: int) -> int:
    """Place of a value among those that came; of one that did not (see `_extent`) the nearest."""
    return min(bisect_left(values, value), len(values) - 1)


def _empty_buffer() -> ReconBuffer:
    empty = np.zeros((0,) * 7, dtype=np.complex64)
    return ReconBuffer(empty, None, None, np.empty((0,) * 5, dtype=object), SamplingDescription())


def _announced(encoding: Any, name: str, size: int) -> tuple[int, int]:
    """Lowest and highest counter by the header."""
    limit = getattr(encoding.encodingLimits, name)
    return (limit.minimum, limit.maximum) if limit else (0, size - 1)
