"""Sampling masks of phase encodings for benchmarks; the centre is fully sampled for calibration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipelines.simulation.simulate import poisson_disc

Mask = NDArray[np.bool_]


def poisson(shape: tuple[int, int], acceleration: float, seed: int = 1, centre: int = 24) -> Mask:
    """Poisson-disc mask (y, x) in two dimensions.

    Parameters
    ----------
    shape : (y, x)
    acceleration : samples of k-space over those measured, the centre included
    seed : of the pattern
    centre : fully sampled samples along y and x
    """
    mask = np.zeros(shape, bool)
    mask[tuple(_centre(n, centre) for n in shape)] = True
    wanted = max(round(mask.size / acceleration) - int(mask.sum()), 0)
    return mask | poisson_disc(~mask, wanted, np.random.default_rng(seed))


def uniform(shape: tuple[int, int], acceleration: float, seed: int = 1, centre: int = 24) -> Mask:
    """Every `acceleration`-th line (rounded), and as many lines at the centre as given; see `poisson`."""
    return _of_lines(np.arange(shape[0]) % max(round(acceleration), 1) == 0, shape, centre)


def random_lines(shape: tuple[int, int], acceleration: float, seed: int = 1, centre: int = 24) -> Mask:
    """Lines at random, uniformly, and as many lines at the centre as given; see `poisson`."""
    chosen = np.zeros(shape[0], bool)
    wanted = max(round(shape[0] / acceleration) - centre // 2, 0)
    chosen[np.random.default_rng(seed).choice(shape[0], wanted, replace=False)] = True
    return _of_lines(chosen, shape, centre)


def _of_lines(chosen: NDArray[np.bool_], shape: tuple[int, int], centre: int) -> Mask:
    chosen = chosen.copy()
    chosen[_centre(shape[0], centre)] = True
    return np.repeat(chosen[:, None], shape[1], axis=1)


def _centre(size: int, centre: int) -> slice:
    half = min(centre, size) // 2
    return slice(size // 2 - half, size // 2 + half)


PATTERNS: dict[str, Callable[..., Mask]] = {"poisson": poisson, "uniform": uniform, "random_lines": random_lines}
