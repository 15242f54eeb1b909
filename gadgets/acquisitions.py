"""The counters and the encoding of an acquisition, from its header."""

from __future__ import annotations

from typing import Any

import ismrmrd
import numpy as np

from gadgets.stream import ReconError

Array = np.ndarray[Any, np.dtype[Any]]

COUNTERS = (
    "kspace_encode_step_1",
    "kspace_encode_step_2",
    "average",
    "slice",
    "contrast",
    "phase",
    "repetition",
    "set",
    "segment",
)

IMAGE_COUNTERS = ("slice", "contrast", "phase", "set", "repetition", "average")  # that tell images apart
MERGED_COUNTERS = ("slice", "contrast", "phase", "repetition", "set")  # likewise, where averages make one image


def calibration_mode(encoding: Any) -> str:
    """The calibration mode of an encoding, "" when the header gives none."""
    mode = encoding.parallelImaging.calibrationMode if encoding.parallelImaging else None
    return str(getattr(mode, "value", mode) or "")


def encoding_of(header: Any, acquisition: Any) -> Any:
    """The encoding an acquisition (or its header) belongs to. Raises ReconError when the header lacks it."""
    index = acquisition.encoding_space_ref
    if index >= len(header.encoding):
        raise ReconError(
            f"header: acquisition {acquisition.scan_counter} refers to encoding {index}, but it has only "
            f"{len(header.encoding)}; the raw data and its header do not belong together"
        )
    return header.encoding[index]


def counter_of(head: Any, dimension: str) -> int:
    """The value of a counter of a header, by Gadgetron's name for the dimension; 0 for those that are no counter."""
    if dimension in {"", "none", "n_acquisitions"}:
        return 0
    if dimension.startswith("user_"):
        return int(head.idx.user[int(dimension[5:])])
    return int(getattr(head.idx, dimension))


def signed_step(value: int) -> int:
    """A phase encoding counter whose negative values were written to the 16 bits without sign."""
    return value - 2**16 if value >= 2**15 else value


def phase_encodings(head: Any) -> tuple[int, int]:
    """kspace_encode_step_1 and _2 of a header, with sign."""
    idx = head.idx
    return signed_step(int(idx.kspace_encode_step_1)), signed_step(int(idx.kspace_encode_step_2))


def with_data(acquisition: ismrmrd.Acquisition, data: Array, **header_fields: int) -> ismrmrd.Acquisition:
    """A copy of an acquisition with other data (coil, sample) and changed header fields."""
    head = acquisition.getHead()
    head.active_channels, head.number_of_samples = data.shape
    for name, value in header_fields.items():
        setattr(head, name, value)
    return ismrmrd.Acquisition(head, np.ascontiguousarray(data, dtype=np.complex64), acquisition.traj)
