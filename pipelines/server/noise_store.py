"""Noise and reference scans that the server keeps for the scans that name them."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from typing import Any, Generic

from gadgets.noise.scan import AnyScan, EarlierScan, NoiseScan
from gadgets.reference_scan import ReferenceScan
from pipelines.server.request import Request

MOST_SCANS = 100
MOST_BYTES = 64 * 2**20  # of noise scans
MOST_REFERENCE_BYTES = 512 * 2**20  # of reference scans
LONGEST_S = 48 * 3600.0  # as in Gadgetron's storage server
MOST_DIGITS = 5  # of a number that the status page shows


class _Entries(Generic[AnyScan]):
    """What is kept of the last measurements, the oldest first."""

    def __init__(self, most_bytes: int | None = None) -> None:
        self._most_bytes = most_bytes
        self._entries: deque[tuple[float, AnyScan]] = deque()
        self._lock = threading.Lock()

    def keep(self, new: AnyScan) -> None:
        """Keep one; it replaces an older one of the same measurement, scanner and coils."""
        most = MOST_BYTES if self._most_bytes is None else self._most_bytes
        with self._lock:
            self._entries = deque(entry for entry in self._entries if _identity(entry[1]) != _identity(new))
            self._entries.append((time.monotonic(), new))
            while len(self._entries) > MOST_SCANS or sum(entry.nbytes for _, entry in self._entries) > most:
                self._entries.popleft()

    def newest_first(self) -> tuple[AnyScan, ...]:
        """All of them that are not too old."""
        return tuple(entry for _, entry in self.with_ages())

    def with_ages(self) -> list[tuple[float, AnyScan]]:
        """The same, each with the seconds since it was kept."""
        now = time.monotonic()
        with self._lock:
            while self._entries and now - self._entries[0][0] > LONGEST_S:
                self._entries.popleft()
            return [(now - since, entry) for since, entry in reversed(self._entries)]


class NoiseStore:
    """Noise and reference scans of the last measurements, in memory only: a restart forgets them.

    The same measurementID from another scanner, or with other coils, is another entry. Above a limit the oldest entry
    goes.
    """

    def __init__(self) -> None:
        self._noise: _Entries[NoiseScan] = _Entries()
        self._references: _Entries[ReferenceScan] = _Entries(MOST_REFERENCE_BYTES)

    def keep(self, scan: NoiseScan | ReferenceScan) -> None:
        """Keep a scan; it replaces an older one of the same measurement, scanner and coils."""
        if isinstance(scan, ReferenceScan):
            self._references.keep(scan)
        else:
            self._noise.keep(scan)

    def kept(self) -> dict[str, list[dict[str, Any]]]:
        """What is kept, newest first, as the status page shows it: nothing in it identifies anyone."""
        return {
            "noise": [_shown(*entry) for entry in self._noise.with_ages()],
            "references": [
                _shown(*entry) | {"blocks": len(entry[1].blocks), "volume": entry[1].is_volume}
                for entry in self._references.with_ages()
            ],
        }

    def with_noise(self, request: Request) -> Request:
        """The request; with what is kept, newest first, where its header names another measurement.

        Reference scans are large: only those whose number is in the header.
        """
        if b"measurementDependency" not in request.header_text:
            return request
        named = tuple(
            scan
            for scan in self._references.newest_first()
            if scan.measurement.rpartition("_")[2].encode() in request.header_text
        )
        return dataclasses.replace(request, noise=self._noise.newest_first(), references=named)


def _identity(scan: EarlierScan) -> tuple[object, ...]:
    return scan.measurement, scan.context, scan.coils, scan.channels


def _shown(age_s: float, scan: EarlierScan) -> dict[str, Any]:
    """Number of a measurement, coils and age. Of Siemens' device_patient_study_measurement only the last is shown.

    One with more than `MOST_DIGITS` digits may be a date of birth, or a number of a patient.
    """
    number = scan.measurement.rpartition("_")[2]
    shown = number.isdecimal() and len(number) <= MOST_DIGITS
    return {"measurement": number if shown else "", "coils": scan.channels, "age_s": round(age_s)}
