"""Acquisitions of any size."""

from __future__ import annotations

import ismrmrd
import numpy as np


def acquisition(megabytes: float = 0.0) -> ismrmrd.Acquisition:
    """A line of 1024 samples in as many coils as that takes."""
    return ismrmrd.Acquisition.from_array(np.zeros((int(megabytes * 128), 1024), np.complex64))
