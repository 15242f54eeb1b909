"""MRD 2 streams, item by item: the header, then the kinds of items that a reader asks for."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import Any

from pipelines.mrd2.schema import Schema, read_schema
from pipelines.mrd2.sink import Sink
from pipelines.mrd2.source import Damaged, Source

MAGIC = b"yardl"
FORMAT = 1  # version of yardl's binary format
MOST_LETTERS = 2**20  # of the schema; that of MRD 2.2 has 25,000
ARRAY_MIB = 64.0  # of all arrays of one item
MIB = 2**20


class OtherFormat(Damaged):
    """It is no MRD 2 stream at all."""


class Mrd2Reader:
    """Reads the schema and the header of a stream.

    Parameters
    ----------
    source : at the stream's beginning
    array_mib : most of all arrays of one item, in MiB

    Attributes
    ----------
    schema : of the stream
    header : its fields; None: the stream has none
    complete : whether the stream's end mark was read

    Raises
    ------
    OtherFormat, Damaged, StreamEnds
        It is not an MRD 2 stream, has something above a limit, or ends early.
    """

    def __init__(self, source: Source, array_mib: float = ARRAY_MIB) -> None:
        self._source, self._array_bytes = source, int(array_mib * MIB)
        self.complete = False
        source.allow("its beginning")
        if source.begin(len(MAGIC)) != MAGIC:
            raise OtherFormat("it is no MRD 2 stream")
        source.fixed(len(MAGIC))
        (version,) = struct.unpack("<i", source.fixed(4))
        if version != FORMAT:
            raise Damaged(f"its binary format has version {version}, this reads {FORMAT}; write it with MRD 2")
        source.allow("its schema", MOST_LETTERS)
        self.schema: Schema = read_schema(source.text())
        source.allow("its header")
        self.header: Any = self.schema.header.read(source)

    def items(self, wanted: Collection[str], passed: dict[str, int]) -> Iterator[tuple[str, Any, int]]:
        """Yield the items of some kinds: tag in lower case, value, place in the stream.

        Parameters
        ----------
        wanted : tags in lower case
        passed : gets the numbers of items of other kinds, which are passed over
        """
        source, number = self._source, 0
        while True:
            source.allow(f"item {number}", array_bytes=self._array_bytes)
            block = source.varint()
            if not block:
                self.complete = True
                return
            for _ in range(block):
                source.allow(f"item {number}", array_bytes=self._array_bytes)
                number += 1
                tag, element = self.schema.item.case(source)
                tag, place = tag.lower(), source.place
                if element is None:
                    continue
                if tag in wanted:
                    yield tag, element.read(source), place
                else:
                    passed[tag] = passed.get(tag, 0) + 1
                    element.skip(source)

    def item(self, tag: str) -> Any:
        """The item of a kind at the place where the source is."""
        self._source.allow(f"an item of kind {tag}", array_bytes=self._array_bytes)
        element = self.schema.case(tag)
        assert element is not None  # it was read before
        return element.read(self._source)


class Mrd2Writer:
    """Writes a stream: schema and header at once, then each item as it comes.

    Parameters
    ----------
    sink : where to
    schema : of the stream
    header : its fields by the schema, or None
    """

    def __init__(self, sink: Sink, schema: Schema, header: Any) -> None:
        self._sink, self.schema = sink, schema
        encoded = schema.text.encode()
        sink.bytes(MAGIC + struct.pack("<i", FORMAT))
        sink.varint(len(encoded))
        sink.bytes(encoded)
        schema.header.write(sink, header)
        sink.flush()

    def write(self, tag: str, value: Any) -> None:
        """Write one item, given by its tag in the schema."""
        self._sink.varint(1)
        self.schema.item.write(self._sink, (tag, value))
        self._sink.flush()

    def end(self) -> None:
        """Write the end mark."""
        self._sink.varint(0)
        self._sink.flush()
