"""ISMRMRD HDF5 files."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import defusedxml.ElementTree
import h5py
import ismrmrd
import numpy as np
from ismrmrd.hdf5 import acquisition_header_dtype

from gadgets.acquisition_flags import COMPRESSED, is_compressed, kind_left_out
from gadgets.stream import ReconError
from pipelines.raw.file_kinds import format_of, images_only
from pipelines.raw.header import protocol_name
from pipelines.raw.measurements import Measurement, choose, kind_of
from pipelines.raw.table import AcquisitionTable

BLOCK = 32  # acquisitions read at a time
HEADS_BLOCK = 4096  # acquisition headers read at a time


def open_hdf5(path: Path) -> h5py.File:
    """Open a file to read. Raises ReconError when it is not HDF5, truncated, or may not be read."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = " ".join(str(error).split())
        if isinstance(error, BlockingIOError) or "already open for write" in reason:
            message = "another program has it open to write; wait until that is finished (h5clear -s after a crash)"
        elif "truncated" in reason:
            message = "the file is truncated; copy it again from where it came"
        elif "signature" in reason:
            message = f"not an HDF5 file{format_of(path)}; convert the raw data to ISMRMRD first"
        else:
            message = f"cannot be read ({error.strerror or reason}); check the file and its permissions"
        raise ReconError(f"{path}: {message}") from None


@contextlib.contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Raise ReconError for what h5py raises for a damaged file."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()) or "it is damaged"
        raise ReconError(f"{path}: {what} cannot be read ({reason}); copy or convert the file again") from None


