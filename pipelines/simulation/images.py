"""Coil images of a slice: object, image phase, coil sensitivities, folding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.simulation.coils import CoilMaps
from pipelines.simulation.geometry import coordinates, partition_coordinate
from pipelines.simulation.phantom import phantom
from pipelines.simulation.resample import fold, resample
from pipelines.simulation.settings import SimulationSettings

EXTERNAL_CALIBRATION_INTENSITY = 0.5
"""An external calibration scan comes from another sequence: other intensity, no image phase."""


def coil_images(
    settings: SimulationSettings, maps: CoilMaps, given: NDArray[Any] | None, number: int, external: bool = False
) -> NDArray[np.complex64]:
    """Noise-free coil images of a slice on the encoded grid, complex64 (coil, z, y, x) with the oversampled readout x.

    What of the object lies outside the field of view is folded into it.

    Parameters
    ----------
    settings, maps
        The scan and its coils.
    given
        Images (slice, z, y, x) instead of the phantom, see `checked_images`.
    number
        Slice or slab.
    external
        Whether it is the external calibration scan: another intensity and no image phase.
    """
    s = settings
    nx, ny, nz = s.matrix
    images = np.zeros((s.coils, nz, ny, s.readout_samples), np.complex64)
    # The object's own grid at the acquired pixel size, before it folds into the field of view.
    grid = (max(ny, round(s.object_scale * ny)), max(nx, round(s.object_scale * nx)))
    # Placed where RemoveROOversamplingGadget crops, which for odd sizes is not about the centre.
    margin = (s.readout_samples - grid[1]) // 2
    inside = slice(margin, margin + grid[1])
    for partition in range(nz):
        z = partition_coordinate(s, number, partition)
        if given is None:
            shape = (s.supersampling * grid[0], s.supersampling * grid[1])
            y = coordinates(shape[0], ny * s.supersampling)
            x = coordinates(shape[1], nx * s.supersampling)
            drawn = phantom(y / s.object_scale, x / s.object_scale, z)
        else:
            drawn = given[number, partition]
            shape = (drawn.shape[0], drawn.shape[1])
            y = coordinates(shape[0], shape[0] * ny / grid[0])
            x = coordinates(shape[1], shape[1] * nx / grid[1])
        image = drawn.astype(np.complex64)
        if external:
            image = np.complex64(EXTERNAL_CALIBRATION_INTENSITY) * np.abs(image)
        elif not np.iscomplexobj(drawn):
            phase = 0.6 * x + 0.8 * y[:, None] ** 2 - 0.5 * y[:, None] * x + 0.4 * z
            image *= np.exp(1j * s.image_phase_rad * phase)
        for coil in range(s.coils):
            received = image * maps(coil, z, y, x)
            if shape != grid:
                received = resample(received, grid, (0, 1))
            received = fold(received, ny, 0)
            if grid[1] > s.readout_samples:
                images[coil, partition] = fold(received, s.readout_samples, 1)
            else:
                images[coil, partition, :, inside] = received
    return images


def checked_images(settings: SimulationSettings, images: NDArray[Any]) -> NDArray[Any]:
    """Bring given images to (slice, z, y, x)."""
    axes = "(slab, z, y, x)" if settings.is_3d else "(slice, y, x)"
    count, nz = settings.slices, settings.matrix[2]
    shaped = images
    if settings.is_3d and images.ndim == 3:
        shaped = images[None]
    elif not settings.is_3d and images.ndim == 3:
        shaped = images[:, None]
    elif not settings.is_3d and images.ndim == 2:
        shaped = images[None, None]
    if shaped.ndim != 4 or shaped.shape[:2] != (count, nz) or min(shaped.shape[2:]) < 4:
        wanted = f"({count}, {nz}, y, x)" if settings.is_3d else f"({count}, y, x)"
        raise ValueError(f"images: shape {images.shape} does not fit, must be {axes} = {wanted}")
    if not (np.issubdtype(images.dtype, np.number) and np.isfinite(images).all() and np.abs(images).max() > 0):
        raise ValueError("images: must be finite numbers that are not all zero")
    return shaped
