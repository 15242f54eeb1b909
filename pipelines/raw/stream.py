"""MRD streams in a file, as siemens_to_ismrmrd 1.3 and other converters write them."""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.external import constants
from ismrmrd.hdf5 import acquisition_header_dtype

from gadgets.stream import ReconError
from pipelines.raw.file_kinds import first_bytes, images_only
from pipelines.raw.header import protocol_name
from pipelines.raw.measurements import Measurement, choose, kind_of

CONFIG_FILE, CONFIG, HEADER = constants.GADGET_MESSAGE_FILENAME, constants.GADGET_MESSAGE_CONFIG, 3
CLOSE, TEXT, ERROR = 4, 5, 8
ACQUISITION, IMAGE, WAVEFORM = 1008, 1022, 1026
DICOM, ARRAY = 1018, 1030
_KINDS = {CONFIG_FILE, CONFIG, HEADER, CLOSE, TEXT, ERROR, ACQUISITION, IMAGE, WAVEFORM, DICOM, ARRAY}
_TEXTS = {CONFIG, HEADER, TEXT}  # uint32 length, text
_VALUE_BYTES = dict(enumerate((2, 2, 4, 4, 4, 8, 8, 16), 1))  # of the types of images, (u)int16 to complex128
_HEAD_BYTES = ctypes.sizeof(ismrmrd.AcquisitionHeader)
HEADS_BLOCK = 4096  # acquisition headers read at a time


def is_stream(path: Path) -> bool:
    """Whether a file begins as an MRD stream does: with a message that may come first."""
    return begins_as_stream(first_bytes(path, 1030))


def begins_as_stream(begin: bytes) -> bool:
    """The same of 1030 bytes, or all there are."""
    if len(begin) < 6:
        return False
    kind, length = struct.unpack_from("<HI", begin)
    if kind in _TEXTS:
        text = begin[6:70].strip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
        return (length > 0 and text.startswith((b"<", b"{"))) or (kind == TEXT and text.isascii())
    if kind == CONFIG_FILE:
        return begin[2:].partition(b"\0")[0].isascii() and not begin[2:1026].partition(b"\0")[2].strip(b"\0")
    return kind in {ACQUISITION, WAVEFORM, IMAGE}


@dataclass
class _Part:
    """What follows a header: one measurement."""

    header: bytes
    offsets: array[int] = field(default_factory=lambda: array("Q"))  # of acquisition headers in the file
    closed: bool = False


