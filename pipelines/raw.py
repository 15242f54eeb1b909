"""Raw ISMRMRD files: read block by block, and checked."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import typing
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import defusedxml.ElementTree
import h5py
import ismrmrd
import numpy as np

from gadgets.acquisitions import calibration_mode, encoding_of, is_for_images
from gadgets.stream import ReconError, one_line

BLOCK = 32  # acquisitions read at a time

# The header reader prints values that it cannot convert, among them birth dates of patients, which belong in no log.
warnings.filterwarnings("ignore", "Failed to convert value")
logging.getLogger("xsdata").setLevel(logging.CRITICAL)


class RawScan:
    """One raw scan in an ISMRMRD HDF5 file.

    Parameters
    ----------
    path : file to read

    Raises
    ------
    ReconError
        The file is missing, not HDF5, truncated, without ISMRMRD header or acquisitions, or not Cartesian.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise ReconError(f"{self.path}: it is a folder; give the path of an ISMRMRD raw file (.h5)")
        if not self.path.is_file():
            raise ReconError(f"{self.path}: no such file; give the path of an ISMRMRD raw file (.h5)")
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            reason = one_line(error)
            if "truncated" in reason:
                message = "the file is truncated; copy it again from where it came"
            elif "signature" in reason:
                message = "not an HDF5 file; convert the raw data to ISMRMRD first"
            else:
                message = f"cannot be read ({reason}); check the file and its permissions"
            raise ReconError(f"{self.path}: {message}") from None
        try:
            with self._readable("the file"):
                self._group = self._find_group()
                self.header_xml = self._read_header()
                self.acquisition_count = self._count()  # noise included
            self.header = parse_header(self.path, self.header_xml)
            if self.acquisition_count == 0:
                raise ReconError(f"{self.path}: it has no acquisitions; nothing to reconstruct")
            check_header(self.path, self.header)
        except BaseException:
            self._file.close()
            raise

    @contextlib.contextmanager
    def _readable(self, what: str) -> Iterator[None]:
        """Raise ReconError for what h5py raises for a damaged file."""
        try:
            yield
        except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
            raise ReconError(
                f"{self.path}: {what} cannot be read ({one_line(error)}); copy or convert the file again"
            ) from None

    def _find_group(self) -> h5py.Group:
        groups = [g for g in self._file.values() if isinstance(g, h5py.Group) and ("xml" in g or "data" in g)]
        if not groups:
            raise ReconError(f"{self.path}: no ISMRMRD header in it; give an ISMRMRD raw file")
        named = self._file.get("dataset")
        return named if named in groups else groups[0]

    def _read_header(self) -> bytes:
        if "xml" not in self._group:
            raise ReconError(f"{self.path}: no ISMRMRD header (xml) in group {self._group.name}; convert it again")
        text = np.ravel(self._group["xml"][()])[0]
        return text.encode() if isinstance(text, str) else bytes(text)

    def _count(self) -> int:
        if "data" not in self._group:
            return 0
        data = self._group["data"]
        columns = set(data.dtype.names or ()) if isinstance(data, h5py.Dataset) else set()
        if not {"head", "traj", "data"} <= columns or data.ndim != 1:
            raise ReconError(f"{self.path}: {data.name} is no table of ISMRMRD acquisitions; convert it again")
        return len(data)

    def acquisitions(self, chosen: Sequence[bool] | None = None) -> Iterator[ismrmrd.Acquisition]:
        """Yield the acquisitions in file order, a block in memory at a time.

        Parameters
        ----------
        chosen : for each, whether it is wanted; the others are not read. None: all of them

        Raises
        ------
        ReconError
            Data that cannot be read, samples that are NaN or infinite, data that disagree with the header, or no
            imaging line at all.
        """
        check = AcquisitionChecker(self.path, self.header)
        data = self._group["data"]
        for start in range(0, self.acquisition_count, BLOCK):
            stop = min(start + BLOCK, self.acquisition_count)
            indices = [index for index in range(start, stop) if chosen is None or chosen[index]]
            if not indices:
                continue
            with self._readable(f"acquisition {start} and on"):
                block = data[start:stop] if len(indices) == stop - start else data[indices]
            for index, row in zip(indices, block, strict=True):
                acquisition = self._acquisition(index, row)
                check(index, acquisition)
                yield acquisition
        if not check.imaging_lines:
            raise ReconError(
                f"{self.path}: none of its {self.acquisition_count} acquisitions is an imaging line (only noise, "
                "calibration or phase correction); give the file of the scan itself"
            )

    def _acquisition(self, index: int, row: Any) -> ismrmrd.Acquisition:
        with self._readable(f"the header of acquisition {index}"):
            head = ismrmrd.AcquisitionHeader.from_buffer_copy(row["head"].tobytes())
        coils, samples = head.active_channels, head.number_of_samples
        values, trajectory = row["data"], row["traj"]
        if not values.size or values.size != 2 * coils * samples:
            raise ReconError(
                f"{self.path}: acquisition {index} holds {values.size / 2:g} samples, its header says {coils} coils x "
                f"{samples}; convert the raw data again"
            )
        if trajectory.size not in {0, samples * head.trajectory_dimensions}:
            raise ReconError(
                f"{self.path}: acquisition {index} holds {trajectory.size} trajectory values, its header says "
                f"{samples} x {head.trajectory_dimensions}; convert the raw data again"
            )
        return ismrmrd.Acquisition(
            head,
            values.astype(np.float32, copy=False).view(np.complex64).reshape(coils, samples),
            trajectory.reshape(samples, head.trajectory_dimensions) if trajectory.size else None,
        )

    def heads(self) -> Any:
        """All acquisition headers as one structured array (no sample is read)."""
        with self._readable("acquisition headers"):
            return self._group["data"].fields("head")[:]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> RawScan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parse_header(path: Path | str, text: bytes) -> Any:
    """The ISMRMRD header of a text. Raises ReconError, which begins with `path`, for one that cannot be read."""
    try:
        defusedxml.ElementTree.fromstring(text)  # refuses entities, whichever parser ismrmrd takes
        header = ismrmrd.xsd.CreateFromDocument(text)
    except Exception as error:
        raise ReconError(
            f"{path}: its ISMRMRD header cannot be read ({one_line(error)}); convert the raw data again"
        ) from None
    for name in _no_numbers(header):
        raise ReconError(f"{path}: {name} in its ISMRMRD header is not a number; correct the header")
    return header


