"""Bytes of an MRD 2 stream: read as they come, within limits that are checked before memory is taken."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gadgets.errors import ReconError

CHUNK_BYTES = 2**16
ARRAY_CHUNK_BYTES = 2**20
SMALL_BYTES = 1024  # of arrays that are read at once
LONGEST_VARINT = 10  # bytes, of 64 bits
MOST_VALUES = 2**20  # numbers, letters and elements of one item, besides its arrays


class StreamEnds(ReconError):
    """The stream ends before its end mark."""


class Damaged(ReconError):
    """Bytes that no MRD 2 stream has, or a size above its limit."""


class Source:
    """Reads the numbers, texts and arrays that a stream consists of.

    Parameters
    ----------
    read : returns at most so many bytes, as soon as there are any; nothing at the end
    skip_arrays : arrays are passed over: `array` returns one of the right shape that takes no memory

    Attributes
    ----------
    what : the part that is read, for errors

    Raises
    ------
    StreamEnds, Damaged
        In all methods.
    """

    def __init__(self, read: Callable[[int], bytes], skip_arrays: bool = False) -> None:
        self._read, self.skip_arrays = read, skip_arrays
        self._data = b""
        self._at = self._end = 0  # in these bytes; of these bytes in the stream
        self._values = self._array_bytes = 0
        self.what = "its beginning"

    @property
    def place(self) -> int:
        """Bytes read so far."""
        return self._end - len(self._data) + self._at

    def allow(self, what: str, values: int = MOST_VALUES, array_bytes: int = 0) -> None:
        """Begin a part of the stream, which may have so many values, and bytes of arrays."""
        self.what, self._values, self._array_bytes = what, values, array_bytes

    def begin(self, count: int) -> bytes:
        """At most so many bytes that come next, which stay; fewer where the stream ends."""
        while len(self._data) - self._at < count and self._fill():
            pass
        return self._data[self._at : self._at + count]

    def byte(self) -> int:
        """The next byte."""
        if self._at == len(self._data) and not self._fill():
            raise self._ends()
        self._at += 1
        return self._data[self._at - 1]

    def varint(self) -> int:
        """An unsigned number of up to 64 bits, seven a byte, the lowest first."""
        at, data = self._at, self._data
        if at < len(data) and data[at] < 0x80:  # most are
            self._at += 1
            return data[at]
        result = shift = 0
        for _ in range(LONGEST_VARINT):
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result & 0xFFFF_FFFF_FFFF_FFFF
            shift += 7
        raise Damaged(f"{self.what} has a number of more than 64 bits; the stream is damaged, send it again")

    def signed(self) -> int:
        """A signed number, its sign in the lowest bit."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def spend(self, count: int) -> int:
        """A number of values that come next. Raises Damaged when there may not be so many."""
        self._values -= count
        if self._values < 0:
            raise Damaged(
                f"{self.what} has {count} values in one list or text; the stream is damaged, or made to take memory"
            )
        return count

    def fixed(self, count: int) -> bytes:
        """So many bytes, a small number."""
        if len(self._data) - self._at < count:
            self.begin(count)
            if len(self._data) - self._at < count:
                raise self._ends()
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def text(self) -> str:
        """A text in UTF-8, with its length before it; letters that cannot be read become marks."""
        return bytes(self._take(self.spend(self.varint()))).decode("utf-8", "replace")

    def elements(self, shape: tuple[int, ...], size: int) -> int:
        """The elements of an array of so many bytes each. Raises Damaged when it is above the limit."""
        count = math.prod(shape)
        self._array_bytes -= math.prod(max(length, 1) for length in shape) * size
        if self._array_bytes < 0:
            raise Damaged(
                f"{self.what} has an array of {' x '.join(map(str, shape[:8]))} values; the limit of its arrays is "
                "exceeded: the stream is damaged, or of another kind of data"
            )
        return count

    def array(self, dtype: Any, shape: tuple[int, ...]) -> Any:
        """An array, whose bytes come as they lie in memory."""
        size = self.elements(shape, dtype.itemsize) * dtype.itemsize
        if self.skip_arrays:
            self.skip(size)
            return np.broadcast_to(np.zeros((), dtype), shape)
        return np.frombuffer(self.fixed(size) if size < SMALL_BYTES else self._take(size), dtype).reshape(shape)

    def _take(self, count: int) -> bytearray:
        """So many bytes, a number that was checked; memory is taken as they come, not at once."""
        received = bytearray()
        while len(received) < count:
            rest = count - len(received)
            if self._at == len(self._data):
                if rest >= CHUNK_BYTES:
                    chunk = self._read(min(rest, ARRAY_CHUNK_BYTES))
                    if not chunk:
                        raise self._ends()
                    received += chunk
                    self._end += len(chunk)
                    continue
                if not self._fill():
                    raise self._ends()
            part = self._data[self._at : self._at + rest]
            self._at += len(part)
            received += part
        return received

    def skip(self, count: int) -> None:
        """Pass over so many bytes."""
        while count:
            if self._at == len(self._data) and not self._fill():
                raise self._ends()
            step = min(count, len(self._data) - self._at)
            self._at += step
            count -= step

    def _fill(self) -> bool:
        """Read what comes next; False at the end."""
        chunk = self._read(CHUNK_BYTES)
        self._end += len(chunk)
        self._data = self._data[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def _ends(self) -> StreamEnds:
        return StreamEnds(f"the stream ends in the middle of {self.what}")


class FileSource(Source):
    """The same of a file, where any place can be gone to."""

    def __init__(self, path: Path, skip_arrays: bool = False) -> None:
        self._file = path.open("rb", buffering=0)
        self._size = path.stat().st_size
        super().__init__(lambda count: self._file.read(count) or b"", skip_arrays)

    def go(self, place: int) -> None:
        """Go on at a place of the file."""
        self._file.seek(place)
        self._data, self._at, self._end = b"", 0, place

    def skip(self, count: int) -> None:
        """Pass over so many bytes."""
        if count < len(self._data) - self._at:
            super().skip(count)
        elif self.place + count > self._size:
            raise self._ends()
        else:
            self.go(self.place + count)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def source_of(descriptor: int) -> Source:
    """The bytes of a file descriptor: a pipe, or a file."""
    return Source(lambda count: os.read(descriptor, count))
