"""Several measurements in one file: what each of them is, and which one is reconstructed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gadgets.acquisition_flags import is_calibration_only, is_for_images, is_noise
from gadgets.stream import ReconError

IMAGES, NOISE, ADJUSTMENT, CALIBRATION = "images", "noise", "adjustment", "calibration"
LISTED = 20  # measurements that an error names

_ADJUSTMENT = re.compile(r"Adj[A-Z]|CoilSens")  # protocol names of Siemens: AdjCoilSens, AdjGre, AdjXFre, ...


class UnclearMeasurement(ReconError):
    """A file has several measurements, and it is not clear which one is meant."""


@dataclass(frozen=True)
class Measurement:
    """One of several measurements in a file.

    Parameters
    ----------
    name : what `--group` takes: the group of an HDF5 file, or the place of a header in a stream, from 1
    protocol : protocol name of its header, "" without
    lines : its acquisitions
    kind : IMAGES; or NOISE, ADJUSTMENT, CALIBRATION, or a text that says what is missing
    """

    name: str
    protocol: str
    lines: int
    kind: str

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(filter(None, (self.protocol, f'{self.lines} lines', self.kind)))})"


def kind_of(protocol: str, heads: Iterable[Any]) -> str:
    """The kind of a measurement.

    Parameters
    ----------
    protocol : its protocol name
    heads : its acquisition headers, a structured array with a field `flags` for each block; read up to the first line
        of an image
    """
    found = set()
    for block in heads:
        for flags in map(int, block["flags"]):
            if is_for_images(flags) and not is_calibration_only(flags):
                return ADJUSTMENT if _ADJUSTMENT.match(protocol) else IMAGES
            found.add(NOISE if is_noise(flags) else CALIBRATION if is_for_images(flags) else ADJUSTMENT)
    return next((kind for kind in (CALIBRATION, ADJUSTMENT, NOISE) if kind in found), "no acquisitions")


def choose(path: Path, measurements: Sequence[Measurement], wanted: str) -> tuple[Measurement, str]:
    """The measurement to reconstruct, and a line that says what was passed over, "" where nothing was.

    Parameters
    ----------
    path : of their file
    measurements : one or more
    wanted : name of one of them, or the last part of it; "": the only one that images can be made of

    Raises
    ------
    ReconError
        None is called so. UnclearMeasurement: there is more than one to choose from, or none. It lists them.
    """
    if wanted:
        named = [one for one in measurements if one.name == wanted.strip("/")]
        named = named or [one for one in measurements if one.name.rpartition("/")[2] == wanted]
        if len(named) != 1:
            raise ReconError(f"{path}: it has {_listed(measurements)}, and not one called {wanted}; correct --group")
        return named[0], ""
    if len(measurements) == 1:
        return measurements[0], ""
    scans = [one for one in measurements if one.kind == IMAGES]
    if len(scans) != 1:
        reason = "more than one may be the scan" if scans else "none seems to be the scan"
        raise UnclearMeasurement(
            f"{path}: it has {_listed(measurements)}: {reason}; choose one with --group NAME, or as FILE:NAME"
        )
    others = ", ".join(str(one) for one in measurements if one is not scans[0])
    return scans[0], f"measurement {scans[0]} of the file is taken; passed over: {others}"


def _listed(measurements: Sequence[Measurement]) -> str:
    named = ", ".join(map(str, measurements[:LISTED]))
    more = len(measurements) - LISTED
    return f"{len(measurements)} measurements, {named}{f' and {more} more' if more > 0 else ''}"
