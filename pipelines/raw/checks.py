"""What a chain needs of a header, and whether the acquisitions agree with it."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import (
    COMPRESSED,
    is_calibration_only,
    is_compressed,
    is_for_images,
    is_noise,
    kind_left_out,
)
from gadgets.acquisitions import encoding_of
from gadgets.readouts import is_block_of_its_own, kept_samples, possible_grids
from gadgets.stream import ReconError

EPI = "lines read on both ramps of an oscillating gradient need regridding and ghost correction first"

log = logging.getLogger("genrecon")

# Fields of view outside of these are of another unit than mm (an object of 0.3 m), or belong to no scanner.
SMALLEST_FIELD_OF_VIEW_MM = 2.0
LARGEST_FIELD_OF_VIEW_MM = 3000.0


def check_header(path: Path | str, header: Any) -> None:
    """Raise ReconError, which begins with `path`, for a header that no chain can run with.

    An encoding that cannot be reconstructed is no error as long as another one can: its lines are left out.
    """
    if not header.encoding:
        raise ReconError(f"{path}: header has no encoding section; convert the raw data again")
    problems = [trajectory_problem(header, number) for number in range(len(header.encoding))]
    if all(problems):
        raise ReconError(f"{path}: {problems[0]}")
    for number, problem in enumerate(problems):
        if not problem:
            _check_sizes(path, header.encoding[number], number)


def trajectory_problem(header: Any, number: int) -> str:
    """Why lines of an encoding cannot be reconstructed whatever their sizes; "" when they can."""
    # A text that is not in the standard is not quoted: it may hold anything.
    trajectory = getattr(header.encoding[number].trajectory, "value", "unknown")
    if trajectory == "cartesian":
        return ""
    reason = f" ({EPI})" if trajectory == "epi" else ""
    return f"the trajectory of encoding {number} is {trajectory}{reason}; only cartesian ones can be reconstructed"


def field_of_view_doubts(header: Any) -> list[str]:
    """A warning for each encoding whose field of view cannot be in millimetres."""
    doubts = []
    for number, encoding in enumerate(header.encoding):
        extent = encoding.reconSpace.fieldOfView_mm
        found = [value for value in (extent.x, extent.y) if isinstance(value, int | float)]
        if trajectory_problem(header, number) or not found:
            continue
        if min(found) < SMALLEST_FIELD_OF_VIEW_MM or max(found) > LARGEST_FIELD_OF_VIEW_MM:
            doubts.append(
                f"header: the field of view of encoding {number} is {' x '.join(f'{value:g}' for value in found)} mm; "
                "it seems to be in another unit, and so are distances in the images: correct the header"
            )
    return doubts


def _check_sizes(path: Path | str, encoding: Any, number: int) -> None:
    for name, space in (("encodedSpace", encoding.encodedSpace), ("reconSpace", encoding.reconSpace)):
        sizes = [space.matrixSize.x, space.matrixSize.y, space.matrixSize.z]
        extents = [space.fieldOfView_mm.x, space.fieldOfView_mm.y, space.fieldOfView_mm.z]
        if min(sizes) < 1 or not all(0 < extent < math.inf for extent in extents):
            raise ReconError(
                f"{path}: {name} of encoding {number} has matrix {sizes} and field of view {extents} mm; "
                "all must be positive"
            )


class AcquisitionChecker:
    """Compares each acquisition with the header; raises ReconError, which begins with `path`, where they disagree.

    Parameters
    ----------
    path, header : of the scan
    assumed_cartesian : encodings whose trajectory the header does not name
    """

    def __init__(self, path: Path | str, header: Any, assumed_cartesian: Collection[int] = ()) -> None:
        self._path = path
        self._header = header
        self._assumed_cartesian = assumed_cartesian
        self._left_out: set[int] = set()  # encodings
        system = header.acquisitionSystemInformation
        self._announced_coils = (system.receiverChannels if system else None) or 0
        self._coils = 0
        self._fitting: set[tuple[int, ...]] = set()  # what lines had whose samples fit the header
        self.imaging_lines = 0

    def _fail(self, index: int, text: str) -> None:
        raise ReconError(f"{self._path}: acquisition {index} {text}")

    def __call__(self, index: int, acquisition: ismrmrd.Acquisition) -> bool:
        """Whether a line is to be used: not when its encoding cannot be reconstructed."""
        flags = int(acquisition.flags)
        for_images = is_for_images(flags)
        if not self._encoding_is_usable(index, acquisition, for_images):
            return False
        if kind_left_out(flags):
            return True
        if is_compressed(flags):
            self._fail(index, COMPRESSED)
        if not np.isfinite(kept_samples(acquisition)).all():
            self._fail(index, "has NaN or infinite samples; correct or leave out that line")
        if not for_images:
            return True  # noise
        if self._coils and acquisition.active_channels != self._coils:
            self._fail(
                index,
                f"has {acquisition.active_channels} coils, the lines before it {self._coils}; correct or leave out "
                "that line",
            )
        if not self._coils and self._announced_coils not in {0, acquisition.active_channels}:
            log.warning(
                "%s: its header announces %d receiver channels, the lines have %d; those of the lines are used",
                self._path,
                self._announced_coils,
                acquisition.active_channels,
            )
        self._coils = acquisition.active_channels
        self.imaging_lines += not is_calibration_only(flags)
        encoding = encoding_of(self._header, acquisition)
        if is_block_of_its_own(self._header, acquisition):
            return True
        names = ("encoding_space_ref", "number_of_samples", "discard_pre", "discard_post", "center_sample")
        samples = tuple(int(getattr(acquisition, name)) for name in names)
        if samples not in self._fitting:
            try:
                possible_grids(encoding, acquisition)
            except ReconError as error:
                self._fail(index, str(error))
            self._fitting.add(samples)
        return True

    def _encoding_is_usable(self, index: int, acquisition: ismrmrd.Acquisition, for_images: bool) -> bool:
        """Whether the encoding of a line can be reconstructed; warns of the first line of one that cannot."""
        number, spaces = acquisition.encoding_space_ref, len(self._header.encoding)
        if number >= spaces:
            if for_images:
                self._fail(index, f"refers to encoding {number}, the header has {spaces}; header and data disagree")
            return True
        problem = trajectory_problem(self._header, number)
        if problem and for_images and number not in self._left_out:
            self._left_out.add(number)
            log.warning("%s; the lines of this encoding are left out", problem)
        if for_images and number in self._assumed_cartesian and acquisition.trajectory_dimensions:
            self._fail(index, f"has a trajectory, and encoding {number} in the header does not name it; add its name")
        return not problem or is_noise(acquisition)
