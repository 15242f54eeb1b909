"""Sampling patterns of phase encodings: of simulated scans, and masks for benchmarks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipelines.simulation.settings import SimulationSettings

Mask = NDArray[np.bool_]


def poisson(shape: tuple[int, int], acceleration: float, seed: int = 1, centre: int = 24) -> Mask:
    """Poisson-disc mask (y, x) with a fully sampled centre.

    Parameters
    ----------
    shape : (y, x)
    acceleration : size of k-space over the number of samples, the centre included
    seed : of the pattern
    centre : fully sampled samples along y and x
    """
    mask = np.zeros(shape, bool)
    mask[tuple(_centre(n, centre) for n in shape)] = True
    wanted = max(round(mask.size / acceleration) - int(mask.sum()), 0)
    return mask | poisson_disc(~mask, wanted, np.random.default_rng(seed))


def uniform(shape: tuple[int, int], acceleration: float, seed: int = 1, centre: int = 24) -> Mask:
    """Every `acceleration`-th line (rounded), and `centre` lines in the middle; see `poisson`."""
    return _of_lines(np.arange(shape[0]) % max(round(acceleration), 1) == 0, shape, centre)


def random_lines(shape: tuple[int, int], acceleration: float, seed: int = 1, centre: int = 24) -> Mask:
    """Lines at random, uniformly, and `centre` lines in the middle; see `poisson`."""
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


def poisson_disc(
    allowed: NDArray[np.bool_], samples: int, rng: np.random.Generator, density_slope: float = 1.5
) -> NDArray[np.bool_]:
    """Choose samples of a variable density Poisson-disc pattern.

    SigPy's `poisson` takes neither an exact number of samples nor a mask of positions that may be sampled.

    Candidates are visited in random order and taken when no taken sample lies within a radius that grows from
    the centre outward, r(d) = r0 (1 + density_slope d), d being the distance from the centre relative to the
    edge. r0 is found by bisection, the largest that gives enough samples (dart throwing after Cook, ACM
    Trans. Graph. 5, 1986).

    Parameters
    ----------
    allowed
        (E1, E2) bool, where samples may be taken.
    samples
        Number of samples wanted, at most the number allowed.
    rng
        Source of the order.
    density_slope
        How much sparser the edge is than the centre.

    Returns
    -------
    (E1, E2) bool with exactly `samples` true.
    """
    if samples < 1:
        return np.zeros(allowed.shape, bool)
    height, width = allowed.shape
    e1, e2 = np.mgrid[:height, :width]
    distance = np.hypot((e1 - height // 2) / (height / 2), (e2 - width // 2) / (width / 2))
    stretch = 1 + density_slope * np.minimum(distance, 1)
    order = rng.permutation(np.flatnonzero(allowed))

    def throw(radius: float) -> list[int]:
        """Take candidates in order until there are enough."""
        blocked = np.zeros(allowed.shape, bool)
        taken: list[int] = []
        for candidate in order.tolist():
            row, column = divmod(candidate, width)
            if blocked[row, column]:
                continue
            taken.append(candidate)
            if len(taken) == samples:
                break
            reach = radius * stretch[row, column]
            n = math.floor(reach)
            rows = slice(max(0, row - n), row + n + 1)
            columns = slice(max(0, column - n), column + n + 1)
            blocked[rows, columns] |= np.hypot(e1[rows, columns] - row, e2[rows, columns] - column) <= reach
        return taken

    low, high, best = 0.0, float(max(height, width)), throw(0.0)
    while high - low > 0.005:
        middle = (low + high) / 2
        taken = throw(middle)
        if len(taken) == samples:
            low, best = middle, taken
        else:
            high = middle
    pattern = np.zeros(allowed.size, bool)
    pattern[best] = True
    return pattern.reshape(allowed.shape)


def variable_density(allowed: NDArray[np.bool_], samples: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Random samples whose density falls with the square of the distance from the edge."""
    height, width = allowed.shape
    e1, e2 = np.mgrid[:height, :width]
    across = 0 if width == 1 else (e2 - width // 2) / (width / 2)
    distance = np.hypot((e1 - height // 2) / (height / 2), across)
    candidates = np.flatnonzero(allowed)
    weight = ((1 - np.minimum(distance, 1)) ** 2 + 0.05).ravel()[candidates]
    pattern = np.zeros(allowed.size, bool)
    pattern[rng.choice(candidates, max(0, samples), replace=False, p=weight / weight.sum())] = True
    return pattern.reshape(allowed.shape)


def calibration_mask(settings: SimulationSettings) -> NDArray[np.bool_]:
    """Calibration block (E1, E2) of a scan on the encoded grid."""
    _, ny, nz = settings.matrix
    mask = np.zeros((ny, nz), bool)
    lines, lines_e2 = settings.calibration_shape
    begin, begin_e2 = ny // 2 - lines // 2, nz // 2 - lines_e2 // 2
    mask[begin : begin + lines, begin_e2 : begin_e2 + lines_e2] = True
    return mask


def sampling_masks(settings: SimulationSettings, calibration_mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Imaging lines (repetition, E1, E2) on the encoded grid."""
    _, ny, nz = settings.matrix
    _, skipped, skipped_e2 = settings.omitted
    available = np.zeros((ny, nz), bool)
    available[skipped:, skipped_e2:] = True
    if settings.sampling in ("full", "uniform"):
        step, step_e2 = round(settings.acceleration), settings.acceleration_e2
        on_grid_e2 = (np.arange(nz) - nz // 2) % step_e2 == 0
        masks = []
        for repetition in range(settings.repetitions):
            shift = repetition if settings.calibration == "interleaved" else 0
            on_grid = (np.arange(ny) - ny // 2 - shift) % step == 0
            masks.append(available & on_grid[:, None] & on_grid_e2)
        return np.stack(masks)
    rng = np.random.default_rng([settings.seed, 6])
    centre = calibration_mask if settings.calibration == "embedded" else np.zeros_like(calibration_mask)
    outside = available & ~centre
    samples = min(round(available.sum() / settings.acceleration), int(available.sum())) - int(centre.sum())
    if settings.sampling == "poisson":
        chosen = poisson_disc(outside, samples, rng) if samples > 0 else np.zeros_like(outside)
    else:
        chosen = variable_density(outside, samples, rng)
    return np.repeat((chosen | centre)[None], settings.repetitions, axis=0)
