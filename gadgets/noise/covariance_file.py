"""Noise covariances as Gadgetron keeps them: in its storage server, or in a file (its parameter noisecovarianceout).

The format is SFNDAM: b"SFNDAM", then little-endian uint32 version, type and number of dimensions, uint64 dimensions and
length of the metadata, the array, and the metadata as JSON.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np

from gadgets.noise.coils import Coil
from gadgets.noise.scan import NoiseScan
from gadgets.stream import ReconError

MAGIC = b"SFNDAM" + struct.pack("<I", 1)
TYPES = {7: "<c8", 8: "<c16"}
MOST_COILS = 4096


def read_covariance(content: bytes, what: str) -> NoiseScan:
    """The noise scan of the content of such a file.

    Coil labels have no numbers in it. Raises ReconError, which begins with `what`, for another content.
    """
    try:
        array, meta = _parts(content)
        labels = [str(label) for label in meta.get("labels") or []]
        coils = tuple(Coil(0, label.strip()) for label in labels)
        dwell, samples, bandwidth = (
            max(float(meta.get(name) or 0), 0.0)
            for name in ("noiseDwellTimeUs", "sampleCount", "receiverNoiseBandwidth")
        )
        if not all(map(math.isfinite, (dwell, samples, bandwidth))):
            raise ValueError("its metadata have no finite numbers")
    except (ValueError, TypeError, AttributeError, KeyError, struct.error, OverflowError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else "it is damaged"
        raise ReconError(
            f"{what}: this is no noise covariance of Gadgetron ({reason}); measure the noise again"
        ) from None
    return NoiseScan(
        array, int(samples), dwell, coils=coils if len(coils) == len(array) else (), bandwidth=bandwidth or None
    )


def _parts(content: bytes) -> tuple[Any, Any]:
    """Array and metadata. Raises ValueError, and what parsers raise, for a content of another form."""
    if content[: len(MAGIC)] != MAGIC:
        raise ValueError("it begins with other bytes")
    kind, dimensions = struct.unpack_from("<II", content, len(MAGIC))
    if kind not in TYPES or dimensions != 2:
        raise ValueError("it is no complex matrix")
    rows, columns, meta_size = struct.unpack_from("<QQQ", content, len(MAGIC) + 8)
    if rows != columns or not 0 < rows <= MOST_COILS:
        raise ValueError("its matrix is not square")
    start = len(MAGIC) + 8 + 24
    end = start + rows * rows * np.dtype(TYPES[kind]).itemsize
    if len(content) != end + meta_size:
        raise ValueError("it is cut off")
    # Gadgetron's matrix lies column by column and is that of N^H N, samples down: by rows it is N N^H, coils down.
    array = np.frombuffer(content[start:end], np.dtype(TYPES[kind])).reshape(rows, rows).astype(np.complex128)
    if not np.isfinite(array).all() or not np.allclose(array, array.conj().T, rtol=1e-3, atol=1e-3 * abs(array).max()):
        raise ValueError("its matrix is no covariance")
    return (array + array.conj().T) / 2, json.loads(content[end:])
