"""A kept scan as its client sent it, to be sent again."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

import h5py
import ismrmrd
import numpy as np

from gadgets.stream import ReconError
from pipelines.kept.scan import ARRIVES, SENT_CHAIN_FILE, KeptScan
from pipelines.raw.hdf5 import readable
from pipelines.raw.scan import noise_flags, open_source


class KeptRequest:
    """A kept scan as its client sent it. A context manager, which closes the raw file.

    Parameters
    ----------
    kept : the scan

    Attributes
    ----------
    config : name of the chain, or the chain
    texts : that follow the header
    header : ISMRMRD header
    noise_only : whether it is a noise measurement, which has no image

    Raises
    ------
    ReconError
        The scan still arrives, or its files cannot be read.
    """

    def __init__(self, kept: KeptScan) -> None:
        about = kept.about
        if about.state == ARRIVES:
            raise ReconError(f"{kept.folder}: the scan still arrives; wait until it has ended")
        self.config: bytes | str = about.config or ""
        if about.config is None:
            self.config = (kept.folder / SENT_CHAIN_FILE).read_bytes()
        self.texts = [text.encode("utf-8", "surrogateescape") for text in about.texts]
        if about.config == "" and self.texts:  # FIRE's JSON came in place of a chain
            self.config = self.texts.pop(0)
        self._source = open_source(kept.raw, "")
        self._path = kept.raw
        self.header = self._source.header_xml + b"\0" * about.of_fire
        self.noise_only = bool(noise_flags(self._source.heads()).all())

    def items(self) -> Iterator[Any]:
        """All waveforms, then all acquisitions, unchecked."""
        yield from self._waveforms()
        for _, acquisition in self._source.acquisitions():
            yield acquisition

    def _waveforms(self) -> Iterator[ismrmrd.Waveform]:
        if not h5py.is_hdf5(self._path):
            return
        with readable(self._path, "waveforms"), h5py.File(self._path, "r") as file:
            table = file.get("dataset/waveforms")
            for place in range(len(table) if table else 0):
                row = table[place]
                head = ismrmrd.WaveformHeader.from_buffer_copy(row["head"].tobytes())
                yield ismrmrd.Waveform(head, np.reshape(row["data"], (head.channels, head.number_of_samples)))

    def __enter__(self) -> KeptRequest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()
