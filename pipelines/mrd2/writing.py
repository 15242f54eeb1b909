"""Scans of ISMRMRD written as MRD 2 streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ismrmrd

from pipelines.mrd2.acquisitions import TAG, mrd2_line
from pipelines.mrd2.header import mrd2_header
from pipelines.mrd2.schema import Schema, read_schema
from pipelines.mrd2.sink import Sink
from pipelines.mrd2.streams import Mrd2Writer
from priors.extras import require


def installed_schema() -> Schema:
    """The schema of the version of MRD 2 that is installed (mrd-python). Raises ModuleNotFoundError without one."""
    require("mrd")
    from mrd.protocols import MrdWriterBase

    return read_schema(MrdWriterBase.schema)


def write_scan(
    write: Callable[[bytes], Any], header: Any, acquisitions: Iterable[ismrmrd.Acquisition], schema: Schema
) -> list[str]:
    """Write a scan as a stream; returns what of its header MRD 2 has no place for.

    Parameters
    ----------
    write : takes the bytes of the stream
    header : ismrmrd.xsd.ismrmrdHeader
    acquisitions : in the order they were measured
    schema : of the stream
    """
    notes: list[str] = []
    writer = Mrd2Writer(Sink(write), schema, mrd2_header(header, schema.header_record, notes))
    tag, record = next((tag, schema.case(tag)) for tag, _ in schema.item.cases if tag.lower() == TAG)
    assert record is not None
    for acquisition in acquisitions:
        writer.write(tag, mrd2_line(acquisition, record))
    writer.end()
    return notes
