"""Noise scans in files."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np

from gadgets.noise.covariance_file import MAGIC, read_covariance
from gadgets.noise.lines import NoiseLines
from gadgets.noise.scan import NoiseScan
from gadgets.stream import ReconError
from pipelines.raw.hdf5 import Hdf5Scan
from pipelines.raw.header import read_header
from pipelines.raw.scan import noise_flags

log = logging.getLogger("genrecon")

BLOCK = 16  # samples
MOST_UNEVEN = 4.0  # power of the strongest block of a line, in terms of the mean; an echo is far above that


def noise_of_file(path: Path) -> NoiseScan:
    """The noise scan in a raw file, or a covariance that Gadgetron wrote.

    Where no line of a raw file is flagged as noise, all of them are taken if they look like it.

    Raises ReconError when the file cannot be read, or has no noise.
    """
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                file.seek(0)
                noise = read_covariance(file.read(), str(path))
                return dataclasses.replace(noise, origin="another file", name=path.name)
    source = Hdf5Scan(path)
    try:
        header = read_header(path, source.header_xml).fields
        flagged = noise_flags(source.heads()) if source.acquisition_count else np.zeros(0, bool)
        chosen = flagged if flagged.any() else np.ones_like(flagged)
        lines = [line for _, line in source.acquisitions(chosen.tolist())]
    finally:
        source.close()
    if not flagged.any():
        if not looks_like_noise(lines):
            raise ReconError(
                f"{path}: none of its {len(lines)} acquisitions is a noise line; give the file of a noise scan"
            )
        log.warning("%s: no line is flagged as noise; all %d are taken for it", path.name, len(lines))
    noise = noise_of_lines(lines, header, str(path))
    return dataclasses.replace(noise, origin="another file", name=", ".join(filter(None, (path.name, noise.name))))


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
