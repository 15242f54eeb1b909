"""What a scan has, from the headers of all of its acquisitions: known before the first sample only of a file."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from gadgets.acquisition_flags import is_calibration_only, is_for_images
from gadgets.acquisitions import IMAGE_COUNTERS

Array = np.ndarray[Any, np.dtype[Any]]


class Survey:
    """Counters of all lines for images of a scan.

    Parameters
    ----------
    heads : structured array of acquisition headers, as an ISMRMRD file has them
    """

    def __init__(self, heads: Array) -> None:
        chosen, calibration = lines_by_flags(heads["flags"])
        self._idx = heads["idx"][chosen]
        self._space = heads["encoding_space_ref"][chosen]
        self._calibration = calibration[chosen]

    def spaces(self) -> list[int]:
        """Encoding spaces that lines for images belong to."""
        return [int(space) for space in np.unique(self._space)]

    def values(self, counter: str, space: int | None = None) -> list[int]:
        """Distinct values of a counter in imaging lines, of one encoding space or of all, in order."""
        chosen = ~self._calibration
        if space is not None:
            chosen = chosen & (self._space == space)
        return [int(value) for value in np.unique(self._idx[counter][chosen])]

    def count(self, counter: str) -> int:
        """Highest value of a counter, plus one; 1 without an imaging line."""
        return max(self.values(counter), default=0) + 1

    def images(self, averaged: bool) -> int:
        """Number of images (volumes in 3D): combinations of counters and encoding space that imaging lines have.

        Parameters
        ----------
        averaged : whether all averages make one image
        """
        names = [name for name in IMAGE_COUNTERS if not (averaged and name == "average")]
        columns = [self._space, *(self._idx[name] for name in names)]
        return len(_distinct(columns, ~self._calibration)[0])

    def lines(self, *dimensions: str) -> Counter[tuple[int, ...]]:
        """Number of lines for each combination of values of counters, by Gadgetron's names (`none`, `user_0` ...)."""
        rows, counts = _distinct([self._column(name) for name in dimensions])
        return Counter({tuple(row): int(count) for row, count in zip(rows.tolist(), counts, strict=True)})

    def places(self, *dimensions: str) -> Counter[tuple[int, ...]]:
        """Number of different lines for each combination of values: each place of k-space counts once."""
        names = [name for name in self._idx.dtype.names or () if name != "user"]
        keys = [self._column(name) for name in dimensions]
        rows, _ = _distinct([*keys, self._space, self._calibration, *(self._idx[name] for name in names)])
        return Counter(tuple(row[: len(keys)]) for row in rows.tolist())

    def splits_images(self, dimension: str) -> bool:
        """Whether a counter changes within images: buckets sent at each change have a part of their lines."""
        values = self._column(dimension)[~self._calibration]
        return int((values[1:] != values[:-1]).sum()) + 1 > self.images(averaged=False)

    def _column(self, dimension: str) -> Array:
        if dimension.startswith("user_"):
            return np.asarray(self._idx["user"][:, int(dimension[5:])])
        if dimension == "encoding_space_ref":
            return np.asarray(self._space)
        if dimension in {"", "none", "n_acquisitions"}:
            return np.zeros(len(self._idx), dtype=np.uint16)
        return np.asarray(self._idx[dimension])


def lines_by_flags(flags: Array) -> tuple[Array, Array]:
    """Which acquisitions (line,) are for images, and which are calibration lines and nothing else: bool (line,)."""
    kinds, kind_of = np.unique(flags, return_inverse=True)
    kind_of = kind_of.reshape(len(flags))
    for_images = np.array([is_for_images(int(bits)) for bits in kinds], dtype=bool)
    calibration = np.array([is_calibration_only(int(bits)) for bits in kinds], dtype=bool)
    return for_images[kind_of], calibration[kind_of]


def _distinct(columns: list[Array], chosen: Array | None = None) -> tuple[Array, Array]:
    """Distinct rows of columns of counters, and how often each comes."""
    table = np.stack([np.asarray(column).astype(np.uint16) for column in columns], axis=1)
    table = table if chosen is None else table[chosen]
    rows, counts = np.unique(table, axis=0, return_counts=True)
    return rows, counts
