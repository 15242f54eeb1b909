"""Which part of k-space was acquired, and which missing samples mirror an acquired one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Acquired:
    """Samples of one axis of k-space from the first to the last acquired one.

    Parameters
    ----------
    size : int
        Samples of the axis; the centre of k-space is at size // 2, which must be among those acquired.
    first, stop : int
        First acquired sample, and the one behind the last.

    Raises
    ------
    ValueError
        If the centre is not between them.
    """

    size: int
    first: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.size // 2 < self.stop <= self.size:
            raise ValueError(f"acquired samples {self.first} to {self.stop - 1} of {self.size} do not hold the centre")

    @property
    def short(self) -> int:
        """Samples from the centre to the near end: the centre is symmetric to less than that far."""
        return min(self.size // 2 - self.first, self.stop - 1 - self.size // 2)

    @property
    def missing(self) -> slice:
        """Missing samples that have an acquired one on the other side of the centre."""
        centre = self.size // 2
        low = max(2 * centre - (self.stop - 1), 0)
        high = min(2 * centre - self.first + 1, self.size)
        return slice(low, self.first) if low < self.first else slice(self.stop, max(high, self.stop))

    @property
    def partial(self) -> bool:
        """Whether there are such samples."""
        return self.missing.stop > self.missing.start

    @property
    def fraction(self) -> float:
        """Acquired samples over those that there would be with the missing ones."""
        came = self.stop - self.first
        return came / (came + self.missing.stop - self.missing.start)


def partial_axes(acquired: Sequence[Acquired]) -> list[int]:
    """Indices, from the end, of the axes that have missing samples."""
    return [index - len(acquired) for index, one in enumerate(acquired) if one.partial]


def missing_samples(acquired: Sequence[Acquired], device: torch.device | str = "cpu") -> Tensor:
    """Samples outside the acquired part whose mirror image about the centre is inside.

    Parameters
    ----------
    acquired : sequence of Acquired
        Acquired part of each axis.
    device : torch.device or str
        Device of the result.

    Returns
    -------
    Tensor
        bool, one axis each; axes without missing samples have length 1, to broadcast.
    """
    inside = mirrored = torch.ones([1] * len(acquired), dtype=torch.bool, device=device)
    for axis, one in enumerate(acquired):
        if not one.partial:
            continue
        place = torch.arange(one.size, device=device)
        mirror = 2 * (one.size // 2) - place
        shape = [-1 if other == axis else 1 for other in range(len(acquired))]
        inside = inside & ((place >= one.first) & (place < one.stop)).reshape(shape)
        mirrored = mirrored & ((mirror >= one.first) & (mirror < one.stop)).reshape(shape)
    return mirrored & ~inside
