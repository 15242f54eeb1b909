"""Readout oversampling, cut off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisitions import encoding_of, with_data
from gadgets.stream import Gadget, ReconError
from gadgets.twins.fourier import centred_fft


class RemoveROOversamplingGadget(Gadget):
    """Cuts the readout's field of view to the reconstructed one: inverse FFT, keep the centre, FFT.

    Unlike the C++ gadget it looks at each acquisition's own encoding, not only the first one's.
    """

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, ismrmrd.Acquisition):
                encoding = encoding_of(self.header, item)
                encoded, recon = encoding.encodedSpace, encoding.reconSpace
                ratio = np.float32(encoded.fieldOfView_mm.x) / np.float32(recon.fieldOfView_mm.x)
                if encoded.matrixSize.x != recon.matrixSize.x or ratio != 1:
                    item = self._cut(item, ratio)
            yield item

    def _cut(self, item: ismrmrd.Acquisition, ratio: np.float32) -> ismrmrd.Acquisition:
        samples = item.number_of_samples

        def shortened(count: int) -> int:
            return int(np.float32(count) / ratio)  # in single precision, which decides where it is a close thing

        kept = shortened(samples)
        if not 0 < kept <= samples:
            raise ReconError(
                f"header: encoded field of view is smaller than the reconstructed one along the readout "
                f"({ratio:.3g} of it); correct encodedSpace or reconSpace"
            )
        start = (samples - kept) // 2
        image = centred_fft(item.data, inverse=True)[:, start : start + kept]
        return with_data(
            item,
            centred_fft(image),
            center_sample=shortened(item.center_sample),
            discard_pre=shortened(item.discard_pre),
            discard_post=shortened(item.discard_post),
        )