class Hdf5Scan:
    """The header text and the acquisitions of one scan in an ISMRMRD HDF5 file, unchecked.

    Parameters
    ----------
    path : of the file
    group : of the scan; "": the only one of images
    select : whether to choose a scan; False: only `measurements` is of use

    Attributes
    ----------
    measurements : of the file, when it has several
    warnings : for the user

    Raises
    ------
    ReconError
        The file is not HDF5, truncated, being written, without ISMRMRD header, or the group is not clear.
    """

    def __init__(self, path: Path, group: str = "", select: bool = True) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.measurements: list[Measurement] = []
        self.acquisition_count = 0
        self._told = False
        self._file = open_hdf5(path)
        try:
            with readable(self.path, "the file"):
                groups = self._groups()
                if len(groups) > 1:
                    self.measurements = [self._measurement(one) for one in groups]
                if not select:
                    return
                self._group = self._chosen(groups, group)
                self.header_xml = self._read_header(self._group)
                self._table = self._find_table(self._group)
                self.acquisition_count = len(self._table) if self._table else 0
        except BaseException:
            self._file.close()
            raise

    def _groups(self) -> list[h5py.Group]:
        """Groups that hold a header or acquisitions, at any depth."""
        found: list[h5py.Group] = []

        def look(name: str, group: Any) -> None:
            if isinstance(group, h5py.Group) and (
                "xml" in group or ("data" in group and ("/" not in name or _is_table(group["data"])))
            ):
                found.append(group)

        for name in self._file:  # links, too, which visititems does not follow
            look(name, self._file.get(name))
        self._file.visititems(lambda name, group: look(name, group) if "/" in name else None)
        if "xml" in self._file or _is_table(self._file.get("data")):
            found.insert(0, self._file["/"])
        if not found:
            images: list[int] = []
            self._file.visititems(lambda _, group: images.append(_image_count(group)))
            if sum(images):
                raise ReconError(f"{self.path}: {images_only(sum(images))}")
            raise ReconError(f"{self.path}: no ISMRMRD header in it; give an ISMRMRD raw file")
        return found

    def _chosen(self, groups: list[h5py.Group], wanted: str) -> h5py.Group:
        measurements = self.measurements or [self._measurement(groups[0])] if wanted else self.measurements
        if not measurements:
            return groups[0]
        chosen, note = choose(self.path, measurements, wanted)
        self.warnings += [note] if note else []
        return next(group for group in groups if _name(group) == chosen.name)

    def _measurement(self, group: h5py.Group) -> Measurement:
        try:
            table = self._find_table(group)
        except ReconError:
            return Measurement(_name(group), "", 0, "no table of acquisitions")
        lines = len(table) if table else 0
        if "xml" not in group:
            return Measurement(_name(group), "", lines, "no header")
        protocol = protocol_name(self._read_header(group))
        blocks = (table.heads(slice(start, start + HEADS_BLOCK)) for start in range(0, lines, HEADS_BLOCK) if table)
        return Measurement(_name(group), protocol, lines, kind_of(protocol, blocks))

    def _read_header(self, group: h5py.Group) -> bytes:
        if "xml" not in group:
            raise ReconError(f"{self.path}: no ISMRMRD header (xml) in group {group.name}; convert it again")
        text = np.ravel(group["xml"][()])[0]
        return text.encode() if isinstance(text, str) else bytes(text)

    def _find_table(self, group: h5py.Group) -> AcquisitionTable | None:
        if "data" not in group:
            return None
        try:
            return AcquisitionTable(group["data"])
        except ValueError as error:
            raise ReconError(
                f"{self.path}: {group.name}/data is no table of ISMRMRD acquisitions ({error}); convert it again"
            ) from None

    def acquisitions(self, chosen: Sequence[bool] | None = None) -> Iterator[tuple[int, ismrmrd.Acquisition]]:
        """Yield the chosen acquisitions (None: all) and their places in the file, a block in memory at a time."""
        for start in range(0, self.acquisition_count, BLOCK):
            stop = min(start + BLOCK, self.acquisition_count)
            indices = [index for index in range(start, stop) if chosen is None or chosen[index]]
            if not indices:
                continue
            with readable(self.path, f"acquisition {start} and on"):
                assert self._table is not None  # it has acquisitions
                block = self._table.rows(slice(start, stop) if len(indices) == stop - start else indices)
            for index, row in zip(indices, block, strict=True):
                yield index, self._acquisition(index, *row)

    def _acquisition(self, index: int, fields: Any, values: Any, trajectory: Any) -> ismrmrd.Acquisition:
        head = ismrmrd.AcquisitionHeader.from_buffer_copy(fields.tobytes())
        if is_compressed(head):
            raise ReconError(f"{self.path}: acquisition {index} {COMPRESSED}")
        if values.size and not head.active_channels and not head.number_of_samples:
            self._complete(head, values.size // 2)
        coils, samples = head.active_channels, head.number_of_samples
        if not (values.size or kind_left_out(head)) or values.size != 2 * coils * samples:
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
            values.view(np.complex64).reshape(coils, samples),
            trajectory.reshape(samples, head.trajectory_dimensions) if trajectory.size else None,
        )

    def _complete(self, head: ismrmrd.AcquisitionHeader, values: int) -> None:
        """Fill in what a writer left at 0: channels as the header of the scan says, 1 without; centred samples."""
        if not self._told:
            logging.getLogger("genrecon").warning(
                "%s: its acquisitions give no numbers of channels and samples; those of the data are used",
                self.path,
            )
        self._told = True
        head.active_channels = head.available_channels = channels = _receiver_channels(self.header_xml)
        head.number_of_samples = values // channels
        head.center_sample = head.center_sample or head.number_of_samples // 2

    def heads(self) -> Any:
        """All acquisition headers as one structured array (no sample is read)."""
        with readable(self.path, "acquisition headers"):
            return self._table.heads() if self._table else np.zeros(0, acquisition_header_dtype)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _image_count(group: Any) -> int:
    """Number of images in a group of ISMRMRD's images; 0 for all else."""
    is_images = isinstance(group, h5py.Group) and {"header", "attributes", "data"} <= set(group)
    return len(group["header"]) if is_images and isinstance(group["header"], h5py.Dataset) else 0


def _name(group: h5py.Group) -> str:
    return str(group.name).strip("/") or "/"


def _is_table(data: Any) -> bool:
    return isinstance(data, h5py.Dataset) and "head" in (data.dtype.names or ())


def _receiver_channels(text: bytes) -> int:
    """The number of channels that a header announces, 1 without."""
    try:
        found = defusedxml.ElementTree.fromstring(text).findtext("{*}acquisitionSystemInformation/{*}receiverChannels")
        return max(int(found or 1), 1)
    except ValueError:
        return 1
