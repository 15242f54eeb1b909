"""Sampling masks by name: those of files, and patterns that are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.stream import ReconError, one_line
from pipelines.simulation.sampling import PATTERNS, Mask

Array = NDArray[Any]


def pattern_mask(text: str, shape: tuple[int, int], option: str) -> Mask:
    """Mask (y, x) of PATTERN:ACCELERATION. Raises ReconError, which names the option that the text is of."""
    name, _, factor = text.partition(":")
    try:
        acceleration = float(factor)
    except ValueError:
        acceleration = 0.0
    if name not in PATTERNS or not 1 <= acceleration <= 64:
        raise ReconError(
            f"{option} is '{text}'; give PATTERN:ACCELERATION, for instance poisson:4, with {', '.join(PATTERNS)} and "
            "1 to 64"
        )
    return PATTERNS[name](shape, acceleration)


def masks_of_file(text: str, shape: tuple[int, int]) -> Iterator[tuple[str, Array]]:
    """Masks of FILE or FILE:NAME; of a file with several those that fit are taken, a named one must."""
    path, name = Path(text), ""
    if not path.exists() and ":" in text:
        first, _, name = text.rpartition(":")
        path = Path(first)
    try:
        loaded = np.load(path, allow_pickle=False)
        masks = {path.stem: loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError) as error:
        raise ReconError(f"{path}: cannot be read as masks ({one_line(error)}); give .npy or .npz of bool") from None
    if name and name not in masks:
        raise ReconError(f"{path}: it has no mask '{name}'; it has {', '.join(masks)}")
    chosen = {name: masks[name]} if name else masks
    fitting = {key: mask.astype(bool) for key, mask in chosen.items() if mask.shape == shape}
    if not fitting:
        shapes = ", ".join(f"{key} {mask.shape}" for key, mask in chosen.items())
        raise ReconError(f"{path}: no mask of it is {shape} as the k-space; it has {shapes}")
    for key, mask in fitting.items():
        if not mask.any():
            raise ReconError(f"{path}: mask {key} is empty; give one with samples")
        yield key, mask