class StreamScan:
    """The header text and the acquisitions of one scan in a file that holds an MRD stream, unchecked.

    The file is indexed once; then one acquisition is in memory at a time. Waveforms, images and texts are skipped. A
    stream may hold several measurements, a header each.

    Parameters, attributes and errors are those of `Hdf5Scan`.
    """

    def __init__(self, path: Path, group: str = "", select: bool = True) -> None:
        self.path = path
        self.warnings: list[str] = []
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ReconError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from None
        try:
            parts = _Index(path, self._file, self.warnings).parts
            self.measurements = [self._measurement(n, part) for n, part in enumerate(parts, 1)] if parts[1:] else []
            if select:
                self._part = self._chosen(parts, group)
                self.header_xml = self._part.header
                self.acquisition_count = len(self._part.offsets)
        except BaseException:
            self._file.close()
            raise

    def _chosen(self, parts: list[_Part], wanted: str) -> _Part:
        measurements = self.measurements or [self._measurement(1, parts[0])]
        chosen, note = choose(self.path, measurements, wanted)
        self.warnings += [note] if note else []
        part = parts[int(chosen.name) - 1]
        if not part.closed:
            self.warnings.append(
                f"{self.path.name}: the stream has no CLOSE message at its end: it is still being written, or was cut "
                "off; lines may be missing"
            )
        return part

    def _measurement(self, number: int, part: _Part) -> Measurement:
        protocol = protocol_name(part.header)
        return Measurement(str(number), protocol, len(part.offsets), kind_of(protocol, self._heads(part)))

    def _heads(self, part: _Part) -> Iterator[Any]:
        for start in range(0, len(part.offsets), HEADS_BLOCK):
            heads = []
            for offset in part.offsets[start : start + HEADS_BLOCK]:
                self._file.seek(offset)
                heads.append(self._file.read(_HEAD_BYTES))
            yield np.frombuffer(b"".join(heads), acquisition_header_dtype)

    def acquisitions(self, chosen: Sequence[bool] | None = None) -> Iterator[tuple[int, ismrmrd.Acquisition]]:
        """Yield the chosen acquisitions (None: all) and their places in the scan, one in memory at a time."""
        for index, offset in enumerate(self._part.offsets):
            if chosen is None or chosen[index]:
                self._file.seek(offset)
                yield index, self._acquisition(index)

    def _acquisition(self, index: int) -> ismrmrd.Acquisition:
        head = ismrmrd.AcquisitionHeader.from_buffer_copy(self._read(index, _HEAD_BYTES))
        samples, coils, dimensions = head.number_of_samples, head.active_channels, head.trajectory_dimensions
        trajectory = np.frombuffer(self._read(index, 4 * samples * dimensions), np.float32)
        data = np.frombuffer(self._read(index, 8 * samples * coils), np.complex64)
        if not data.size:
            raise ReconError(f"{self.path}: acquisition {index} holds no samples; convert the raw data again")
        return ismrmrd.Acquisition(
            head,
            data.reshape(coils, samples).copy(),
            trajectory.reshape(samples, dimensions).copy() if dimensions else None,
        )

    def _read(self, index: int, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise ReconError(f"{self.path}: the file ends in acquisition {index}; it was changed while it was read")
        return data

    def heads(self) -> Any:
        """All acquisition headers as one structured array (no sample is read)."""
        return np.concatenate([*self._heads(self._part)] or [np.zeros(0, acquisition_header_dtype)])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Index:
    """Finds the headers and the acquisitions of a stream without reading their data.

    Parameters
    ----------
    path, file : of the stream
    warnings : gets a line for bytes after the end

    Raises
    ------
    ReconError
        The file ends within a message, has one of unknown kind, an error of its writer, or no header.
    """

    def __init__(self, path: Path, file: Any, warnings: list[str]) -> None:
        self._path, self._file = path, file
        self._size = path.stat().st_size
        self._place = self._message = self._images = 0
        self.parts: list[_Part] = []
        closed = False
        while self._place < self._size:
            if self._size - self._place < 2:
                self._cut_off()
            (kind,) = struct.unpack("<H", self._bytes(2))
            if kind not in _KINDS and closed:
                if kind or self._bytes(min(self._size - self._place, 4096)).strip(b"\0"):
                    warnings.append(
                        f"{path.name}: what follows the stream's CLOSE message is no stream; it is not used"
                    )
                break
            closed = kind == CLOSE
            if closed and self.parts:
                self.parts[-1].closed = True
            elif kind == ACQUISITION and not self.parts:
                raise ReconError(f"{path}: its stream has acquisitions before the ISMRMRD header; convert it again")
            elif kind == ACQUISITION:
                self.parts[-1].offsets.append(self._place)
            self._skip(kind)
            self._message += 1
        if self._images and not any(part.offsets for part in self.parts):
            raise ReconError(f"{path}: {images_only(self._images)}")
        if not self.parts:
            raise ReconError(f"{path}: its stream has no ISMRMRD header; convert it again")

    def _skip(self, kind: int) -> None:
        """Go to the end of a message of some kind; a header is kept."""
        if kind == HEADER:
            text = self._bytes(self._number("<I"))
            if not self.parts or self.parts[-1].offsets or self.parts[-1].header != text:
                self.parts.append(_Part(text))
        elif kind in _TEXTS:
            self._go(self._number("<I"))
        elif kind == CONFIG_FILE:
            self._go(1024)
        elif kind == ACQUISITION:
            head = ismrmrd.AcquisitionHeader.from_buffer_copy(self._bytes(_HEAD_BYTES))
            self._go(4 * head.number_of_samples * (head.trajectory_dimensions + 2 * head.active_channels))
        elif kind == WAVEFORM:
            wave = ismrmrd.WaveformHeader.from_buffer_copy(self._bytes(ctypes.sizeof(ismrmrd.WaveformHeader)))
            self._go(4 * wave.number_of_samples * wave.channels)
        elif kind == IMAGE:
            self._images += 1
            image = ismrmrd.ImageHeader.from_buffer_copy(self._bytes(ctypes.sizeof(ismrmrd.ImageHeader)))
            self._go(self._number("<Q"))
            values = image.channels * image.matrix_size[0] * image.matrix_size[1] * image.matrix_size[2]
            self._go(values * self._value_bytes(image.data_type))
        elif kind == ARRAY:
            data_type, _, dimensions = struct.unpack("<HHH", self._bytes(6))
            sizes = struct.unpack(f"<{dimensions}Q", self._bytes(8 * dimensions))
            values = 1
            for size in sizes:
                values *= size
            self._go(values * self._value_bytes(data_type))
        elif kind == DICOM:
            for length in ("<I", "<Q", "<Q"):
                self._go(self._number(length))
        elif kind == ERROR:
            raise ReconError(
                f"{self._path}: its stream ends with an error of the program that wrote it; convert it again"
            )
        elif kind != CLOSE:
            raise ReconError(
                f"{self._path}: message {self._message} of its stream is of unknown kind {kind}; the file is damaged, "
                "copy or convert it again"
            )

    def _value_bytes(self, data_type: int) -> int:
        if data_type not in _VALUE_BYTES:
            raise ReconError(
                f"{self._path}: message {self._message} of its stream has values of unknown type; the file is damaged, "
                "copy or convert it again"
            )
        return _VALUE_BYTES[data_type]

    def _number(self, layout: str) -> int:
        return int(struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0])

    def _bytes(self, count: int) -> bytes:
        self._go(count)
        self._file.seek(self._place - count)
        data: bytes = self._file.read(count)
        return data

    def _go(self, count: int) -> None:
        """Pass over some bytes."""
        if count > self._size - self._place:
            self._cut_off()
        self._place += count

    def _cut_off(self) -> None:
        raise ReconError(
            f"{self._path}: its stream ends in the middle of message {self._message}; it is still being written, or "
            "was cut off: wait, or copy it again"
        )
