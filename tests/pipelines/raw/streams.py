"""MRD streams in files, message by message."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ismrmrd.serialization import ProtocolSerializer

CLOSE = struct.pack("<H", 4)


def text_message(kind: int, text: bytes) -> bytes:
    return struct.pack("<HI", kind, len(text)) + text


def header_message(text: str) -> bytes:
    return text_message(3, text.encode())


def write_items(path: Path, begin: bytes, items: Iterable[Any], end: bytes = CLOSE) -> Path:
    """Write bytes, items as ismrmrd serialises them (bytes as they are), and bytes."""
    with path.open("wb") as file:
        file.write(begin)
        serializer = ProtocolSerializer(file)
        for item in items:
            if isinstance(item, bytes):
                file.write(item)
            else:
                serializer.serialize(item)
        file.write(end)
    return path


def write_stream(path: Path, *scans: tuple[str, list[Any]]) -> Path:
    """Write (header, acquisitions) one after another, each with its CLOSE."""
    items: list[Any] = []
    for text, acquisitions in scans:
        items += [header_message(text), *acquisitions, CLOSE]
    return write_items(path, b"", items, b"")
