"""Receive coils: sensitivities in space, and maps on a pixel grid."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipelines.simulation.settings import SimulationSettings


class CoilMaps:
    """Smooth receive sensitivities, defined at every point of space in units of half the field of view.

    A simulated scan needs them off the pixel grid: in every slice, on the finer grid that the phantom is drawn on, and
    outside the field of view, from where the object folds in. SigPy's maps (`birdcage_maps`) have one plane on a grid.
    """

    def __init__(self, settings: SimulationSettings) -> None:
        self._kind = settings.coil_maps if settings.coils > 1 else "uniform"
        coils = settings.coils
        if self._kind == "random":
            rng = np.random.default_rng([settings.seed, 4])
            shape = (coils, 3, 3, 3)
            modes = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
            self._modes = modes / math.sqrt(2 * 27 * coils)
        elif self._kind == "birdcage":
            radius = 1.15 * max(1.0, settings.object_scale)
            rings = min(4, max(1, coils // 12))
            self._angle = 2 * np.pi * np.arange(coils) / coils
            ring_z = np.linspace(-0.4, 0.4, rings) if rings > 1 else np.zeros(1)
            self._centre = np.stack(
                [
                    ring_z[np.arange(coils) % rings],
                    radius * np.sin(self._angle),
                    radius * np.cos(self._angle),
                ],
                axis=1,
            )
            self._width = 0.4 * radius
            self._scale = 1.0
            origin = np.zeros(1)
            self._scale = 1 / math.sqrt(sum(abs(self(coil, 0.0, origin, origin)[0, 0]) ** 2 for coil in range(coils)))

    def __call__(self, coil: int, z: float, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.complex64]:
        """Sensitivity (y, x) of one coil in the plane z; the root sum of squares is about 1 at the centre."""
        if self._kind == "uniform":
            return np.ones((y.size, x.size), np.complex64)
        if self._kind == "random":
            frequencies = np.array([-1.0, 0.0, 1.0])
            along_z = np.exp(0.75j * np.pi * frequencies * z)
            along_y = np.exp(0.75j * np.pi * np.outer(y, frequencies))
            along_x = np.exp(0.75j * np.pi * np.outer(frequencies, x))
            plane = np.tensordot(along_z, self._modes[coil], 1)
            return (along_y @ plane @ along_x).astype(np.complex64)
        z0, y0, x0 = self._centre[coil]
        # Elements are twice as long along z as they are wide.
        dx, dy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)[:, None]
        distance_squared = dx**2 + dy**2 + np.float32((0.5 * (z - z0)) ** 2 + self._width**2)
        turn = np.complex64(self._scale * np.exp(-1j * self._angle[coil]))
        # Falls off as the cube of the distance, like the field of a small loop.
        field_map: NDArray[np.complex64] = turn * (dx + 1j * dy) / distance_squared**2
        return field_map


def birdcage_maps(coils: int, shape: tuple[int, ...]) -> NDArray[np.complex64]:
    """Complex64 maps (coil, y, x) of a birdcage coil on a pixel grid, by SigPy; their sum of squares is 1."""
    import sigpy.mri  # takes seconds

    maps = sigpy.mri.birdcage_maps((coils, *shape), r=1.3).astype(np.complex64)
    normalised: NDArray[np.complex64] = maps / np.linalg.norm(maps, axis=0)
    return normalised
