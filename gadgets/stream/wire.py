"""Items in the form that Gadgetron's protocol can carry: coil maps travel as one more ReconBit."""

from __future__ import annotations

from typing import Any

import ismrmrd
import numpy as np
from gadgetron.types import ImageArray, ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer

MAPS_MARK = 0x4D41_5053  # "MAPS" in user_int[0] of every header of a ReconBit that carries coil maps

# Where the coil maps of a ReconBit come from.
CALIBRATIONS = ("measured", "earlier repetition", "all repetitions", "completed")


def for_wire(item: Any) -> Any:
    """The item as gadgetron-python can send it.

    Arrays must be complex64 (with numpy 2 another type raises in the middle of a message), meta of image arrays must
    be ASCII, and coil maps, an attribute of a ReconBit in process, travel as one more ReconBit.
    """
    if isinstance(item, ReconData):
        for bit in item.bits:
            for buffer in (bit.data, bit.ref):
                if buffer is not None:
                    buffer.data = np.asarray(buffer.data, dtype=np.complex64)
                    for name in ("trajectory", "density"):
                        array = getattr(buffer, name)
                        if array is not None:
                            setattr(buffer, name, np.asarray(array, dtype=np.float32))
        return maps_to_bits(item)
    if isinstance(item, ImageArray):
        meta = [text.encode("ascii", "xmlcharrefreplace").decode() for text in item.meta]
        data = np.asarray(item.data, dtype=np.complex64)
        return ImageArray(data, item.headers, meta, item.waveform, item.acq_headers)
    return item


def from_wire(item: Any) -> Any:
    """The inverse of `for_wire`: coil maps become attributes again, received arrays are writable."""
    if isinstance(item, ReconData):
        return bits_to_maps(item)
    return item


def maps_to_bits(recon_data: ReconData) -> ReconData:
    """ReconData whose coil maps follow their ReconBit as one more ReconBit, marked in every header."""
    bits = []
    for bit in recon_data.bits:
        bits.append(bit)
        maps = getattr(bit, "coil_maps", None)
        if maps is None:
            continue
        header = ismrmrd.AcquisitionHeader()
        header.user_int[0] = MAPS_MARK
        header.user_int[1] = CALIBRATIONS.index(bit.calibration)
        headers = np.empty((maps.shape[1], maps.shape[2], *maps.shape[4:]), dtype=object)
        headers.fill(header)
        data = np.asarray(maps, dtype=np.complex64)
        bits.append(ReconBit(ReconBuffer(data, None, None, headers, bit.data.sampling)))
    return ReconData(bits)


def bits_to_maps(recon_data: ReconData) -> ReconData:
    """The inverse of `maps_to_bits`: the maps become the `coil_maps` attribute of the ReconBit they follow."""
    bits: list[ReconBit] = []
    for bit in recon_data.bits:
        headers = bit.data.headers
        if bits and headers.size and headers.flat[0].user_int[0] == MAPS_MARK:
            bits[-1].coil_maps = bit.data.data
            bits[-1].calibration = CALIBRATIONS[headers.flat[0].user_int[1]]
        else:
            bits.append(bit)
    return ReconData(bits)
