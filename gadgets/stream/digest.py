"""A digest of gadgets and their settings, by which two reconstructions of one scan differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types import ImageArray, ReconData

CHAIN_DIGEST = "GenreconChain"  # meta attribute of images: digest of the settings of the gadgets that made them
SCAN_DIGEST = "GenreconScan"  # meta attribute of images: digest of the raw data of their scan

SAMPLES_OF_A_LINE = 32  # of those of a line, in the digest of a buffer

Settings = Sequence[tuple[str, Mapping[str, Any]]]  # gadget class and what is set in it, in the order of the chain


def settings_digest(settings: Settings) -> str:
    """Digest of gadgets and their settings, 32 hexadecimal digits; the order of properties does not matter."""
    text = json.dumps([[gadget, dict(values)] for gadget, values in settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def with_digests(item: Any, digests: Mapping[str, str]) -> Any:
    """The item; each image of an image array gets the digests that are not empty as meta attributes."""
    if isinstance(item, ImageArray):
        for index, text in enumerate(item.meta):
            meta = ismrmrd.Meta.deserialize(text) if text else ismrmrd.Meta()
            for name, digest in digests.items():
                if digest:
                    meta[name] = digest
            item.meta[index] = str(meta.serialize())
    return item


class BufferDigest:
    """Digest of the first buffers of a scan, for a gadget in a process of its own.

    A real Gadgetron's Python gadgets do not see the raw lines that `gadgets.scan_digest` takes: UIDs derived for DICOM
    files that its own chain writes differ from those of `genrecon replay` and `genrecon serve`. They are the same at
    every replay on that server. Three digits of each line's energy, of some of its samples, count: the last bits of
    prewhitened data may depend on the machine.
    """

    def __init__(self) -> None:
        self.text = ""

    def watch(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield all items; the digest is that of the first ReconData with a sample other than 0."""
        for item in items:
            if not self.text and isinstance(item, ReconData):
                self.text = _buffer_digest(item)
            yield item


def _buffer_digest(item: ReconData) -> str:
    digest = hashlib.sha256()
    measured = False
    for bit in item.bits:
        data = bit.data.data  # RO, E1, E2, CHA, N, S, LOC
        data = data[:: max(len(data) // SAMPLES_OF_A_LINE, 1)]
        coils = (data[:, :, :, channel] for channel in range(data.shape[3]))
        energy = sum((np.square(part.real) + np.square(part.imag)).sum(0, dtype=np.float64) for part in coils)
        total = float(np.sum(energy))
        if not total:
            continue
        measured = True
        for head, share in zip(bit.data.headers.flat, np.ravel(energy), strict=True):
            if head.number_of_samples:
                line = (head.measurement_uid, head.acquisition_time_stamp, *head.position, f"{share / total:.3g}")
                digest.update(repr(line).encode())
    return digest.hexdigest()[:32] if measured else ""