def _no_numbers(part: Any) -> Iterator[str]:
    """Names of fields of a header that are numbers by the schema, and were left as the texts that they are."""
    hints = typing.get_type_hints(type(part))
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        kinds = set(typing.get_args(hints[field.name])) | {hints[field.name]}
        for one in value if isinstance(value, list) else [value]:
            if dataclasses.is_dataclass(one):
                yield from _no_numbers(one)
            elif isinstance(one, str) and kinds & {int, float} and str not in kinds:
                yield field.name


def check_header(path: Path | str, header: Any) -> None:
    """Raise ReconError, which begins with `path`, for a header that no chain can run with."""
    if not header.encoding:
        raise ReconError(f"{path}: header has no encoding section; convert the raw data again")
    for number, encoding in enumerate(header.encoding):
        # A text that is not in the standard is not quoted: it may hold anything.
        trajectory = getattr(encoding.trajectory, "value", "unknown")
        if trajectory != "cartesian":
            raise ReconError(
                f"{path}: the trajectory of encoding {number} is {trajectory}; only cartesian ones can be reconstructed"
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
        if not np.isfinite(acquisition.data.view(np.float32)).all():
            self._fail(index, "has NaN or infinite samples; correct or leave out that line")
        if acquisition.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT):
            if acquisition.active_channels != (self._noise_coils or acquisition.active_channels):
                self._fail(
                    index,
                    f"has {acquisition.active_channels} coils, the noise lines before it {self._noise_coils}; "
                    "correct or leave out that line",
                )
            self._noise_coils = acquisition.active_channels
            return
        if not is_for_images(acquisition):
            return
        if acquisition.is_flag_set(ismrmrd.ACQ_IS_REVERSE):
            self._fail(index, "is read backwards; scans with reversed lines (EPI) cannot be reconstructed")
        if self._coils and acquisition.active_channels != self._coils:
            self._fail(
                index,
                f"has {acquisition.active_channels} coils, the header or the lines before it say {self._coils}; "
                "header and data disagree",
            )
        self._coils = acquisition.active_channels
        calibration = acquisition.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
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
