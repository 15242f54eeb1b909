"""Refuses a scan that would need too much memory, by an estimate from its header, its chain and each line that comes.

What the estimate misses, `memory_limit` catches.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ismrmrd

from gadgets.acquisition_flags import is_for_images, is_noise
from gadgets.acquisitions import calibration_mode
from gadgets.buffers import slices_come_again
from gadgets.dicom.enhanced.instances import MOST_PIXEL_BYTES
from gadgets.dicom.frames import IN_MEMORY
from gadgets.stream import ReconError, read_parameters
from gadgets.stream.queues import item_bytes
from gadgets.twins import BucketToBufferGadget
from gadgets.twins.bucket_to_buffer import BUFFER_COUNTERS
from gadgets.twins.field_of_view import adjustment_steps
from pipelines.chain import BUFFER_GADGET, Chain
from pipelines.raw import trajectory_problem
from pipelines.replay import DICOM_MODULE

# Measured: `python -m benchmarks.serve memory` compares the estimate with what a server takes.
ARRAY_COPIES = 8  # most copies of a slice or volume in a chain: buffers, calibration, maps, images
NETWORK_BYTES_PER_PIXEL = 1280  # of a plane, for a network's intermediate results
CONSTANT_BYTES = 300 * 2**20  # queues between the gadgets, buffers of libraries
NOISE_COPIES = 4  # of the noise lines, for their covariance
NIFTI_MODULE = "gadgets.nifti_output"
FILE_COPIES = 3  # of the pixels of a file that holds a whole series, while it is made
ENHANCED_PIXEL_BYTES = 2
NIFTI_PIXEL_BYTES = {True: 8, False: 4}  # by whether there are complex images; one rescale for all slices takes half
FRAME_BYTES = 40_000  # of an image that is kept for such a file, besides its pixels
ITEM_BYTES = 2048  # of a line or waveform besides its samples: its header and Python objects


@dataclass
class _Range:
    """Lowest and highest of the values that came."""

    low: int | None = None
    high: int = 0

    def add(self, *values: int) -> None:
        self.low = min(values) if self.low is None else min(self.low, *values)
        self.high = max(self.high, *values)

    def count(self) -> int:
        return 1 if self.low is None else self.high - self.low + 1


@dataclass
class _Space:
    """Sizes of an encoding space.

    Attributes
    ----------
    pixels : of a k-space or image array
    uncropped_pixels : of an image before its field of view is cropped
    image_pixels : of an image as it is handed out
    partitions : of such an image
    plane_pixels : of the largest plane
    separate : whether its calibration lines are an array of their own
    calibration : readout, E1 and E2 extent of that array
    """

    pixels: int
    uncropped_pixels: int
    image_pixels: int
    partitions: int
    plane_pixels: int
    separate: bool
    calibration: tuple[_Range, _Range, _Range] = field(default_factory=lambda: (_Range(), _Range(), _Range()))


class MemoryEstimate:
    """The most memory that a scan needs, estimated from its header and then from its lines.

    It is the sum of: `ARRAY_COPIES` times the largest slice or volume, with all that share its buffer or are
    reconstructed with it; the matrices of coils and kernels; a network's intermediate results on a plane; the maps that
    are kept where slices come again; and what came since the last image was sent: lines, and a buffer for each
    combination of their counters. Where files hold whole series (NIfTI, enhanced DICOM), the largest of them while it
    is made, and the attributes of all images.

    Parameters
    ----------
    header : ismrmrd.xsd.ismrmrdHeader
    limit_gib : most memory, in GiB
    chain : its properties tell which counters share a buffer

    Attributes
    ----------
    needed : largest estimate so far, in bytes
    limit : most that it may be

    Raises
    ------
    ReconError
        Also in `add`: the estimate is above the limit, the fields of view are out of all proportion, or a property of
        the buffer gadget is invalid.
    """

    def __init__(self, header: Any, limit_gib: float, chain: Chain) -> None:
        self.limit = limit_gib * 2**30
        system = header.acquisitionSystemInformation
        self._coils = max((system.receiverChannels if system else None) or 1, 1)
        self._channels = 0  # most of any line, noise lines among them
        self._waiting = self._images = self.needed = 0
        self._buffers: set[tuple[int, ...]] = set()  # that came since the last image
        self._slices: set[int] = set()
        self._at_once = _largest_property(chain, ("slices_at_once",), 1)
        self._samples = _largest_property(chain, ("samples",), 1)
        self._kernel = _largest_property(chain, ("kernel", "kernel_3d", "window"), 6)
        self._kept_maps = _largest_property(chain, ("map_sets",), 1) if slices_come_again(header) else 0
        self._collects = _Collects(chain)
        self._spaces = [_space_of(header, number) for number in range(len(header.encoding))]
        self._counters = {name: _Range() for name in _counters_together(chain)}
        for name, counter in self._counters.items():
            for encoding in header.encoding:
                if (announced := getattr(encoding.encodingLimits, name)) is not None:
                    counter.add(announced.minimum, announced.maximum)
        self._largest = self._estimate()
        self._check()
        self._counters = {name: _Range() for name in self._counters}  # from here on, values of the lines

    def add(self, item: ismrmrd.Acquisition | ismrmrd.Waveform, images: int) -> None:
        """Add a waveform, or an acquisition that agrees with the header.

        Parameters
        ----------
        item : the acquisition or waveform
        images : number of images sent so far
        """
        if images != self._images:
            self._images, self._waiting = images, 0
            self._buffers.clear()
            self._largest = self._estimate()
        self._waiting += item_bytes(item) + ITEM_BYTES
        before = self._extent()
        if isinstance(item, ismrmrd.Acquisition):
            self._channels = max(self._channels, item.active_channels)
            if is_noise(item):
                self._waiting += NOISE_COPIES * item.data.nbytes
        if isinstance(item, ismrmrd.Acquisition) and is_for_images(item):
            self._coils = max(self._coils, item.active_channels)
            for name, counter in self._counters.items():
                counter.add(int(getattr(item.idx, name)))
            space = self._spaces[item.encoding_space_ref]
            if space.separate:
                samples, lines, partitions = space.calibration
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
        blocks = [axis.count() for space in self._spaces for axis in space.calibration]
        counts = [counter.count() for counter in self._counters.values()]
        return self._coils, self._channels, len(self._buffers), len(self._slices), *blocks, *counts

    def _estimate(self) -> int:
        """Bytes needed besides the lines that wait for their image."""
        channels = max(self._channels, self._coils)
        matrices = ARRAY_COPIES * 16 * channels**2 + 2 * 16 * (self._kernel**2 * self._coils) ** 2
        together = math.prod(counter.count() for counter in self._counters.values())
        largest = 0
        for space in self._spaces:
            pixels = max(space.pixels, math.prod(axis.count() for axis in space.calibration))
            buffer = 8 * pixels * self._coils * together
            arrays = ARRAY_COPIES * (buffer + 8 * space.uncropped_pixels * together) + 16 * self._samples * pixels
            kept = len(self._buffers) * buffer + len(self._slices) * self._kept_maps * 8 * pixels * self._coils
            largest = max(largest, self._at_once * (arrays + NETWORK_BYTES_PER_PIXEL * space.plane_pixels) + kept)
        images = self._images + self._collects.outputs * together * len(self._buffers)
        return CONSTANT_BYTES + matrices + largest + self._collects.needed(images, len(self._slices), self._spaces)

    def _check(self) -> None:
        self.needed = max(self.needed, self._largest + self._waiting)
        if self.needed > self.limit:
            raise ReconError(
                f"the scan would need about {self.needed / 2**30:.3g} GiB of memory, the limit is "
                f"{self.limit / 2**30:g} GiB; raise --memory if it may have that"
            )


class _Collects:
    """What a chain keeps of its images until the end of the scan, and the memory that it needs then.

    Attributes
    ----------
    outputs : series of each image
    """

    def __init__(self, chain: Chain) -> None:
        dicom = [node for node in chain.nodes if node.module == DICOM_MODULE]
        self._enhanced = any(node.properties.get("frames") == "enhanced" for node in dicom)
        self._nifti = any(node.module == NIFTI_MODULE for node in chain.nodes)
        properties = (item for node in chain.nodes for item in node.properties.items())
        asked = [text for name, text in properties if name.rpartition(".")[2] == "output"]
        self.outputs = max([len(text.split(",")) for text in asked], default=1)
        self._complex = any("complex" in text.lower() for text in asked)

    def needed(self, images: int, slices: int, spaces: Sequence[_Space]) -> int:
        """Bytes for so many images, of so many slices."""
        if not (self._enhanced or self._nifti):
            return 0
        pixels = max(space.image_pixels for space in spaces)
        of_series = pixels * math.ceil(images / self.outputs)
        enhanced = min(ENHANCED_PIXEL_BYTES * of_series, max(MOST_PIXEL_BYTES, ENHANCED_PIXEL_BYTES * pixels * slices))
        nifti = NIFTI_PIXEL_BYTES[self._complex] * of_series
        kept = IN_MEMORY + FRAME_BYTES * images * max(space.partitions for space in spaces)
        return (self._enhanced + self._nifti) * kept + FILE_COPIES * max(self._enhanced * enhanced, self._nifti * nifti)


def _space_of(header: Any, number: int) -> _Space:
    """Sizes of an encoding. Raises ReconError for fields of view out of all proportion."""
    encoding = header.encoding[number]
    if trajectory_problem(header, number):  # its lines are left out
        return _Space(pixels=1, uncropped_pixels=1, image_pixels=1, partitions=1, plane_pixels=1, separate=False)
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    matrices = _xyz(encoded.matrixSize), _xyz(recon.matrixSize)
    shape = (matrices[1][0], *matrices[0][1:])  # readout oversampling is removed before
    try:
        steps = adjustment_steps(shape, _xyz(encoded.fieldOfView_mm), _xyz(recon.fieldOfView_mm), matrices[1])
    except ArithmeticError:
        raise ReconError(
            f"the scan: the fields of view of encoding {number} are out of all proportion; correct the header"
        ) from None
    return _Space(
        pixels=max(map(math.prod, matrices)),
        uncropped_pixels=max(map(math.prod, [*steps, matrices[1]])),
        image_pixels=math.prod(matrices[1]),
        partitions=max(matrices[1][2], 1),
        plane_pixels=max(math.prod(sorted(matrix)[1:]) for matrix in matrices),
        separate=calibration_mode(encoding) in {"separate", "external"},
    )


def _largest_property(chain: Chain, names: tuple[str, ...], default: int) -> int:
    """The largest number that any gadget has in one of these properties; gadgets refuse what is no number."""
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
    """Counters whose values are axes of one buffer."""
    names = set()
    for node in chain.nodes:
        if node.classname == BUFFER_GADGET:
            parameters = read_parameters(BucketToBufferGadget.Parameters, node.properties, BUFFER_GADGET)
            names |= {parameters.N_dimension, parameters.S_dimension}
            if not parameters.split_slices:
                names.add("slice")
    return {"average" if name == "segment" else name for name in names} - {"none", ""}
