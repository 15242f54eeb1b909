"""One raw scan of a file, whatever the file's format, checked while it is read."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import BITS, mistaken_flags
from gadgets.stream import ReconError
from gadgets.survey import Survey
from pipelines.raw.checks import AcquisitionChecker, check_header, field_of_view_doubts, trajectory_problem
from pipelines.raw.fastmri import FastMriScan, is_fastmri
from pipelines.raw.hdf5 import Hdf5Scan
from pipelines.raw.header import read_header
from pipelines.raw.measurements import Measurement
from pipelines.raw.mrd2 import Mrd2Scan, is_mrd2
from pipelines.raw.stream import StreamScan, is_stream

log = logging.getLogger("genrecon")


def noise_flags(heads: Any) -> Any:
    """Which of a structured array of acquisition headers are flagged as noise, bool."""
    return (heads["flags"] >> np.uint64(ismrmrd.ACQ_IS_NOISE_MEASUREMENT - 1)) & np.uint64(1) > 0


class RawScan:
    """One raw scan in an ISMRMRD file.

    Parameters
    ----------
    path : file to read; FILE:NAME for one of several measurements in it
    group : another way to give that name (see `Measurement`); "": the only one of images
    as_they_are : flags of lines are not judged by those of all others, which a server does not know

    Attributes
    ----------
    header, header_xml : complete; see `read_header`
    acquisition_count : noise included
    measurements : of the file, when it has several
    warnings : for the user

    Raises
    ------
    ReconError
        The file is missing, of no known format, truncated, without ISMRMRD header or acquisitions, or not Cartesian; or
        it has several measurements and it is not clear which one is meant.
    """

    def __init__(self, path: str | Path, group: str = "", as_they_are: bool = False) -> None:
        self._as_they_are = as_they_are
        self.path, named = file_and_group(Path(path))
        group = group or named
        self._source = open_source(self.path, group)
        try:
            self.acquisition_count = self._source.acquisition_count
            self.measurements = self._source.measurements
            self._header = read_header(self.path, self._source.header_xml)
            self.header, self.header_xml = self._header.fields, self._header.text
            if self.acquisition_count == 0:
                raise ReconError(f"{self.path}: it has no acquisitions; nothing to reconstruct")
            check_header(self.path, self.header)
            self.warnings = [*self._source.warnings, *self._header.warnings, *field_of_view_doubts(self.header)]
        except BaseException:
            self._source.close()
            raise

    def acquisitions(self, chosen: Sequence[bool] | None = None) -> Iterator[ismrmrd.Acquisition]:
        """Yield the acquisitions in file order, a block in memory at a time; `warnings` go to the log first.

        Parameters
        ----------
        chosen : for each, whether it is wanted; the others are not read. None: all of them

        Raises
        ------
        ReconError
            Data that cannot be read, samples that are NaN or infinite, data that disagree with the header, or no
            imaging line at all.
        """
        for text in self.warnings:
            log.warning("%s", text)
        if self._mistaken_flags:
            log.warning("all imaging lines are flagged as surface coil readouts; they are used, the flag is not")
        check = AcquisitionChecker(self.path, self.header, self._header.assumed_cartesian)
        for index, acquisition in self._source.acquisitions(chosen):
            if self._mistaken_flags:
                acquisition.flags = acquisition.flags & ~self._mistaken_flags
            if check(index, acquisition):
                yield acquisition
        if not check.imaging_lines:
            raise ReconError(
                f"{self.path}: none of its {self.acquisition_count} acquisitions is an imaging line (only noise, "
                "calibration or phase correction); give the file of the scan itself"
            )

    def noise_lines(self, chosen: Sequence[bool] | None = None) -> Iterator[ismrmrd.Acquisition]:
        """Yield the acquisitions that are flagged as noise, or those of them that are chosen, unchecked."""
        wanted = self.noise_flags if chosen is None else self.noise_flags & np.asarray(chosen)
        for _, acquisition in self._source.acquisitions(wanted.tolist()):
            yield acquisition

    @functools.cached_property
    def noise_flags(self) -> Any:
        """Which acquisitions are flagged as noise, bool (acquisition,)."""
        return noise_flags(self.heads())

    @property
    def noise_only(self) -> bool:
        """Whether this is a noise measurement, which has no image."""
        return bool(self.noise_flags.all())

    def heads(self) -> Any:
        """All acquisition headers as one structured array (no sample is read)."""
        heads = self._source.heads()
        if self._mistaken_flags:
            heads["flags"] &= np.uint64(~self._mistaken_flags & (1 << BITS) - 1)
        return heads

    @functools.cached_property
    def _mistaken_flags(self) -> int:
        return 0 if self._as_they_are else mistaken_flags(np.unique(self._source.heads()["flags"]).tolist())

    def notes(self) -> list[tuple[str, str]]:
        """Names and texts that describe the file, where that is not all said by header and acquisitions."""
        return self._source.describe() if isinstance(self._source, FastMriScan) else []

    def survey(self, chosen: Sequence[bool] | None = None) -> Survey:
        """What its acquisitions are, or those that are `chosen` as for `acquisitions`."""
        heads = self.heads()
        heads = heads if chosen is None else heads[np.asarray(chosen, dtype=bool)]
        spaces = [number for number in range(len(self.header.encoding)) if not trajectory_problem(self.header, number)]
        return Survey(heads[np.isin(heads["encoding_space_ref"], spaces)])

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> RawScan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def measurements(path: str | Path) -> list[Measurement]:
    """The measurements of a file that has several; empty when it has one. Raises ReconError as `RawScan`."""
    source = open_source(file_and_group(Path(path))[0], "", select=False)
    source.close()
    return source.measurements


def file_and_group(path: Path) -> tuple[Path, str]:
    """A path, or the file and the measurement of FILE:NAME."""
    file, colon, name = str(path).rpartition(":")
    return (Path(file), name) if colon and name and not path.exists() and Path(file).is_file() else (path, "")


def open_source(path: Path, group: str, select: bool = True) -> Hdf5Scan | StreamScan | FastMriScan | Mrd2Scan:
    """One of several measurements of a file, unchecked; `select` false: none of them, only their list."""
    if path.is_dir():
        raise ReconError(f"{path}: it is a folder; give the path of an ISMRMRD raw file (.h5)")
    if not path.is_file():
        raise ReconError(f"{path}: no such file; give the path of an ISMRMRD raw file (.h5)")
    if is_stream(path):
        return StreamScan(path, group, select)
    kind = "an MRD 2 stream" if is_mrd2(path) else "a fastMRI file" if is_fastmri(path) else ""
    if not kind:
        return Hdf5Scan(path, group, select)
    if group:
        raise ReconError(f"{path}: it is {kind}, which has one measurement; leave out --group")
    return FastMriScan(path) if kind == "a fastMRI file" else Mrd2Scan(path)
