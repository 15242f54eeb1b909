"""Small fastMRI files, and ISMRMRD files of the same lines."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.raw_files import BALL, header, kspace, lines, write

NOWHERE = ((0.0, 0.0, 0.0),) * 3  # directions that are not known
SPACING = 5.0  # mm, slice thickness of `tests.raw_files.header`


@cache
def two_slices() -> Any:
    """k-space (slice, coil, phase, read) of a ball with a marker and one without."""
    return np.stack([kspace(), kspace(objects=(BALL,))])


def write_fastmri(path: Path, data: Any, text: str | None = None, **more: Any) -> Path:
    """A fastMRI file of k-space (slice, coil, phase, read) or (slice, phase, read); `more` are datasets or attributes.

    Datasets are arrays, attributes are texts.
    """
    with h5py.File(path, "w") as file:
        file["kspace"] = np.swapaxes(data, -1, -2).astype(np.complex64)
        if text is not None:
            file["ismrmrd_header"] = text
        for name, value in more.items():
            if isinstance(value, str):
                file.attrs[name] = value
            else:
                file[name] = value
    return path


def write_twin(path: Path, data: Any, text: str | None = None, steps: Any = None, first: int = 0) -> Path:
    """An ISMRMRD file of k-space (slice, coil, phase, read): the phase encodings `steps`, counted from -`first`."""
    found = []
    for number, one in enumerate(data):
        for line in lines(one, steps, slice=number, position=(0, 0, SPACING * number), axes=NOWHERE):
            line.idx.kspace_encode_step_1 -= first
            found.append(line)
    return write(path, (text or header(limits={"slice": (0, len(data) - 1, 0)}), found))
