"""What a chain needs of a header, and whether the acquisitions agree with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import (
    COMPRESSED,
    is_calibration_only,
    is_compressed,
    is_noise,
    is_reversed,
    kind_left_out,
)
from gadgets.acquisitions import calibration_mode, encoding_of
from gadgets.stream import ReconError

EPI = "lines read on both ramps of an oscillating gradient need regridding and ghost correction first"


def check_header(path: Path | str, header: Any) -> None:
    """Raise ReconError, which begins with `path`, for a header that no chain can run with."""
    if not header.encoding:
        raise ReconError(f"{path}: header has no encoding section; convert the raw data again")
    for number, encoding in enumerate(header.encoding):
        # A text that is not in the standard is not quoted: it may hold anything.
        trajectory = getattr(encoding.trajectory, "value", "unknown")
        if trajectory != "cartesian":
            raise ReconError(
                f"{path}: the trajectory of encoding {number} is {trajectory}"
                f"{f' ({EPI})' if trajectory == 'epi' else ''}; only cartesian ones can be reconstructed"
            )
        for name, space in (("encodedSpace", encoding.encodedSpace), ("reconSpace", encoding.reconSpace)):
            sizes = [space.matrixSize.x, space.matrixSize.y, space.matrixSize.z]
            extents = [space.fieldOfView_mm.x, space.fieldOfView_mm.y, space.fieldOfView_mm.z]
            if min(sizes) < 1 or not all(0 < extent < math.inf for extent in extents):
                raise ReconError(
                    f"{path}: {name} of encoding {number} has matrix {sizes} and field of view {extents} mm; "
                    "all must be positive"
                )
        matrix = encoding.encodedSpace.matrixSize
        for name, size in (("kspace_encoding_step_1", matrix.y), ("kspace_encoding_step_2", matrix.z)):
            limit = getattr(encoding.encodingLimits, name)
            if limit is None:
                continue
            if not limit.minimum <= limit.center <= limit.maximum or limit.maximum - limit.minimum >= size:
                raise ReconError(
                    f"{path}: {name} limits {limit.minimum}..{limit.maximum} (centre {limit.center}) do not fit the "
                    f"encoded matrix of {size}; correct the header"
                )


class AcquisitionChecker:
    """Compares each acquisition with the header; raises ReconError, which begins with `path`, where they disagree."""

    def __init__(self, path: Path | str, header: Any) -> None:
        self._path = path
        self._header = header
        system = header.acquisitionSystemInformation
        self._coils: int | None = system.receiverChannels if system else None
        self._noise_coils = 0
        self.imaging_lines = 0

    def _fail(self, index: int, text: str) -> None:
        raise ReconError(f"{self._path}: acquisition {index} {text}")

    def __call__(self, index: int, acquisition: ismrmrd.Acquisition) -> None:
        if kind_left_out(acquisition):
            return
        if is_compressed(acquisition):
            self._fail(index, COMPRESSED)
        if not np.isfinite(acquisition.data.view(np.float32)).all():
            self._fail(index, "has NaN or infinite samples; correct or leave out that line")
        if is_noise(acquisition):
            if acquisition.active_channels != (self._noise_coils or acquisition.active_channels):
                self._fail(
                    index,
                    f"has {acquisition.active_channels} coils, the noise lines before it {self._noise_coils}; "
                    "correct or leave out that line",
                )
            self._noise_coils = acquisition.active_channels
            return
        if is_reversed(acquisition):
            self._fail(index, "is read backwards; scans with reversed lines (EPI) cannot be reconstructed")
        if self._coils and acquisition.active_channels != self._coils:
            self._fail(
                index,
                f"has {acquisition.active_channels} coils, the header or the lines before it say {self._coils}; "
                "header and data disagree",
            )
        self._coils = acquisition.active_channels
        calibration = is_calibration_only(acquisition)
        self.imaging_lines += not calibration
        spaces = len(self._header.encoding)
        if acquisition.encoding_space_ref >= spaces:
            self._fail(
                index,
                f"refers to encoding {acquisition.encoding_space_ref}, the header has {spaces}; "
                "header and data disagree",
            )
        encoding = encoding_of(self._header, acquisition)
        if calibration and calibration_mode(encoding) in {"separate", "external"}:
            return  # a block of its own
        samples, centre = acquisition.number_of_samples, acquisition.center_sample
        full = encoding.encodedSpace.matrixSize.x
        if samples > full or (samples < full and 2 * centre == samples):
            self._fail(index, f"has {samples} samples, the header's encoded matrix is {full}; header and data disagree")
        for counter, limit, size in (
            (
                "kspace_encode_step_1",
                encoding.encodingLimits.kspace_encoding_step_1,
                encoding.encodedSpace.matrixSize.y,
            ),
            (
                "kspace_encode_step_2",
                encoding.encodingLimits.kspace_encoding_step_2,
                encoding.encodedSpace.matrixSize.z,
            ),
        ):
            value = int(getattr(acquisition.idx, counter))
            low, high = (limit.minimum, limit.maximum) if limit else (0, size - 1)
            if not low <= value <= high:
                self._fail(
                    index, f"has {counter} {value}, the header's limits are {low}..{high}; header and data disagree"
                )
