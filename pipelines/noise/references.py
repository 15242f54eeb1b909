"""Where the reference scan of a scan comes from: an earlier measurement, or a file."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import is_for_images
from gadgets.images import COMPLETED_CALIBRATION
from gadgets.noise.scan import conflict
from gadgets.reference_lines import reference_dependencies
from gadgets.reference_scan import ChosenReference, ReferenceScan
from gadgets.stream import ReconError
from pipelines.chain import shipped_chain
from pipelines.noise.fitting import fitted_reference
from pipelines.raw import RawScan

log = logging.getLogger("genrecon")

NAMED = "the header names a reference scan for coil maps"
CHAIN = "cg_sense"  # whose gadgets up to the buffers sort the lines of a reference


def reference_in_stream(
    header: Any, items: Iterator[Any], kept: Sequence[ReferenceScan]
) -> tuple[ChosenReference | None, Iterator[Any]]:
    """The reference scan that a header names, and all items of the scan.

    Parameters
    ----------
    header, items : of the scan; items up to the first line for images are read
    kept : reference scans of earlier measurements, newest first
    """
    names = reference_dependencies(header)
    if not names:
        return None, items
    read, first = [], None
    for item in items:
        read.append(item)
        if isinstance(item, ismrmrd.Acquisition) and is_for_images(item):
            first = item.getHead()
            break
    items = itertools.chain(read, items)
    found = [scan for name in names for scan in kept if scan.measurement == name]
    alike = [scan for scan in found if not conflict(scan, header)]
    for scan in (alike or found[:1]) if first is not None else []:
        if chosen := fitted_reference(scan, header, first):
            return chosen, items
    if not found:
        log.warning("%s, which was not sent to this server before; send it first", NAMED)
    return None, items


def tell_of_reference(header: Any, warnings: list[str], remedy: str) -> None:
    """Warn where a scan without calibration names a reference scan that it was reconstructed without.

    Parameters
    ----------
    header : of the scan
    warnings : of its images
    remedy : how to use the reference
    """
    if COMPLETED_CALIBRATION in warnings and reference_dependencies(header):
        log.warning("%s; %s", NAMED, remedy)


def reference_of_file(path: Path, group: str = "") -> ReferenceScan:
    """The calibration in the raw file of a reference scan. Raises ReconError where there is none, or no such file."""
    collected: list[ReferenceScan] = []
    chain = shipped_chain(CHAIN).up_to_buffers()
    assert chain is not None
    chain.keep_reference = collected.append
    with RawScan(path, group) as scan:
        for _ in chain.run(scan.header, scan.acquisitions(), survey=scan.survey()):
            pass
        if not collected:
            raise ReconError(
                f"--reference {path}: it has no fully sampled centre of k-space; give a scan with calibration lines"
            )
        name = ", ".join(filter(None, (scan.path.name, collected[0].name)))
    return dataclasses.replace(collected[0], origin="another file", name=name)


def given_reference(scan: RawScan, path: Path, named: bool) -> ChosenReference:
    """The reference of a file for a scan. Raises ReconError where its coils are not those of the scan.

    Parameters
    ----------
    scan : the scan
    path : raw file of the reference
    named : whether images may say which file it is
    """
    heads = scan.heads()
    for place in np.flatnonzero(~scan.noise_flags):
        first = ismrmrd.AcquisitionHeader.from_buffer_copy(heads[place].tobytes())
        if is_for_images(first):
            chosen = fitted_reference(reference_of_file(path), scan.header, first, asked_for=True)
            if chosen is not None:
                return chosen if named else dataclasses.replace(chosen, name="")
            break
    raise ReconError(f"--reference {path}: its coils are not those of {scan.path}; give a reference of the same coils")
