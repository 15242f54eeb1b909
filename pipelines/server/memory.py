"""What memory a scan will need, estimated before it is taken: from its header, its chain, and each line that comes."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import Any

import ismrmrd

from gadgets.acquisitions import calibration_mode, is_for_images
from gadgets.buffers import slices_come_again
from gadgets.stream import ReconError, read_parameters
from gadgets.stream.queues import item_bytes
from gadgets.twins import BucketToBufferGadget
from gadgets.twins.bucket_to_buffer import BUFFER_COUNTERS
from gadgets.twins.field_of_view import adjustment_steps
from pipelines.chain import Chain

# As `python -m benchmarks.serve memory` compares them with what a server takes.
COPIES = 8  # of a slice or volume that a chain holds at its most: buffers, calibration, maps, images
NETWORK_BYTES = 1280  # a pixel of a plane, for the work of a network
CONSTANT_BYTES = 300 * 2**20  # queues between the gadgets, buffers of libraries
BUFFERS = BucketToBufferGadget.__name__
NOISE_COPIES = 4  # of the noise lines, for their covariance
ITEM_BYTES = 2048  # of a line or waveform beside its samples: its header and Python's objects


@dataclass
class _Range:
    """Lowest and highest value that came."""

    low: int | None = None
    high: int = 0

    def add(self, *values: int) -> None:
        self.low = min(values) if self.low is None else min(self.low, *values)
        self.high = max(self.high, *values)

    def count(self) -> int:
        return 1 if self.low is None else self.high - self.low + 1


@dataclass
class _Space:
    """Of an encoding space: pixels of an array, of an image before its field of view is cut, and of a plane."""

    pixels: int
    on_the_way: int
    plane: int
    separate: bool  # whether its calibration lines are a block of their own
    block: tuple[_Range, _Range, _Range] = field(default_factory=lambda: (_Range(), _Range(), _Range()))  # RO, E1, E2


class MemoryCheck:
    """Estimates the most memory that a scan needs, from its header and then from its lines.

    That is `COPIES` times the largest slice or volume, with all that share its buffer or are reconstructed with it; the
    matrices of coils and kernels; the work of a network on a plane; the maps that are kept where slices come again; and
    what came since the last image went out: lines, and a buffer for each combination of their counters.

    Parameters
    ----------
    header : ismrmrd.xsd.ismrmrdHeader
    limit_gib : most memory, in GiB
    chain : says which counters share a buffer

    Attributes
    ----------
    needed : most bytes so far

    Raises
    ------
    ReconError
        Also when it is called: the memory needed is above the limit, or the fields of view are out of all proportion.
        And for a property of that gadget that it cannot have.
    """

    def __init__(self, header: Any, limit_gib: float, chain: Chain) -> None:
        self._limit = limit_gib * 2**30
        system = header.acquisitionSystemInformation
        self._coils = max((system.receiverChannels if system else None) or 1, 1)
        self._channels = 0  # of any line, noise too
        self._waiting = self._images = self.needed = 0
        self._buffers: set[tuple[int, ...]] = set()  # that came since the last image
        self._slices: set[int] = set()
        self._at_once = _largest_property(chain, ("slices_at_once",), 1)
        self._samples = _largest_property(chain, ("samples",), 1)
        self._kernel = _largest_property(chain, ("kernel", "kernel_3d", "window"), 6)
        self._kept_maps = _largest_property(chain, ("map_sets",), 1) if slices_come_again(header) else 0
        self._spaces = [_space_of(number, encoding) for number, encoding in enumerate(header.encoding)]
        self._counters = {name: _Range() for name in _counters_together(chain)}
        for name, counter in self._counters.items():
            for encoding in header.encoding:
                if (announced := getattr(encoding.encodingLimits, name)) is not None:
                    counter.add(announced.minimum, announced.maximum)
        self._largest = self._estimate()
        self._check()
        self._counters = {name: _Range() for name in self._counters}  # from here on those that come

    def __call__(self, item: ismrmrd.Acquisition | ismrmrd.Waveform, images: int) -> None:
        """Take an acquisition that agrees with the header, or a waveform, into account; so many images went out."""
        if images != self._images:
            self._images, self._waiting = images, 0
            self._buffers.clear()
        self._waiting += item_bytes(item) + ITEM_BYTES
        before = self._extent()
        if isinstance(item, ismrmrd.Acquisition):
            self._channels = max(self._channels, item.active_channels)
            if item.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT):
                self._waiting += NOISE_COPIES * item.data.nbytes
        if isinstance(item, ismrmrd.Acquisition) and is_for_images(item):
            self._coils = max(self._coils, item.active_channels)
            for name, counter in self._counters.items():
                counter.add(int(getattr(item.idx, name)))
            space = self._spaces[item.encoding_space_ref]
            if space.separate:
                samples, lines, partitions = space.block
                samples.add(0, item.number_of_samples - 1)
                lines.add(int(item.idx.kspace_encode_step_1))
                partitions.add(int(item.idx.kspace_encode_step_2))
            others = [int(getattr(item.idx, name)) for name in BUFFER_COUNTERS if name not in self._counters]
            self._buffers.add((item.encoding_space_ref, *others))
            self._slices.add(int(item.idx.slice))
        if self._extent() != before:
            self._largest = self._estimate()
        self._check()

    def _extent(self) -> tuple[int, ...]:
        blocks = [axis.count() for space in self._spaces for axis in space.block]
        counts = [counter.count() for counter in self._counters.values()]
        return self._coils, self._channels, len(self._buffers), len(self._slices), *blocks, *counts

    def _estimate(self) -> int:
        """Bytes that are needed besides the lines."""
        channels = max(self._channels, self._coils)
        matrices = COPIES * 16 * channels**2 + 2 * 16 * (self._kernel**2 * self._coils) ** 2
        together = math.prod(counter.count() for counter in self._counters.values())
        largest = 0
        for space in self._spaces:
            pixels = max(space.pixels, math.prod(axis.count() for axis in space.block))
            buffer = 8 * pixels * self._coils * together
            arrays = COPIES * (buffer + 8 * space.on_the_way * together) + 16 * self._samples * pixels
            kept = len(self._buffers) * buffer + len(self._slices) * self._kept_maps * 8 * pixels * self._coils
            largest = max(largest, self._at_once * (arrays + NETWORK_BYTES * space.plane) + kept)
        return CONSTANT_BYTES + matrices + largest

    def _check(self) -> None:
        self.needed = max(self.needed, self._largest + self._waiting)
        if self.needed > self._limit:
            raise ReconError(
                f"the scan would need about {self.needed / 2**30:.3g} GiB of memory, the limit is "
                f"{self._limit / 2**30:g} GiB; raise --memory if it may have that"
            )


def _space_of(number: int, encoding: Any) -> _Space:
    """Raises ReconError for fields of view out of all proportion."""
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    matrices = _xyz(encoded.matrixSize), _xyz(recon.matrixSize)
    shape = (matrices[1][0], *matrices[0][1:])  # the readout's oversampling is gone by then
    try:
        steps = adjustment_steps(shape, _xyz(encoded.fieldOfView_mm), _xyz(recon.fieldOfView_mm), matrices[1])
    except ArithmeticError:
        raise ReconError(
            f"the scan: the fields of view of encoding {number} are out of all proportion; correct the header"
        ) from None
    return _Space(
        pixels=max(map(math.prod, matrices)),
        on_the_way=max(map(math.prod, [*steps, matrices[1]])),
        plane=max(math.prod(sorted(matrix)[1:]) for matrix in matrices),
        separate=calibration_mode(encoding) in {"separate", "external"},
    )


def _largest_property(chain: Chain, names: tuple[str, ...], default: int) -> int:
    """The largest number that one of these properties of any gadget has; what is no number is told by the gadget."""
    found = [default]
    for node in chain.nodes:
        for name, text in node.properties.items():
            if name.rpartition(".")[2] in names:
                with contextlib.suppress(ValueError):
                    found.append(int(text))
    return max(found)


def _xyz(size: Any) -> tuple[Any, Any, Any]:
    return size.x, size.y, size.z


def _counters_together(chain: Chain) -> set[str]:
    """Counters whose values have a place each in one buffer."""
    names = set()
    for node in chain.nodes:
        if node.classname == BUFFERS:
            parameters = read_parameters(BucketToBufferGadget.Parameters, node.properties, BUFFERS)
            names |= {parameters.N_dimension, parameters.S_dimension}
            if not parameters.split_slices:
                names.add("slice")
    return {"average" if name == "segment" else name for name in names} - {"none", ""}
