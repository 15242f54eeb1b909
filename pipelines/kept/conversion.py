"""Makes an ISMRMRD file of the stream of a kept scan, once that has ended."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import ismrmrd
import numpy as np
from gadgetron.external import constants
from ismrmrd.hdf5 import acquisition_dtype, acquisition_header_dtype, waveform_dtype, waveform_header_dtype

from pipelines.kept.anonymous_header import without_identity
from pipelines.kept.scan import ARRIVES, INCOMPLETE, RAW_FILE, WHOLE, KeptScan
from pipelines.kept.store import KeptScans

GROUP = "dataset"
PART_FILE = f".{RAW_FILE}.part"
ROOM_BYTES = 2**20  # of the disk that stay free, at least
BLOCK = 64  # acquisitions written at a time,
BLOCK_BYTES = 16 * 2**20  # or of so many bytes
NICENESS = 19
TEXTS = (constants.GADGET_MESSAGE_TEXT, constants.GADGET_MESSAGE_HEADER)


@dataclass(frozen=True)
class Conversion:
    """What a process of its own is to do for a kept scan that has ended.

    Parameters
    ----------
    store : all kept scans
    identifier : of this one
    images : number of images that were sent
    error : why the scan failed
    """

    store: KeptScans
    identifier: str
    images: int = 0
    error: str = ""

    def run(self) -> None:
        """Make the ISMRMRD file, at low priority."""
        os.nice(NICENESS)
        finish(self.store, self.store.scan(self.identifier), images=self.images, error=self.error)


def finish(store: KeptScans, kept: KeptScan, **about: Any) -> None:
    """Make the ISMRMRD file of a kept scan, and record whether the scan is whole.

    Where the disk has no room for it, the stream stays as it is, a raw file, too.

    Parameters
    ----------
    store : all kept scans
    kept : one of them
    about : what is known of it now
    """
    made = kept.folder / RAW_FILE
    if not kept.stream.exists():
        ended = made.exists() and kept.about.state != ARRIVES
        kept.change(**({} if ended else {"state": INCOMPLETE}), **about)
        return
    size = kept.stream.stat().st_size
    temporary = kept.folder / PART_FILE
    try:
        whole = not made.exists() and store.make_room(size, spare=(kept.id,)) and _fits_the_disk(kept, size)
        if whole:
            whole = _convert(kept.stream, temporary, kept.about.anonymize)
            os.replace(temporary, made)
        else:
            whole = _is_whole(kept.stream)
    except OSError:
        whole = _is_whole(kept.stream)
    finally:
        discard_part(kept)
    kept.change(state=WHOLE if whole else INCOMPLETE, **about)
    if made.exists():
        kept.stream.unlink()


def _fits_the_disk(kept: KeptScan, size: int) -> bool:
    """Whether the disk has room for the file of a stream: HDF5 may end the process where it has none."""
    return shutil.disk_usage(kept.folder).free > 1.5 * size + ROOM_BYTES


def discard_part(kept: KeptScan) -> None:
    """Remove what a process that was ended has left of a file. Raises OSError."""
    (kept.folder / PART_FILE).unlink(missing_ok=True)


def _is_whole(stream: Path) -> bool:
    with stream.open("rb") as file:
        return [kind for kind, _ in messages(file)][-1:] == [constants.GADGET_MESSAGE_CLOSE]


def messages(file: IO[bytes]) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Ids and parts of the messages of a stream, as far as they are whole and of a kind that scans have.

    Parts are the text; or header, trajectory and data of an acquisition; or header and data of a waveform.
    """
    try:
        while True:
            (kind,) = struct.unpack("<H", _read(file, 2))
            if kind in TEXTS:
                yield kind, (_read(file, struct.unpack("<I", _read(file, 4))[0]),)
            elif kind == constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION:
                head = _read(file, ctypes.sizeof(ismrmrd.AcquisitionHeader))
                about = ismrmrd.AcquisitionHeader.from_buffer_copy(head)
                samples = about.number_of_samples
                trajectory = _read(file, 4 * samples * about.trajectory_dimensions)
                yield kind, (head, trajectory, _read(file, 8 * samples * about.active_channels))
            elif kind == constants.GADGET_MESSAGE_ISMRMRD_WAVEFORM:
                head = _read(file, ctypes.sizeof(ismrmrd.WaveformHeader))
                wave = ismrmrd.WaveformHeader.from_buffer_copy(head)
                yield kind, (head, _read(file, 4 * wave.number_of_samples * wave.channels))
            else:
                yield kind, ()
                return
    except EOFError:
        return


def _read(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _convert(stream: Path, target: Path, anonymize: bool) -> bool:
    """Write the ISMRMRD file; returns whether the stream is whole. Raises OSError."""
    kind = None
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        with stream.open("rb") as file, h5py.File(target, "w") as made:
            group = made.create_group(GROUP)
            lines = _Table(group, "data", acquisition_dtype)
            waves = _Table(group, "waveforms", waveform_dtype)
            for kind, parts in messages(file):
                if kind == constants.GADGET_MESSAGE_HEADER and "xml" not in group:
                    text = without_identity(parts[0]) if anonymize else parts[0]
                    group.create_dataset("xml", (1,), dtype=h5py.special_dtype(vlen=bytes))[0] = text
                elif kind == constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION:
                    head, trajectory, data = parts
                    lines.add(
                        np.frombuffer(head, acquisition_header_dtype)[0],
                        traj=np.frombuffer(trajectory, np.float32),
                        data=np.frombuffer(data, np.float32),
                    )
                elif kind == constants.GADGET_MESSAGE_ISMRMRD_WAVEFORM:
                    waves.add(
                        np.frombuffer(parts[0], waveform_header_dtype)[0], data=np.frombuffer(parts[1], np.uint32)
                    )
            lines.flush()
            waves.flush()
        with target.open("rb") as written:
            os.fsync(written.fileno())
    except RuntimeError as error:  # of HDF5, on a full disk
        raise OSError(str(error)) from None
    return kind == constants.GADGET_MESSAGE_CLOSE


class _Table:
    """Appends rows to a data set, which is made with the first of them."""

    def __init__(self, group: h5py.Group, name: str, kind: Any) -> None:
        self._group, self._name, self._kind = group, name, kind
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, head: Any, **values: Any) -> None:
        self._rows.append({"head": head, **values})
        self._bytes += sum(value.nbytes for value in values.values())
        if len(self._rows) >= BLOCK or self._bytes >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        if self._name not in self._group:
            self._group.create_dataset(self._name, (0,), maxshape=(None,), chunks=(BLOCK,), dtype=self._kind)
        data = self._group[self._name]
        block = np.empty(len(self._rows), self._kind)
        for place, row in enumerate(self._rows):
            for name, value in row.items():
                block[place][name] = value
        data.resize(len(data) + len(block), 0)
        data[-len(block) :] = block
        self._rows, self._bytes = [], 0
