"""The table of acquisitions of an ISMRMRD HDF5 file, as any writer lays it out."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from ismrmrd.hdf5 import acquisition_header_dtype
from numpy.lib.recfunctions import require_fields

Array = np.ndarray[Any, np.dtype[Any]]
NO_VALUES = np.zeros(0, np.float32)


class AcquisitionTable:
    """Rows of a data set in the types of the standard: columns and fields go by their names, those absent are 0.

    Parameters
    ----------
    data : of acquisitions in one dimension, or two of which one is 1 (MATLAB has no arrays of one dimension)

    Raises
    ------
    ValueError
        It holds no acquisitions.
    """

    def __init__(self, data: Any) -> None:
        names = (data.dtype.names or ()) if isinstance(data, h5py.Dataset) else ()
        if not {"head", "data"} <= set(names) or not data.dtype["head"].names:
            raise ValueError("no columns head and data")
        if data.ndim not in {1, 2} or (data.ndim == 2 and 1 not in data.shape):
            raise ValueError(f"{data.ndim} dimensions")
        self._data = data
        self._in_columns = data.ndim == 2 and data.shape[0] == 1
        self._columns = [name for name in ("data", "traj") if name in names]
        self._swapped = {name for name in self._columns if _is_big_endian(data, name)}

    def __len__(self) -> int:
        return int(self._data.size)

    def _read(self, data: Any, chosen: Any) -> Array:
        return np.ravel(data[0, chosen] if self._in_columns else data[chosen])

    def heads(self, chosen: Any = slice(None)) -> Array:
        """Headers of the rows at a slice or a list of places; no sample is read."""
        return _standard(self._read(self._data.fields("head"), chosen))

    def rows(self, chosen: Any) -> list[tuple[Any, Array, Array]]:
        """Header, samples and trajectory (both float32, one dimension) of the rows at a slice or a list of places."""
        block = self._read(self._data, chosen)
        columns = [self._values(block, name) for name in ("data", "traj")]
        return list(zip(_standard(block["head"]), *columns, strict=True))

    def _values(self, block: Array, name: str) -> list[Array]:
        if name not in self._columns:
            return [NO_VALUES] * len(block)
        rows = (np.ravel(row) for row in block[name])
        if name in self._swapped:
            rows = (row.byteswap() for row in rows)
        pairs = (row.astype(np.complex64).view(np.float32) if row.dtype.kind == "c" else row for row in rows)
        return [row.astype(np.float32, copy=False) for row in pairs]


def _standard(heads: Array) -> Array:
    return heads if heads.dtype == acquisition_header_dtype else require_fields(heads, acquisition_header_dtype)


def _is_big_endian(data: Any, name: str) -> bool:
    """Whether the rows of a column are big-endian: h5py gives their bytes as they are, as native ones."""
    table = data.id.get_type()
    column = table.get_member_type(table.get_member_index(name.encode()))
    values = column.get_super() if isinstance(column, h5py.h5t.TypeVlenID) else None
    return isinstance(values, h5py.h5t.TypeFloatID) and values.get_order() == h5py.h5t.ORDER_BE
