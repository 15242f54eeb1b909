"""Noise covariances as Gadgetron 4.7 writes them."""

from __future__ import annotations

import json
import struct

import numpy as np


def covariance_blob(covariance, labels=("A", "B"), dwell=20.0, bandwidth=0.793, kind=7) -> bytes:
    """A covariance C = N N^H / (n - 1): Gadgetron holds its transpose, and writes that column by column."""
    count = len(covariance)
    meta = {
        "channels": count,
        "labels": list(labels),
        "noiseDwellTimeUs": dwell,
        "receiverNoiseBandwidth": bandwidth,
        "sampleCount": 384,
    }
    text = json.dumps(meta).encode()
    values = np.asarray(covariance).T.astype(np.complex64).tobytes(order="F")
    return b"SFNDAM" + struct.pack("<IIIQQQ", 1, kind, 2, count, count, len(text)) + values + text
