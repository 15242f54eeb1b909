"""Buffers whose readouts still have their oversampling, because the header does not tell of it."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
from gadgetron.types.recon_data import ReconBit, ReconBuffer

from gadgets.readouts import readout_extent, samples_without_oversampling
from gadgets.stream import ReconError
from gadgets.twins.fourier import centred_fft

log = logging.getLogger("genrecon")


def without_oversampling(bit: ReconBit, encoding: Any) -> ReconBit:
    """The bit with its readouts cut to the reconstructed field of view where their samples contradict the header.

    In process the twin RemoveROOversamplingGadget has done that. The gadget of a real Gadgetron goes by the header: if
    that gives the encoded space at the base resolution, it cuts nothing; if that has an oversampling which the lines
    have not, it cuts the object.

    Raises
    ------
    ReconError
        Header and samples contradict each other in a way that cannot be decided.
    """
    samples, kept = bit.data.data.shape[0], samples_without_oversampling(encoding)
    if samples in {0, encoding.encodedSpace.matrixSize.x, kept}:
        return bit
    if samples < kept - 1:  # Gadgetron rounds down
        raise ReconError(
            f"buffers have readouts of {samples} samples, the reconstructed field of view {kept}: an oversampling that "
            "the lines do not have was cut; correct encodedSpace in the header to the lines"
        )
    ratio = readout_extent(encoding, samples) / encoding.reconSpace.fieldOfView_mm.x
    if samples <= encoding.encodedSpace.matrixSize.x or round(samples / ratio) != kept:
        return bit
    log.warning(
        "buffers have readouts of %d samples, the header's encoded matrix is %d: they are taken as oversampled and cut "
        "to %d; correct encodedSpace in the header",
        samples,
        encoding.encodedSpace.matrixSize.x,
        kept,
    )
    buffers = [_cut(buffer, kept) for buffer in (bit.data, bit.ref) if buffer is not None and _has(buffer, samples)]
    if bit.ref is not None and len(buffers) < 2:
        raise ReconError(
            f"buffers have readouts of {samples} samples, those of the calibration {bit.ref.data.shape[0]}, and the "
            "header does not tell of oversampling; correct encodedSpace in the header"
        )
    return ReconBit(*buffers, *[None] * (2 - len(buffers)))


def _has(buffer: ReconBuffer, samples: int) -> bool:
    return bool(buffer.data.shape[0] == samples)


def _cut(buffer: ReconBuffer, kept: int) -> ReconBuffer:
    samples = buffer.data.shape[0]
    start = samples // 2 - kept // 2
    data = centred_fft(centred_fft(buffer.data, (0,), inverse=True)[start : start + kept], (0,))
    headers = np.empty(buffer.headers.shape, dtype=object)
    for place, head in np.ndenumerate(buffer.headers):
        headers[place] = copy.copy(head)
        if head.number_of_samples:
            headers[place].number_of_samples, headers[place].center_sample = kept, kept // 2
            headers[place].discard_pre = headers[place].discard_post = 0
    return ReconBuffer(data, buffer.trajectory, buffer.density, headers, buffer.sampling)
