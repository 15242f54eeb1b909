"""White noise of samples: each slice has its own, whatever slices are reconstructed with it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


class SliceNoise:
    """Source of white noise for a batch of slices.

    Parameters
    ----------
    seed : int
        Seed of the reconstruction.
    sample : int
        Number of the posterior sample.
    keys : sequence of hashable
        What tells each slice of the scan from all others (slice, repetition, and its other counters), one a batch
        entry; equal keys get equal noise.
    device : torch.device
        Where the noise is drawn.
    """

    def __init__(self, seed: int, sample: int, keys: Sequence[Hashable], device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(_hash((seed, sample, key))) for key in keys]

    def __call__(self, like: Tensor) -> Tensor:
        """Noise of unit variance, in each of the real and imaginary parts of complex arrays.

        Parameters
        ----------
        like : Tensor
            Array of shape (batch, ...), as many entries as keys.

        Returns
        -------
        Tensor
            Of the shape and type of `like`.
        """
        entries = [
            torch.randn(like.shape[1:], dtype=like.dtype, device=like.device, generator=generator)
            for generator in self._generators
        ]
        noise = torch.stack(entries)
        return noise * math.sqrt(2) if like.is_complex() else noise


def _hash(value: Hashable) -> int:
    # torch's CPU generator looks at 32 bits of a seed.
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:4], "little")
