"""The noise of a scan that comes line by line: of its own lines, of an earlier measurement, or of a storage server."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import is_for_images, is_noise
from gadgets.noise.lines import NoiseLines
from gadgets.noise.quality import NoiseQuality, noise_quality
from gadgets.noise.scan import ChosenNoise, NoiseScan, conflict, noise_dependencies
from gadgets.noise.storage import ADDRESS_VARIABLE, stored_noise
from gadgets.stream import ReconError
from pipelines.noise.fitting import fitted

log = logging.getLogger("genrecon")


class ScanNoise:
    """Chooses the noise of a scan, and hands its own noise on to be kept for later scans.

    Parameters
    ----------
    kept : noise scans of earlier measurements, newest first
    keep : called with the scan's own noise
    ask_storage : whether a storage server may be asked

    Attributes
    ----------
    coils : of a measurement of noise alone; 0: it has other lines
    is_kept : whether its noise was handed on: only a measurement with an ID can be named
    chosen : whether the first line for images, or the end, has come
    quality : statistics of its noise, its own or that of another measurement; None where there is none
    """

    def __init__(self, kept: Sequence[NoiseScan], keep: Callable[[NoiseScan], None], ask_storage: bool = True) -> None:
        self._kept, self._keep, self._ask_storage = kept, keep, ask_storage
        self.coils = 0
        self.is_kept = self.chosen = False
        self.quality: NoiseQuality | None = None

    def choose(self, header: Any, items: Iterator[Any]) -> tuple[ChosenNoise | None, Iterator[Any]]:
        """The noise to prewhiten with, and all items but noise lines that come too late for that.

        It reads the items up to the first line for images.

        Parameters
        ----------
        header : of the scan
        items : acquisitions and waveforms
        """
        try:
            return self._choose(header, items)
        finally:
            self.chosen = True

    def _choose(self, header: Any, items: Iterator[Any]) -> tuple[ChosenNoise | None, Iterator[Any]]:
        read: list[Any] = []
        lines = NoiseLines()
        first: ismrmrd.Acquisition | None = None
        others = False
        for item in items:
            read.append(item)
            if not isinstance(item, ismrmrd.Acquisition):
                continue
            if is_noise(item):
                lines.add(item)
                continue
            others = True
            if is_for_images(item):
                first = item
                break
        own = lines.noise(header, first.active_channels if first else 0) if lines else None
        if own is not None:
            self._look_at(own)
            self._hand_on(own)
            self.coils = 0 if others else len(own.covariance)
        if first is None:
            return None, iter(read)
        if own is not None and len(own.covariance) == first.active_channels:
            return ChosenNoise(None), itertools.chain(read, items)
        other = self._of_others(header, first)
        if other is not None and other.scan is not None:
            self._look_at(other.scan)
        return other, itertools.chain(read, self._without_late_noise(header, items))

    def _look_at(self, noise: NoiseScan) -> None:
        self.quality = noise_quality(noise) if np.isfinite(noise.covariance).all() else None

    def _hand_on(self, noise: NoiseScan) -> None:
        if noise.measurement and np.isfinite(noise.covariance).all():
            self._keep(noise)
            self.is_kept = True

    def _of_others(self, header: Any, first: ismrmrd.Acquisition) -> ChosenNoise | None:
        """The noise of a measurement that the header names."""
        for measurement in noise_dependencies(header):
            found = [noise for noise in self._kept if noise.measurement == measurement]
            alike = [noise for noise in found if not conflict(noise, header)]
            for noise in alike or found[:1]:
                if chosen := fitted(noise, header, first.getHead()):
                    return chosen
        address = os.environ.get(ADDRESS_VARIABLE, "") if self._ask_storage else ""
        try:
            stored = stored_noise(address, header) if address else None
        except ReconError as error:
            log.warning("%s; the data are not prewhitened", error)
            return None
        return fitted(stored, header, first.getHead()) if stored else None

    def _without_late_noise(self, header: Any, items: Iterator[Any]) -> Iterator[Any]:
        """Noise lines after other lines would prewhiten a part of the data."""
        lines = NoiseLines()
        for item in items:
            if isinstance(item, ismrmrd.Acquisition) and is_noise(item):
                if not self.is_kept:
                    lines.add(item)
            else:
                yield item
        if lines:
            log.warning(
                "noise lines came after lines for images: the data are not prewhitened with them; send them first"
            )
            self._hand_on(lines.noise(header, 0))


def noise_in_stream(
    header: Any, items: Iterator[Any], kept: ChosenNoise | None
) -> tuple[ChosenNoise | None, Iterator[Any]]:
    """The noise that a server used for a scan, and the items that it then took, as `ScanNoise.choose`.

    Parameters
    ----------
    header, items : of the scan
    kept : the noise of another measurement that it used; None: it used none
    """
    own, items = ScanNoise((), lambda _: None, ask_storage=False).choose(header, items)
    return own or kept, items
