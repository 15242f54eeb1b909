"""Noise scans in files."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from gadgets.noise.covariance_file import MAGIC, read_covariance
from gadgets.noise.lines import NoiseLines
from gadgets.noise.scan import NoiseScan, measurement_id
from gadgets.stream import ReconError
from pipelines.raw.header import read_header
from pipelines.raw.measurements import NOISE, Measurement
from pipelines.raw.scan import file_and_group, measurements, noise_flags, open_source

log = logging.getLogger("genrecon")

BLOCK = 16  # samples
MOST_UNEVEN = 4.0  # power of the strongest block of a line, in terms of the mean; an echo is far above that


def noise_of_file(path: Path, wanted: Sequence[str] = ()) -> NoiseScan:
    """The noise scan in a raw file, or a covariance that Gadgetron wrote.

    Of a file with several measurements, FILE:NAME names one; else it is that with a wanted ID, or that of noise alone.
    Where a file of one measurement has no line that is flagged as noise, all of them are taken if they look like it.

    Parameters
    ----------
    path : file
    wanted : IDs of measurements, as `noise_among`

    Raises
    ------
    ReconError
        The file cannot be read, or has no noise.
    """
    file, group = file_and_group(path)
    if file.is_file():
        with file.open("rb") as opened:
            if opened.read(len(MAGIC)) == MAGIC:
                opened.seek(0)
                noise = read_covariance(opened.read(), str(file))
                return dataclasses.replace(noise, origin="another file", name=file.name)
    several = [] if group else measurements(file)
    found = noise_among(file, several, wanted) if several else _noise_of_one(file, group)
    if found is None:
        raise ReconError(f"{path}: none of its {len(several)} measurements is one of noise; name one as FILE:NAME")
    name = ", ".join(filter(None, (file.name, found.name)))
    return dataclasses.replace(found, origin="another file", name=name)


def noise_among(file: Path, several: Sequence[Measurement], wanted: Sequence[str]) -> NoiseScan | None:
    """The noise scan among the measurements of a file: that with a wanted ID, or the last one of noise alone.

    Parameters
    ----------
    file : raw file
    several : its measurements
    wanted : IDs of measurements, the best one first
    """
    ranked: list[tuple[int, int, Measurement]] = []
    for place, one in enumerate(several):
        with contextlib.suppress(ReconError), contextlib.closing(open_source(file, one.name)) as source:
            identifier = measurement_id(read_header(file, source.header_xml).fields)
            if identifier in wanted or one.kind == NOISE:
                rank = wanted.index(identifier) if identifier in wanted else len(wanted)
                ranked.append((rank, -place, one))
    for _, _, one in sorted(ranked, key=lambda entry: entry[:2]):
        with contextlib.closing(open_source(file, one.name)) as source:
            header = read_header(file, source.header_xml).fields
            flagged = noise_flags(source.heads())
            if flagged.any():
                lines = (line for _, line in source.acquisitions(flagged.tolist()))
                return _of_group(noise_of_lines(lines, header, str(file)), one.name)
    return None


def _of_group(noise: NoiseScan, group: str) -> NoiseScan:
    name = ", ".join(filter(None, (group, noise.name)))
    return dataclasses.replace(noise, origin="another measurement of the file", name=name)


def _noise_of_one(file: Path, group: str) -> NoiseScan:
    """The noise of one measurement of a file."""
    with contextlib.closing(open_source(file, group)) as source:
        header = read_header(file, source.header_xml).fields
        flagged = noise_flags(source.heads()) if source.acquisition_count else np.zeros(0, bool)
        chosen = flagged if flagged.any() else np.ones_like(flagged)
        lines = [line for _, line in source.acquisitions(chosen.tolist())]
    if not flagged.any():
        if not looks_like_noise(lines):
            raise ReconError(
                f"{file}: none of its {len(lines)} acquisitions is a noise line; give the file of a noise scan"
            )
        log.warning("%s: no line is flagged as noise; all %d are taken for it", file.name, len(lines))
    noise = noise_of_lines(lines, header, str(file))
    return _of_group(noise, group) if group else noise


def noise_of_lines(lines: Iterable[ismrmrd.Acquisition], header: Any, what: str, coils: int = 0) -> NoiseScan:
    """The noise of noise lines. Raises ReconError, which begins with `what`, where they have no finite samples."""
    noise = NoiseLines()
    for line in lines:
        if not np.isfinite(line.data).all():
            raise ReconError(f"{what}: a noise line has NaN or infinite samples; leave it out")
        noise.add(line)
    if not noise:
        raise ReconError(f"{what}: its noise lines have no samples; measure the noise again")
    return noise.noise(header, coils)


def looks_like_noise(lines: list[ismrmrd.Acquisition]) -> bool:
    """Whether all lines have about the same power everywhere, as noise has and no echo."""
    powers = []
    for line in lines:
        power = (np.abs(line.data) ** 2).astype(np.float64)
        level = power.mean(axis=1, keepdims=True)
        power = (power / np.where(level > 0, level, 1)).mean(axis=0)
        size = len(power) // BLOCK * BLOCK
        if not size:
            return False
        powers.append((power[:size].reshape(-1, BLOCK).mean(axis=1).max(), float(level.mean())))
    if not powers:
        return False
    uneven, levels = map(np.array, zip(*powers, strict=True))
    return bool(uneven.max() < MOST_UNEVEN and levels.max() < MOST_UNEVEN * levels.mean())
