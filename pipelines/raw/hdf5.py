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

from gadgets.acquisition_flags import COMPRESSED, is_compressed
from gadgets.stream import ReconError, one_line
from pipelines.raw.table import AcquisitionTable

BLOCK = 32  # acquisitions read at a time


def open_hdf5(path: Path) -> h5py.File:
    """Open a file to read. Raises ReconError when it is not HDF5, truncated, or may not be read."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = one_line(error)
        if "truncated" in reason:
            message = "the file is truncated; copy it again from where it came"
        elif "signature" in reason:
            message = "not an HDF5 file; convert the raw data to ISMRMRD first"
        else:
            message = f"cannot be read ({reason}); check the file and its permissions"
        raise ReconError(f"{path}: {message}") from None


@contextlib.contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Raise ReconError for what h5py raises for a damaged file."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise ReconError(f"{path}: {what} cannot be read ({one_line(error)}); copy or convert the file again") from None


class Hdf5Scan:
    """The header text and the acquisitions of one scan in an ISMRMRD HDF5 file, unchecked.

    Raises ReconError when the file is not HDF5, truncated, or without ISMRMRD header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told = False
        self._file = open_hdf5(path)
        try:
            with readable(self.path, "the file"):
                self._group = self._find_group()
                self.header_xml = self._read_header()
                self._table = self._find_table()
                self.acquisition_count = len(self._table) if self._table else 0
        except BaseException:
            self._file.close()
            raise

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

    def _find_table(self) -> AcquisitionTable | None:
        if "data" not in self._group:
            return None
        try:
            return AcquisitionTable(self._group["data"])
        except ValueError as error:
            raise ReconError(
                f"{self.path}: {self._group.name}/data is no table of ISMRMRD acquisitions ({error}); convert it again"
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
        self._file.close()


def _receiver_channels(text: bytes) -> int:
    """The number of channels that a header announces, 1 without."""
    try:
        found = defusedxml.ElementTree.fromstring(text).findtext("{*}acquisitionSystemInformation/{*}receiverChannels")
        return max(int(found or 1), 1)
    except ValueError:
        return 1
