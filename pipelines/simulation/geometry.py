"""Where the slices lie, in the patient and in the object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.simulation.settings import SimulationSettings


def slice_order(settings: SimulationSettings) -> list[int]:
    """Slice numbers in the order they are measured."""
    numbers = list(range(settings.slices))
    return numbers if settings.slice_order == "sequential" else numbers[::2] + numbers[1::2]


def directions(
    settings: SimulationSettings,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors (read, phase, slice) in patient coordinates (LPS)."""
    a, b, c = np.deg2rad(settings.rotation_degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    rotation = about_z @ about_y @ about_x
    return rotation[:, 0], rotation[:, 1], rotation[:, 2]


def slice_position_mm(settings: SimulationSettings, number: int) -> NDArray[np.float64]:
    """Centre of a slice in patient coordinates (LPS), in mm."""
    spacing = settings.field_of_view_mm[2] + settings.slice_gap_mm
    offset = (number - (settings.slices - 1) / 2) * spacing
    position: NDArray[np.float64] = np.asarray(settings.position_mm) + offset * directions(settings)[2]
    return position


def coordinates(points: int, points_per_field_of_view: float) -> NDArray[np.float64]:
    """Positions of pixels in half fields of view, 0 at index points // 2."""
    return (np.arange(points) - points // 2) / (points_per_field_of_view / 2)


def partition_coordinate(settings: SimulationSettings, number: int, partition: int) -> float:
    """Position of a partition along the slice direction, in half extents of the object's box."""
    slab = (number - (settings.slices - 1) / 2) * 2 / settings.slices
    if not settings.is_3d:
        return 0.6 * slab
    nz = settings.matrix[2]
    return slab + (partition - nz // 2) / (nz / 2) / settings.slices
