"""Stages behind BucketToBufferGadget that keep a scan's calibration for later scans, and that use a kept one.

They run in `genrecon serve` and `genrecon replay` only: a real Gadgetron keeps no reference scans for our gadgets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gadgetron.types import ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer

from gadgets.acquisitions import calibration_mode
from gadgets.buffers import Array, first_line, is_3d, is_of_reference, mark_of_reference
from gadgets.image_headers import image_directions
from gadgets.noise.scan import dependencies, of_measurement
from gadgets.reference_scan import FEWEST_SAMPLES, ChosenReference, ReferenceBlock, ReferenceImage, ReferenceScan
from gadgets.references import centre_of, extents_of, with_references
from gadgets.stream import Stage
from gadgets.twins.noise_adjust import NoiseAdjustGadget

log = logging.getLogger("genrecon")

MOST_SAMPLES = 48  # of the centre of k-space that are kept along each axis,
MOST_OF_VOLUMES = 32  # or of volumes
MOST_BYTES = 64 * 2**20  # of a reference scan; what comes beyond is not kept
# Letters of dependencyType: siemens_to_ismrmrd writes SenMap for scans of coil sensitivities.
TYPES = {
    "senmap",
    "sensitivity",
    "sensitivitymap",
    "coilsensitivity",
    "coilmap",
    "coilmaps",
    "reference",
    "calibration",
}

Mixing = Callable[[], Array | None]


def reference_dependencies(header: Any) -> list[str]:
    """IDs of the reference scans that a header names in measurementDependency."""
    return dependencies(header, lambda kind: "".join(filter(str.isalpha, kind.lower())) in TYPES)


class ReferenceCollector:
    """Collects the centre of k-space of each slice or volume, as it was before it was prewhitened.

    Parameters
    ----------
    header : of the scan
    mixing : the matrix that the data were prewhitened with
    keep : called at the end of the scan, if there is something to keep
    """

    def __init__(self, header: Any, mixing: Mixing, keep: Callable[[ReferenceScan], None]) -> None:
        self._header, self._mixing, self._keep = header, mixing, keep
        self._blocks: dict[tuple[int, int], ReferenceBlock] = {}
        self._bytes = self._ticks = 0

    def __call__(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, ReconData):
                for space, bit in enumerate(item.bits):
                    self._add(space, bit)
            yield item
        if self._blocks:
            self._keep(self.scan())

    def scan(self) -> ReferenceScan:
        """What was collected."""
        space = next(iter(self._blocks))[0]
        blocks = [block for (own, _), block in sorted(self._blocks.items(), key=lambda e: e[0]) if own == space]
        channels = blocks[0].kspace.shape[3]
        alike = tuple(block for block in blocks if block.kspace.shape[3] == channels)
        return ReferenceScan(alike, **of_measurement(self._header, self._ticks))

    def _add(self, space: int, bit: ReconBit) -> None:
        buffer = bit.ref if bit.ref is not None and bit.ref.data.size else bit.data
        if not buffer.data.size or is_of_reference(buffer):
            return
        for location in range(buffer.data.shape[6]):
            lines = [head for head in buffer.headers[..., location].flat if head.number_of_samples]
            key = (space, int(lines[0].idx.slice) if lines else 0)
            if not lines or key in self._blocks:
                continue
            centre = _middle(centre_of(buffer.data[..., :1, :1, location : location + 1])[..., 0, 0, 0])
            if min(centre.shape[:2]) < FEWEST_SAMPLES or self._bytes + centre.nbytes > MOST_BYTES:
                continue
            mixing = self._mixing()
            if mixing is not None:
                centre = centre @ np.linalg.inv(mixing).T
            self._bytes += centre.nbytes
            self._ticks = int(lines[0].acquisition_time_stamp)
            self._blocks[key] = ReferenceBlock(
                np.ascontiguousarray(centre, np.complex64),
                np.array(extents_of(buffer)),
                np.array(lines[0].position[:], float),
                np.array(image_directions(lines[0], self._header), float),
            )


class ReferenceLines:
    """Gives buffers without calibration of their own that of a reference scan.

    Parameters
    ----------
    header : of the scan
    chosen : the reference
    mixing : the matrix that the data were prewhitened with
    """

    def __init__(self, header: Any, chosen: ChosenReference, mixing: Mixing) -> None:
        self._header, self._chosen, self._mixing = header, chosen, mixing
        self._image: ReferenceImage | None = None
        self._known: dict[tuple[int, int], ReconBuffer | None] = {}
        self._told: set[str] = set()

    def __call__(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, ReconData):
                item = ReconData([self._with_lines(space, bit) for space, bit in enumerate(with_references(item).bits)])
            yield item

    def _with_lines(self, space: int, bit: ReconBit) -> ReconBit:
        data = bit.data.data
        interleaved = calibration_mode(self._header.encoding[space]) == "interleaved"
        if not data.size or interleaved or has_calibration(bit) or data.shape[6] > 1:
            return bit
        key = (space, int(first_line(bit.data).idx.slice))
        if key not in self._known:
            self._known[key] = self._buffer(bit)
        ref = self._known[key]
        return bit if ref is None else ReconBit(bit.data, ref)

    def _buffer(self, bit: ReconBit) -> ReconBuffer | None:
        """The calibration of a slice or volume; None, with a warning, where the reference has none for it."""
        line = first_line(bit.data)
        if bit.data.data.shape[3] != self._chosen.scan.channels:
            self._refuse(f"it has {self._chosen.scan.channels} coils, the scan {bit.data.data.shape[3]}")
            return None
        if self._image is None:
            self._image = ReferenceImage(self._chosen.scan, self._mixing())
        axes = np.array(image_directions(line, self._header), float)
        if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-2):
            self._refuse("the lines of the scan say no orientation")
            return None
        found, reason = self._image.calibration(extents_of(bit.data), line.position[:], axes, is_3d(bit.data.data))
        if found is None:
            self._refuse(reason)
            return None
        if found.shape[:3] == bit.data.data.shape[:3]:  # lines of the same shape would be taken for lines of the image
            found = found[1:-1]
        headers = np.empty((*found.shape[1:3], 1, 1, 1), dtype=object)
        headers.fill(line)
        ref = ReconBuffer(found[..., None, None, None], None, None, headers, bit.data.sampling)
        mark_of_reference(ref)
        return ref

    def _refuse(self, reason: str) -> None:
        text = f"the reference scan ({self._chosen.text}) is not used: {reason}; measure one that covers the scan"
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)


def has_calibration(bit: ReconBit) -> bool:
    """Whether a bit has calibration of its own: reference lines, or a fully sampled centre."""
    if bit.ref is not None and bit.ref.data.size:
        return True
    data = bit.data.data
    centre = centre_of(data[..., :1, :1, :1])
    return min(centre.shape[:2]) >= FEWEST_SAMPLES and (not is_3d(data) or centre.shape[2] >= FEWEST_SAMPLES // 2)


def _middle(data: Array) -> Array:
    """The middle of [RO, E1, E2, CHA], the centre at half the length of each axis."""
    parts = []
    for size in data.shape[:3]:
        kept = min(size, MOST_OF_VOLUMES if data.shape[2] > 1 else MOST_SAMPLES)
        begin = size // 2 - kept // 2
        parts.append(slice(begin, begin + kept))
    return data[tuple(parts)]


def reference_stages(
    header: Any,
    prewhitening: NoiseAdjustGadget | None,
    reference: ChosenReference | None,
    keep: Callable[[ReferenceScan], None] | None,
) -> list[tuple[str, Stage]]:
    """What follows the buffers of a chain to use the calibration of another scan, and to keep its own.

    Parameters
    ----------
    header : of the scan
    prewhitening : gadget of the chain that prewhitens
    reference : reference scan for a scan without calibration; None: there is none
    keep : called with the calibration of the scan; None: it is not kept
    """

    def mixing() -> Array | None:
        return prewhitening.matrix if prewhitening else None

    stages: list[tuple[str, Stage]] = []
    if keep is not None:
        stages.append(("reference", ReferenceCollector(header, mixing, keep)))
    if reference is not None:
        stages.append(("reference", ReferenceLines(header, reference, mixing)))
    return stages
