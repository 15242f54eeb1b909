"""Shading by surface coils: a smooth field of intensities, found in the image itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter, median_filter
from torch import Tensor

CELLS = 80  # of the coarse grid of a slice along each axis
CELLS_3D = 36  # of a volume
LEAST_CELLS_3D = 16  # of it: edges of thicker partitions are too many
ORDER = 4  # highest of the cosines
CELLS_PER_ORDER = 6  # along an axis
STEPS = (1, 2, 3)  # distances of the cells whose difference is looked at
OBJECT = 0.08  # of the 99th percentile of the magnitudes: above it there is signal
AIR = 3.0  # times the median of the cells below that: noise would raise the darkest tissue
MARGIN = 2  # cells along the rim of the object, which hold air too
LEAST_CELLS = 100  # of the object
LEAST_DIFFERENCES = 40  # for each cosine
SMALLEST_SCALE = 0.02  # of the differences of log intensities between neighbouring cells
RIDGE = 1e-2
ITERATIONS = 25
WIDE = 5  # of them, the first, with a wide scale
UNCHANGED = 1e-4  # of the factors: a gain that is known to 0.01 %
STRONGEST = 4.0  # largest gain; the least is its inverse

Values = NDArray[np.float64]


@dataclass(frozen=True)
class ShadingField:
    """Gain that takes the shading out of images of one slice or volume, on a coarse grid.

    Parameters
    ----------
    logarithm : float32 (z, y, x), of the gain; its mean in the object is 0
    spread : standard deviation of the shading in the object, in units of log intensity
    """

    logarithm: Tensor
    spread: float

    @property
    def limits(self) -> tuple[float, float]:
        """Least and largest gain."""
        return float(self.logarithm.min().exp()), float(self.logarithm.max().exp())

    def gain(self, shape: tuple[int, ...]) -> Tensor:
        """Gain of images of a shape (z, y, x), float32; corrected images are image x gain."""
        fine = torch.nn.functional.interpolate(self.logarithm[None, None], size=shape, mode="trilinear")
        return fine[0, 0].exp()


def fit_shading(images: Tensor) -> ShadingField | None:
    r"""Find the shading of an image by the changes of intensity within its tissues.

    Parameters
    ----------
    images : Tensor
        Real or complex (z, y, x) of any unit; z is 1 for a slice. A 3D volume is one problem.

    Returns
    -------
    ShadingField or None
        None where the image holds too little to tell: no signal, an object of a few pixels, a volume of few partitions.

    Notes
    -----
    Image = object x shading. The object is nearly constant within a tissue and has edges between tissues; the shading b
    changes everywhere, slowly. With log b a sum of cosines :math:`\phi_k` of low order,

    .. math:: \min_c \sum_{(i,j)} \rho\left(\log v_i - \log v_j - \sum_k c_k (\phi_k(i) - \phi_k(j))\right)
        + \lambda \sum_k d_k^4 c_k^2,

    over pairs of cells one to three apart, with :math:`\rho(r) = r^2 / (s^2 + r^2)` (Geman and McClure), for which an
    edge is an outlier; iteratively reweighted least squares, s from the median of the residuals. Sparse gradients of
    the object are the model of Zheng and Gee, "Estimation of image bias field with sparsity constraints", CVPR 2010.
    Where the object is flat no gradient is common to its cells, and the field is 0.

    Outside of the object the gain is that of the nearest cell of it; it is from 1/4 to 4. The field does not know
    shading by coils from an intensity that really changes slowly, such as contrast agent that has come only half-way.
    """
    magnitude = images.abs().to(torch.float32)
    cells = CELLS if len(images) == 1 else CELLS_3D
    size = (min(images.shape[0], cells), min(images.shape[1], cells), min(images.shape[2], cells))
    coarse = torch.nn.functional.adaptive_avg_pool3d(magnitude[None, None], size)
    if len(images) > 1 and min(size) < LEAST_CELLS_3D:
        return None
    small: Values = coarse[0, 0].numpy().astype(np.float64)
    level = float(np.percentile(small, 99))
    if not (np.isfinite(level) and level > 0):
        return None
    smooth = median_filter(small, size=[min(3, n) for n in small.shape])
    air = smooth[smooth <= OBJECT * level]
    inside = smooth > max(OBJECT * level, AIR * float(np.median(air)) if len(air) else 0.0)
    core = _eroded(inside)
    cosines, degrees = _cosines(small.shape)
    if not len(degrees) or np.count_nonzero(core) < LEAST_CELLS:
        return None
    logarithm = np.log(np.maximum(small, 1e-3 * OBJECT * level))
    differences, changes, weights = _differences(logarithm, cosines, core)
    if len(differences) < LEAST_DIFFERENCES * len(degrees):
        return None
    factors = _robust(differences, changes, weights, degrees)
    field = cosines @ factors
    field -= field[core].mean()
    spread = float(field[core].std())
    outside = distance_transform_edt(~core, return_distances=False, return_indices=True)
    held = gaussian_filter(field[tuple(outside)], [1.5 if n > 1 else 0.0 for n in field.shape], mode="nearest")
    limit = np.log(STRONGEST)
    gain = np.where(core, -field, -held).clip(-limit, limit)
    return ShadingField(torch.from_numpy(gain.astype(np.float32)), spread)


def _eroded(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The object without its rim; axes of one cell have none."""
    element = np.zeros((3, 3, 3), dtype=bool)
    for axis, size in enumerate(inside.shape):
        place: list[int | slice] = [1, 1, 1]
        place[axis] = slice(None) if size > 1 else 1
        element[tuple(place)] = True
    eroded: NDArray[np.bool_] = binary_erosion(inside, element, iterations=MARGIN, border_value=1)
    return eroded


