"""Sampling masks of the stability suite."""

from __future__ import annotations

import functools
import math

import numpy as np

from pipelines.simulation.sampling import PATTERNS, Mask, poisson, poisson_disc

ACCELERATIONS = (2, 4, 6, 8, 12)
OTHER_PATTERNS = (("uniform", 4), ("random_lines", 4))
NESTED = (12, 8, 6, 4, 3, 2)


def centre_size(shape: tuple[int, int]) -> int:
    """Samples of the fully sampled centre along an axis: 24, or what takes half of the samples of the sparsest mask."""
    return min(24, max(4, 2 * int(math.sqrt(math.prod(shape) / NESTED[0] / 2) / 2)), *shape)


@functools.lru_cache(maxsize=4)
def other_masks(shape: tuple[int, int]) -> dict[str, Mask]:
    """Masks (y, x) by PATTERN:ACCELERATION that the methods are tried with."""
    wanted = [*(("poisson", acceleration) for acceleration in ACCELERATIONS), *OTHER_PATTERNS]
    return {f"{name}:{factor}": PATTERNS[name](shape, factor, centre=centre_size(shape)) for name, factor in wanted}


@functools.lru_cache(maxsize=4)
def nested_masks(shape: tuple[int, int]) -> dict[str, Mask]:
    """Poisson-disc masks (y, x), each the one before with samples added, of the accelerations `NESTED`."""
    mask = poisson(shape, NESTED[0], centre=centre_size(shape))
    masks = {f"poisson:{NESTED[0]}": mask}
    random = np.random.default_rng(1)
    for acceleration in NESTED[1:]:
        mask = mask | poisson_disc(~mask, round(mask.size / acceleration) - int(mask.sum()), random)
        masks[f"poisson:{acceleration}"] = mask
    return masks
