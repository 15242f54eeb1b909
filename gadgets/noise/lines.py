"""Noise lines of a stream."""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import Any

import ismrmrd

from gadgets.noise.covariance import Array, noise_covariance
from gadgets.noise.scan import NoiseScan, noise_of_covariance

log = logging.getLogger("genrecon")


def known_dwell(dwell_us: float) -> float:
    """A dwell time that a line gives, 0 for one that is none: 0, negative, infinite or not a number."""
    return dwell_us if 0 < dwell_us < math.inf else 0.0


class NoiseLines:
    """Collects noise lines until their covariance is needed."""

    def __init__(self) -> None:
        self._lines: list[tuple[Array, float, int]] = []  # samples (coil, sample), dwell time, time stamp

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, line: ismrmrd.Acquisition) -> None:
        """Add a line, without the samples that its header says to discard."""
        data = line.data[:, line.discard_pre : max(line.number_of_samples - line.discard_post, 0)]
        if data.size:
            self._lines.append((data, known_dwell(line.sample_time_us), line.acquisition_time_stamp))

    def noise(self, header: Any, coils: int) -> NoiseScan:
        """The noise of lines of this many coils, or where there is none of those of the first line.

        Of lines of several dwell times those count whose samples are most: their noise has other levels.
        """
        counts = [len(data) for data, _, _ in self._lines]
        wanted = coils if coils in counts else counts[0]
        lines = [line for line in self._lines if len(line[0]) == wanted]
        samples: Counter[float] = Counter()
        for data, dwell, _ in lines:
            if dwell:
                samples[dwell] += data.shape[1]
        dwell_us = samples.most_common(1)[0][0] if samples else 0.0
        chosen = [line for line in lines if line[1] in (dwell_us, 0.0)]
        if len(chosen) < len(self._lines):
            log.warning(
                "NoiseAdjustGadget: %d of %d noise lines have other coils or another dwell time; they are left out",
                len(self._lines) - len(chosen),
                len(self._lines),
            )
        readouts = [line[0] for line in chosen]
        count = sum(readout.shape[1] for readout in readouts)
        return noise_of_covariance(header, noise_covariance(readouts), count, dwell_us, chosen[0][2])
