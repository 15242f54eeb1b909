"""Partial readouts, filled up with zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisition_flags import is_noise
from gadgets.acquisitions import encoding_of, with_data
from gadgets.readouts import is_whole
from gadgets.stream import Gadget


class AsymmetricEchoAdjustROGadget(Gadget):
    """Fills a partial readout with zeros up to the encoded matrix, so that the echo is at its centre.

    In process readouts come whole already (`gadgets.readouts.WholeReadouts`): unlike the C++ gadget, which goes by the
    header's matrix, it leaves them as they are.
    """

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, ismrmrd.Acquisition) and not is_noise(item):
                item = self._centred(item)
            yield item

    def _centred(self, item: ismrmrd.Acquisition) -> ismrmrd.Acquisition:
        samples, centre = item.number_of_samples, item.center_sample
        full = encoding_of(self.header, item).encodedSpace.matrixSize.x
        if 2 * centre == samples or centre >= samples or samples >= full or is_whole(self.header, item):
            return item
        missing = full - samples
        before = 2 * centre < samples
        data = np.zeros((item.active_channels, full), dtype=np.complex64)
        data[:, missing if before else 0 :][:, :samples] = item.data
        return with_data(
            item,
            data,
            discard_pre=missing if before else 0,
            discard_post=0 if before else missing,
            center_sample=full // 2,
        )
