"""Noise scans that the server keeps for the scans that name them."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque

from gadgets.noise.scan import NoiseScan
from pipelines.server.request import Request

MOST_SCANS = 100
MOST_BYTES = 64 * 2**20
LONGEST_S = 48 * 3600.0  # as in Gadgetron's storage server


class NoiseStore:
    """Noise scans of the last measurements, in memory only: a restart forgets them.

    The same measurementID from another scanner, or with other coils, is another entry. Above a limit the oldest entry
    goes.
    """

    def __init__(self) -> None:
        self._entries: deque[tuple[float, NoiseScan]] = deque()
        self._lock = threading.Lock()

    def keep(self, noise: NoiseScan) -> None:
        """Keep a noise scan; it replaces an older one of the same measurement, scanner and coils."""
        with self._lock:
            self._entries = deque(entry for entry in self._entries if not _same(entry[1], noise))
            self._entries.append((time.monotonic(), noise))
            while len(self._entries) > MOST_SCANS or sum(entry.nbytes for _, entry in self._entries) > MOST_BYTES:
                self._entries.popleft()

    def with_noise(self, request: Request) -> Request:
        """The request; with all noise scans, newest first, where its header names another measurement."""
        if b"measurementDependency" not in request.header_text:
            return request
        with self._lock:
            while self._entries and time.monotonic() - self._entries[0][0] > LONGEST_S:
                self._entries.popleft()
            return dataclasses.replace(request, noise=tuple(noise for _, noise in reversed(self._entries)))


def _same(one: NoiseScan, other: NoiseScan) -> bool:
    return (one.measurement, one.context, one.coils, len(one.covariance)) == (
        other.measurement,
        other.context,
        other.coils,
        len(other.covariance),
    )
