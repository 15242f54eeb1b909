"""HKGM: a prior that is learnt from one scan, by patches of its Hankel matrix, of its k-space or of its image."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor

from priors.learning.checkpoints import images_sha256
from priors.learning.training import TrainingSettings
from priors.signal.weighting import Weighting

PatchKind = Literal["image", "kspace", "hankel"]


def hankel_patches(weighted: Tensor, window: int, first: Tensor, patch: tuple[int, int]) -> Tensor:
    r"""Patches of the Hankel matrix of multi-coil k-space, without the matrix.

    Parameters
    ----------
    weighted : Tensor
        Complex k-space, shape (coil, y, x).
    window : int
        Width w of the square window in samples.
    first : Tensor
        First row and first column of every patch, integer, shape (patch, 2).
    patch : tuple of int
        Rows and columns of a patch.

    Returns
    -------
    Tensor
        Complex, shape (patch, row, column).

    Raises
    ------
    ValueError
        If a patch is not within the matrix.

    Notes
    -----
    A row of the matrix holds the samples of all coils within the window at one position, columns ordered (coil, wy,
    wx); positions go along x first and do not wrap around: 256 x 256 samples of 8 coils and windows of 8 x 8 make a
    matrix of 62001 x 512. Row and column each decide a part of the place of a sample in memory, so that a patch is one
    indexing by the sums of the two (Peng et al., IEEE TMI 2023).
    """
    rows, columns = hankel_shape(weighted.shape, window)
    last = first + torch.tensor(patch)
    if min(patch) < 1 or int(first.min()) < 0 or int(last[:, 0].max()) > rows or int(last[:, 1].max()) > columns:
        raise ValueError(f"hankel: a patch of {patch[0]} x {patch[1]} leaves the matrix of {rows} x {columns}")
    height, width = weighted.shape[-2:]
    across = width - window + 1
    row = first[:, :1] + torch.arange(patch[0])
    column = first[:, 1:] + torch.arange(patch[1])
    of_row = row // across * width + row % across
    coil, place = column // window**2, column % window**2
    of_column = coil * height * width + place // window * width + place % window
    index = of_row[:, :, None] + of_column[:, None, :]
    return weighted.flatten()[index.to(weighted.device)]


def hankel_shape(shape: tuple[int, ...], window: int) -> tuple[int, int]:
    """Rows and columns of the Hankel matrix of k-space of shape (..., coil, y, x), whose window does not wrap around.

    Raises
    ------
    ValueError
        If the window does not fit.
    """
    coils, height, width = shape[-3:]
    if not 1 <= window <= min(height, width):
        raise ValueError(f"hankel: window {window} does not fit into k-space of {height} x {width} samples")
    return (height - window + 1) * (width - window + 1), coils * window**2


class ScanPatches:
    """Examples of one scan that see k-space itself: patches of its Hankel matrix, as published, or of its k-space.

    Parameters
    ----------
    kspace : Tensor
        Coil k-space of images of maximum 1, complex, shape (slice, coil, y, x).
    weighting : Weighting
        Weighting of k-space.
    settings : TrainingSettings
        Of which `crop` (rows and columns of a patch, at most those there are) and the scale of `augmentation` are
        looked at; every patch has a random phase.
    kind : {"hankel", "kspace"}
        What is cut into patches.
    window : int
        Width of the window of the Hankel matrix.

    Raises
    ------
    ValueError
        If the k-space is not usable or the window does not fit.
    """

    def __init__(
        self, kspace: Tensor, weighting: Weighting, settings: TrainingSettings, kind: PatchKind, window: int = 8
    ) -> None:
        if kspace.ndim != 4 or not kspace.is_complex() or not len(kspace):
            raise ValueError(f"training: {kspace.dtype} array of {tuple(kspace.shape)} is not (slice, coil, y, x)")
        self.sha256 = images_sha256(kspace)
        self.description: dict[str, Any] = {"weighting": asdict(weighting), "patches": kind, "window": window}
        self._weighted = weighting.weight(kspace.to(torch.complex64))
        self._settings, self._kind, self._window = settings, kind, window
        shape = hankel_shape(kspace.shape, window) if kind == "hankel" else tuple(kspace.shape[-2:])
        self._room = torch.tensor([max(size - settings.crop, 0) for size in shape]) + 1
        self._patch = (min(settings.crop, shape[0]), min(settings.crop, shape[1]))

    def to(self, device: torch.device) -> None:
        """Move the k-space to a device."""
        self._weighted = self._weighted.to(device)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Random examples, complex64, shape (batch, row, column)."""
        slices = torch.randint(len(self._weighted), (batch,), generator=generator).tolist()
        first = (torch.rand(batch, 2, generator=generator) * self._room).long()
        coils = torch.randint(self._weighted.shape[1], (batch,), generator=generator).tolist()
        low, high = self._settings.augmentation.scale
        factor = low + (high - low) * torch.rand(batch, generator=generator)
        factor = torch.polar(factor, 2 * math.pi * torch.rand(batch, generator=generator))
        patches = [
            hankel_patches(self._weighted[number], self._window, place[None], self._patch)[0]
            if self._kind == "hankel"
            else self._crop(self._weighted[number, coil], place)
            for number, coil, place in zip(slices, coils, first, strict=True)
        ]
        return torch.stack(patches) * factor[:, None, None].to(self._weighted.device)

    def _crop(self, plane: Tensor, place: Tensor) -> Tensor:
        y, x = place.tolist()
        return plane[y : y + self._patch[0], x : x + self._patch[1]]
