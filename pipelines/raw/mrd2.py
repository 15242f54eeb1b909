"""MRD 2 streams in a file."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
from ismrmrd.hdf5 import acquisition_header_dtype

from gadgets.stream import ReconError
from pipelines.mrd2.acquisitions import TAG, LineConverter
from pipelines.mrd2.header import header_xml
from pipelines.mrd2.items import refuse_buckets, unused
from pipelines.mrd2.source import FileSource, StreamEnds
from pipelines.mrd2.streams import MAGIC, Mrd2Reader
from pipelines.raw.file_kinds import first_bytes, images_only
from pipelines.raw.measurements import Measurement


def is_mrd2(path: Path) -> bool:
    """Whether a file begins as a stream of MRD 2 does."""
    return first_bytes(path).startswith(MAGIC)


class Mrd2Scan:
    """The header and the acquisitions of the scan in a file that holds an MRD 2 stream, unchecked.

    The file is read through once for the headers of the acquisitions; then one acquisition is in memory at a time.

    Parameters, attributes and errors are those of `Hdf5Scan`. A stream has one measurement.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.measurements: list[Measurement] = []
        self.warnings: list[str] = []
        try:
            self._file = FileSource(path)
        except OSError as error:
            raise ReconError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from None
        try:
            self._reader = Mrd2Reader(self._file)
            record = self._reader.schema.case(TAG)
            if self._reader.header is None or record is None:
                raise ReconError("its MRD 2 stream has no header; send or convert it again")
            self.header_xml = header_xml(self._reader.header, self._reader.schema.header_record, self.warnings)
            self._converter = LineConverter(record)
            self._places = array("Q")
            self._heads = bytearray()
            self._index()
        except StreamEnds as error:
            self._file.close()
            raise ReconError(f"{path}: {error}; it is still being written, or was cut off: copy it again") from None
        except ReconError as error:
            self._file.close()
            raise ReconError(f"{path}: {error}") from None
        except BaseException:
            self._file.close()
            raise
        self.acquisition_count = len(self._places)

    def _index(self) -> None:
        """Find the acquisitions, and keep their headers."""
        passed: dict[str, int] = {}
        self._file.skip_arrays = True
        for _, value, place in self._reader.items({TAG}, passed):
            self._heads += bytes(self._converter.head(value, len(self._places)))
            self._places.append(place)
            refuse_buckets(passed)
        refuse_buckets(passed)
        images = sum(count for name, count in passed.items() if name.startswith("image"))
        if images and not self._places:
            raise ReconError(images_only(images))
        self._file.skip_arrays = False
        self._file.allow("what follows its end")
        if self._file.begin(1):
            self.warnings.append(f"{self.path.name}: what follows the end of the stream is not used")
        self.warnings += [f"{self.path.name}: {text}" for text in self._converter.notes]
        if listed := unused(passed):
            self.warnings.append(f"{self.path.name}: items that are not used: {listed}")

    def acquisitions(self, chosen: Sequence[bool] | None = None) -> Iterator[tuple[int, ismrmrd.Acquisition]]:
        """Yield the chosen acquisitions (None: all) and their places in the scan, one in memory at a time."""
        for index, place in enumerate(self._places):
            if chosen is not None and not chosen[index]:
                continue
            try:
                self._file.go(place)
                acquisition = self._converter(self._reader.item(TAG), index)
            except ReconError as error:
                raise ReconError(f"{self.path}: {error}") from None
            yield index, acquisition

    def heads(self) -> Any:
        """All acquisition headers as one structured array (no sample is read)."""
        return np.frombuffer(self._heads, acquisition_header_dtype).copy()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
