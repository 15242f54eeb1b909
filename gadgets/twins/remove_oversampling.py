"""Readout oversampling, cut off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisitions import encoding_of, with_data
from gadgets.readouts import is_block_of_its_own, is_whole, readout_extent
from gadgets.stream import Gadget, ReconError
from gadgets.twins.field_of_view import centre_shift
from gadgets.twins.fourier import centred_fft


class RemoveROOversamplingGadget(Gadget):
    """Cuts the readout's field of view to the reconstructed one: inverse FFT, keep the centre, FFT.

    Unlike the C++ gadget it looks at each acquisition's own encoding, not only the first one's, and where a readout has
    not the header's number of samples it takes the oversampling from the samples that came.
    """

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            yield self._without_oversampling(item) if isinstance(item, ismrmrd.Acquisition) else item

    def _without_oversampling(self, item: ismrmrd.Acquisition) -> ismrmrd.Acquisition:
        encoding = encoding_of(self.header, item)
        encoded, recon = encoding.encodedSpace, encoding.reconSpace
        samples, matrix = item.number_of_samples, encoded.matrixSize.x
        own_block = is_block_of_its_own(self.header, item) and samples < matrix
        if samples != matrix and not own_block and is_whole(self.header, item):
            return self._cut_by_samples(item, encoding)
        ratio = np.float32(encoded.fieldOfView_mm.x) / np.float32(recon.fieldOfView_mm.x)
        if matrix == recon.matrixSize.x and ratio == 1:
            return item

        def shortened(count: int) -> int:
            return int(np.float32(count) / ratio)  # in single precision, which decides where it is a close thing

        kept = shortened(samples)
        if not 0 < kept <= samples:
            raise ReconError(
                f"header: encoded field of view is smaller than the reconstructed one along the readout "
                f"({ratio:.3g} of it); correct encodedSpace or reconSpace"
            )
        return _cut(
            item, (samples - kept) // 2, [shortened(n) for n in (samples, item.center_sample, *_discarded(item))]
        )

    @staticmethod
    def _cut_by_samples(item: ismrmrd.Acquisition, encoding: Any) -> ismrmrd.Acquisition:
        """Cut a whole readout that has not the header's number of samples."""
        samples, recon = item.number_of_samples, encoding.reconSpace.fieldOfView_mm.x
        ratio = readout_extent(encoding, samples) / recon
        kept = min(round(samples / ratio), samples)
        # The pixel at the centre moves as in a readout of the header's matrix, from which the image's header has it.
        moved = centre_shift(encoding.encodedSpace.matrixSize.x, kept)
        if kept == samples and not moved:
            return item
        start = samples // 2 - kept // 2 - moved
        return _cut(item, start, [kept, kept // 2, *(int(count / ratio) for count in _discarded(item))])


def _discarded(item: ismrmrd.Acquisition) -> tuple[int, int]:
    return item.discard_pre, item.discard_post


def _cut(item: ismrmrd.Acquisition, start: int, sizes: list[int]) -> ismrmrd.Acquisition:
    """A readout's field of view from pixel `start` on; `sizes`: new samples, center_sample, discard_pre and _post."""
    samples, centre, discard_pre, discard_post = sizes
    image = centred_fft(item.data, inverse=True).take(range(start, start + samples), axis=1, mode="wrap")
    return with_data(item, centred_fft(image), center_sample=centre, discard_pre=discard_pre, discard_post=discard_post)
