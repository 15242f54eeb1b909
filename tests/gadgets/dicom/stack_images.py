"""Images of slices at known places, and their frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from gadgets.dicom.datasets import dicom_datasets
from gadgets.dicom.frames import Frames
from gadgets.dicom.instance_numbers import InstanceNumbers
from tests.gadgets.dicom.dicom_images import make_header, make_image, quiet

NORMAL = np.array((-np.sin(0.3), np.cos(0.3), 0.0))  # slice_dir of `make_image`
START = np.array((20.0, -66.5, 7.25))  # its position

OPEN: list[Frames] = []  # the fixture `closed_frames` closes them


def at(along: float, data: Any = None, **fields: Any) -> Any:
    """An image `along` mm further on along the normal."""
    return make_image(data, position=tuple(START + along * NORMAL), **fields)


def frames_of(*images: Any, header: Any = None, parameters: Any = None) -> Frames:
    """The frames of images."""
    header, frames = header or make_header(), Frames()
    OPEN.append(frames)
    numbers = InstanceNumbers(header)
    for image in images:
        frames.add(image, dicom_datasets(image, header, parameters, quiet, "scan", numbers), True)
    return frames