def _cosines(shape: tuple[int, ...]) -> tuple[Values, Values]:
    """Cosines (z, y, x, k) of low order on a grid, without the constant, and their squared frequencies (k)."""
    orders = [
        order
        for order in product(*(range(min(ORDER, n // CELLS_PER_ORDER) + 1) for n in shape))
        if 0 < sum(order) <= ORDER
    ]
    grids = np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")
    waves = [
        np.prod([np.cos(np.pi * k * grid) for k, grid in zip(order, grids, strict=True)], axis=0) for order in orders
    ]
    degrees = np.array([sum(k * k for k in order) for order in orders], dtype=np.float64)
    return np.stack(waves, axis=-1) if waves else np.zeros((*shape, 0)), degrees


def _differences(values: Values, cosines: Values, core: NDArray[np.bool_]) -> tuple[Values, Values, Values]:
    """Changes of the values and of the cosines a cell, between cells of the object, and the weights of the pairs."""
    found: list[tuple[Values, Values, Values]] = []
    for axis, step in product(range(values.ndim), STEPS):
        if step >= values.shape[axis]:
            continue
        one, other = (np.arange(step, values.shape[axis]), np.arange(values.shape[axis] - step))
        both = core.take(one, axis) & core.take(other, axis)
        changes = (cosines.take(one, axis) - cosines.take(other, axis))[both] / step
        found.append(
            (
                (values.take(one, axis) - values.take(other, axis))[both] / step,
                changes,
                np.full(both.sum(), float(step)),
            )
        )
    parts = zip(*found, strict=True)
    differences, changes, weights = (np.concatenate(part) for part in parts)
    return differences, changes, weights


def _robust(differences: Values, changes: Values, weights: Values, degrees: Values) -> Values:
    """Factors of the cosines, by iteratively reweighted least squares with the weights of Geman and McClure."""
    ridge = np.diag(RIDGE * len(differences) * 4 / CELLS**2 * degrees**2)
    factors = np.zeros(len(degrees))
    for iteration in range(ITERATIONS):
        residuals = differences - changes @ factors
        scale = max(SMALLEST_SCALE, 1.4826 * float(np.median(np.abs(residuals))))
        scale *= 3 if iteration < WIDE else 1  # so that a steep shading is not taken for edges
        pull = weights / (1 + np.square(residuals / scale)) ** 2
        weighted = changes * pull[:, None]
        before, factors = factors, np.linalg.solve(weighted.T @ changes + ridge, weighted.T @ differences)
        if iteration > WIDE and np.abs(factors - before).max() < UNCHANGED:
            break
    return factors
