"""Where MRD 2 streams are written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Sink:
    """Collects the numbers and arrays of an item, and hands them on as a whole.

    Parameters
    ----------
    write : takes all of some bytes
    """

    def __init__(self, write: Callable[[Any], None]) -> None:
        self._write = write
        self._parts: list[Any] = []

    def bytes(self, data: bytes) -> None:
        """Bytes as they are."""
        self._parts.append(data)

    def varint(self, value: int) -> None:
        """An unsigned number, seven bits a byte, the lowest first."""
        found = bytearray()
        while value > 0x7F:
            found.append(value & 0x7F | 0x80)
            value >>= 7
        found.append(value)
        self._parts.append(bytes(found))

    def signed(self, value: int) -> None:
        """A signed number, its sign in the lowest bit."""
        self.varint((value << 1 ^ value >> 63) & 0xFFFF_FFFF_FFFF_FFFF)

    def array(self, data: Any) -> None:
        """The bytes of a contiguous array."""
        self._parts.append(data.tobytes())

    def flush(self) -> None:
        """Hand on what was collected."""
        data = b"".join(self._parts)
        self._parts.clear()
        self._write(data)
