"""Where the noise for a replay comes from."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import is_for_images
from gadgets.noise.scan import ChosenNoise, NoiseScan, noise_dependencies
from gadgets.noise.storage import ADDRESS_VARIABLE, stored_noise
from gadgets.stream import ReconError
from pipelines.noise.files import noise_among, noise_of_file, noise_of_lines
from pipelines.noise.fitting import fitted
from pipelines.raw import RawScan

log = logging.getLogger("genrecon")


def choose_noise(scan: RawScan, given: str = "", named: bool = True) -> ChosenNoise | None:
    """The noise that a scan is prewhitened with; None where there is none.

    In this order: what the user gives; noise lines of the scan, wherever they are in the file; another measurement of
    the same file, that which the header names or one of noise alone; a storage server, if the environment variable
    GADGETRON_STORAGE_ADDRESS has its address and the header names a noise measurement. Where the coils of a noise scan
    are not those of the scan, a warning says so, and the next one is tried.

    Parameters
    ----------
    scan : open file
    given : file of a noise scan (see `noise_of_file`), or http:// address of a storage server; empty: none
    named : whether images may say which file or measurement it is

    Raises
    ------
    ReconError
        What the user gave cannot be read.
    """
    noise = _chosen(scan, given)
    return noise if named or noise is None else dataclasses.replace(noise, name="")


def _chosen(scan: RawScan, given: str) -> ChosenNoise | None:
    heads = scan.heads()
    place = _first_line(scan, heads)
    if place is None:
        return None
    first = ismrmrd.AcquisitionHeader.from_buffer_copy(heads[place].tobytes())
    for noise in _elsewhere(scan, given):
        if chosen := fitted(noise, scan.header, first, asked_for=True):
            return chosen
    own = scan.noise_flags & (heads["active_channels"] == first.active_channels)
    if own[:place].any():
        return ChosenNoise(None)
    if own.any():
        noise = noise_of_lines(scan.noise_lines(own), scan.header, str(scan.path), first.active_channels)
        return ChosenNoise(noise)
    if (other := noise_among(scan.path, scan.measurements, noise_dependencies(scan.header))) is not None and (
        chosen := fitted(other, scan.header, first)
    ):
        return chosen
    address = os.environ.get(ADDRESS_VARIABLE, "")
    try:
        stored = stored_noise(address, scan.header) if address else None
    except ReconError as error:
        log.warning("%s; the data are not prewhitened", error)
        return None
    return fitted(stored, scan.header, first) if stored else None


def _elsewhere(scan: RawScan, given: str) -> Iterator[NoiseScan]:
    """The noise that the user names."""
    if not given:
        return
    if "://" not in given:
        yield noise_of_file(Path(given), noise_dependencies(scan.header))
    elif (stored := stored_noise(given, scan.header)) is not None:
        yield stored
    else:
        raise ReconError(f"--noise: the storage server has no noise that the header of {scan.path} names")


def _first_line(scan: RawScan, heads: Any) -> int | None:
    """Place of the first line for images."""
    for place in np.flatnonzero(~scan.noise_flags):
        if is_for_images(ismrmrd.AcquisitionHeader.from_buffer_copy(heads[place].tobytes())):
            return int(place)
    return None
