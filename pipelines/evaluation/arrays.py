"""K-space arrays through the gadgets, and raw scans as k-space arrays."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types import ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer, SamplingDescription
from ismrmrd import xsd
from torch import Tensor

from gadgets.acquisitions import IMAGE_COUNTERS
from gadgets.buffers import averaged, filled
from gadgets.espirit import Espirit
from gadgets.generative_recon import GenerativeRecon
from gadgets.images import SCALE_RATIO, WARNINGS, meta_of, meta_values
from gadgets.outputs import STANDARD_DEVIATION
from gadgets.stream import Gadget, ReconError
from pipelines.chain import read_chain
from pipelines.raw import RawScan
from priors.signal.espirit import calibration_region

RECONSTRUCTION = "gadgets.reconstruction"
LEAST_OF_MEASURED = 0.95  # of the samples of a zero-filled scan, in the block about its centre: a line may be odd


@dataclass
class ArrayResult:
    """The reconstruction of one slice.

    Parameters
    ----------
    image : complex64 (y, x), its modulus is the root-sum-of-squares of the coil images, in the units of the k-space
    deviation : float32 (y, x), standard deviation of the modulus over posterior samples; None of one sample
    seconds : of the reconstruction gadget
    notes : meta attributes of the image by name
    warnings : of the gadget
    """

    image: np.ndarray
    deviation: np.ndarray | None = None
    seconds: float = 0.0
    notes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class ArrayReconstruction:
    """The gadgets `Espirit` and `GenerativeRecon` for arrays of one slice, as a chain has them.

    Parameters
    ----------
    properties : of `GenerativeRecon`, by name
    map_sets : of `Espirit`; the shipped chains take 2

    Raises
    ------
    ReconError
        A property is wrong, or a program that the method needs is missing.
    """

    def __init__(self, properties: Mapping[str, str], map_sets: int = 2) -> None:
        self._header = _header()
        self._espirit = Espirit()
        self._espirit.configure(self._header, {"map_sets": str(map_sets)})
        self._recon = GenerativeRecon()
        self._recon.configure(self._header, {**properties, "intensity": "0", "pixel_scale": "1"})

    def with_maps(self, kspace: np.ndarray) -> ReconData:
        """Measured k-space, complex64 (coil, y, x), zero where nothing was measured, with its coil maps attached."""
        resize_header(self._header, kspace.shape[-1], kspace.shape[-2])
        (item,) = self._espirit.process(iter([recon_data(kspace)]))
        return item

    def __call__(self, item: ReconData) -> ArrayResult:
        """Reconstruct an item of `with_maps`. Raises ReconError when the method fails."""
        buffer = item.bits[0].data.data
        resize_header(self._header, buffer.shape[0], buffer.shape[1])
        start = time.perf_counter()
        arrays = list(self._recon.process(iter([item])))
        result = ArrayResult(_pixels(arrays[0]), seconds=time.perf_counter() - start)
        meta = meta_of(arrays[0].meta[0])
        for name in (
            "GenreconEvaluations",
            "GenreconDataConsistency",
            "GenreconNoiseLevel",
            "GenreconFallback",
            "GenreconTraining",
            "GenreconTrainedFor",
        ):
            if values := meta_values(meta, name):
                result.notes[name] = ", ".join(values)
        result.warnings = meta_values(meta, WARNINGS)
        for other in arrays[1:]:
            if " ".join(meta_values(meta_of(other.meta[0]), "GenreconMethod")).endswith(STANDARD_DEVIATION.words):
                scale = float(meta_values(meta_of(other.meta[0]), SCALE_RATIO)[0])
                result.deviation = np.abs(_pixels(other)).astype(np.float32) / scale
        return result


def _pixels(array: Any) -> np.ndarray:
    return np.ascontiguousarray(array.data[:, :, 0, 0, 0, 0, 0].T)


def recon_data(kspace: np.ndarray) -> ReconData:
    """ReconData of one slice of k-space, complex64 (coil, y, x), zero where nothing was measured."""
    coils, height, width = kspace.shape
    headers = np.empty((height, 1, 1, 1, 1), dtype=object)
    for line in range(height):
        head = ismrmrd.AcquisitionHeader()
        head.version = 1
        head.number_of_samples = width if kspace[:, line].any() else 0
        head.active_channels = head.available_channels = coils
        head.center_sample = width // 2
        head.idx.kspace_encode_step_1 = line
        head.read_dir[:], head.phase_dir[:], head.slice_dir[:] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
        headers[line, 0, 0, 0, 0] = head
    sampling = SamplingDescription()
    for axis, size in enumerate((width, height, 1)):
        sampling.encoded_FOV[axis] = sampling.recon_FOV[axis] = float(size)
        sampling.encoded_matrix[axis] = sampling.recon_matrix[axis] = size
        limit = sampling.sampling_limits[axis]
        limit.min, limit.center, limit.max = 0, size // 2, size - 1
    data = np.asfortranarray(kspace.astype(np.complex64).transpose(2, 1, 0)[:, :, None, :, None, None, None])
    return ReconData([ReconBit(ReconBuffer(data, None, None, headers, sampling))])


def _header() -> Any:
    """The parts of a header that the gadgets read: one encoding space, no acceleration, one image."""
    size = {"matrixSize": xsd.matrixSizeType(x=1, y=1, z=1), "fieldOfView_mm": xsd.fieldOfViewMm(x=1.0, y=1.0, z=1.0)}
    one = xsd.limitType(minimum=0, maximum=0, center=0)
    return xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=1),
        encoding=[
            xsd.encodingType(
                encodedSpace=xsd.encodingSpaceType(**size),
                reconSpace=xsd.encodingSpaceType(**size),
                encodingLimits=xsd.encodingLimitsType(**dict.fromkeys(IMAGE_COUNTERS, one)),
                trajectory=xsd.trajectoryType.CARTESIAN,
            )
        ],
    )


def resize_header(header: Any, width: int, height: int) -> None:
    """Give the encoding of such a header the size of an array, with pixels of 1 mm."""
    encoding = header.encoding[0]
    for space in (encoding.encodedSpace, encoding.reconSpace):
        space.matrixSize = xsd.matrixSizeType(x=width, y=height, z=1)
        space.fieldOfView_mm = xsd.fieldOfViewMm(x=float(width), y=float(height), z=1.0)


def measured(bit: ReconBit) -> np.ndarray:
    """k-space [RO, E1, E2, CHA, N, S, LOC], averages merged, with lines that came only for calibration."""
    data = bit.data.data if bit.ref is None else filled(bit.data.data, bit.ref.data)
    return averaged(data, bit.data.headers)[0]


def check_fully_sampled(where: str, mask: Tensor, purpose: str) -> None:
    """Raise ReconError, which ends with the purpose, when a mask (y, x) has gaps."""
    if not bool(mask.all()):
        rows, columns = calibration_region(mask)
        raise ReconError(
            f"{where}: {float(mask.float().mean()):.0%} of its k-space is sampled, of the centre "
            f"{rows.stop - rows.start} x {columns.stop - columns.start} samples fully; {purpose}"
        )


def without_zero_filling(kspace: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """k-space without the lines around it that were never measured, as of a lower resolution along the phase encoding.

    Parameters
    ----------
    kspace, mask : complex (..., y, x), and which samples were measured, bool (y, x)

    Returns
    -------
    Both cut to the fully sampled block about the k-space centre, where that has half the matrix or more along each axis
    and nearly all that was measured; else as they are.
    """
    block = calibration_region(mask)
    cut = mask[block]
    enough = all(2 * size >= full for size, full in zip(cut.shape, mask.shape, strict=True))
    if enough and cut.sum() >= LEAST_OF_MEASURED * mask.sum():
        return kspace[..., block[0], block[1]], cut
    return kspace, mask


def scan_bits(path: Path, gadgets: Sequence[Gadget]) -> Iterator[ReconBit]:
    """ReconBits of a raw file, after the gadgets of the shipped chains before the reconstruction and then some others.

    Raises ReconError when the file cannot be used or a gadget fails.
    """
    with RawScan(path) as scan:
        chain = read_chain("cg_sense")
        modules = [node.module for node in chain.nodes]
        del chain.nodes[modules.index(RECONSTRUCTION) :]
        survey = scan.survey()
        items: Any = chain.run(scan.header, scan.acquisitions(), survey=survey)
        for gadget in gadgets:
            gadget.survey = survey
            gadget.configure(scan.header, {})
            items = gadget.process(items)
        yield from (bit for item in items if isinstance(item, ReconData) for bit in item.bits)
