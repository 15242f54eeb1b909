"""Arrays that users give to the public functions, checked and as tensors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def batch_of(kspace: ArrayLike, mask: ArrayLike | None) -> tuple[Tensor, Tensor, bool]:
    """K-space (slice, coil, y, x), zero where not measured, mask (slice, 1, y, x), whether it was one slice alone.

    Raises ValueError where shapes or types do not fit, samples are not finite, or a slice has none.
    """
    data = tensor_of(kspace, "k-space")
    if data.ndim not in (3, 4) or not data.is_complex():
        raise ValueError(f"k-space: {described(data)} is not complex (coil, y, x) or (slice, coil, y, x)")
    data = data.to(torch.complex64)
    alone = data.ndim == 3
    data = data[None] if alone else data
    if mask is None:
        sampled = (data != 0).any(1)
    else:
        sampled = tensor_of(mask, "mask").to(torch.bool)
        if tuple(sampled.shape) not in (tuple(data.shape[-2:]), (len(data), *data.shape[-2:])):
            raise ValueError(f"mask: shape {tuple(sampled.shape)} does not fit k-space of {tuple(data.shape)}")
        sampled = sampled.expand(len(data), *data.shape[-2:])
    data = torch.where(sampled[:, None], data, 0)
    if not bool(torch.isfinite(torch.view_as_real(data)).all()):
        raise ValueError("k-space: it has NaN or infinite samples; correct them, or leave them out by the mask")
    empty = [number for number, one in enumerate(data) if not bool((one != 0).any())]
    if empty:
        raise ValueError(f"k-space: slice {empty[0]} has no measured sample; there is nothing to reconstruct from")
    return data, sampled[:, None], alone


def tensor_of(array: ArrayLike, name: str) -> Tensor:
    """An array of numbers as a tensor on the CPU. Raises ValueError, which names the array."""
    if isinstance(array, Tensor):
        return array.detach().cpu()
    found = np.array(array)
    if found.dtype.kind not in "biufc" or found.dtype.itemsize > 16:
        raise ValueError(f"{name}: {found.dtype} is no array of numbers of single or double precision")
    return torch.from_numpy(found.astype(found.dtype.newbyteorder("="), copy=False))


def described(array: Tensor) -> str:
    """Type and shape of an array, for messages."""
    return f"{str(array.dtype).removeprefix('torch.')} of shape {tuple(array.shape)}"
