"""The brain of the demo and of the gallery: slices of the Colin27 head, and a scan of them."""

from __future__ import annotations

from importlib import resources

import numpy as np
from numpy.typing import NDArray

from pipelines.simulation.scan import Simulation
from pipelines.simulation.settings import SimulationSettings

BRAIN_SCAN = SimulationSettings(
    matrix=(160, 160, 1),
    field_of_view_mm=(224.0, 224.0, 3.0),
    slices=3,
    slice_gap_mm=14.0,
    position_mm=(0.0, 0.0, 7.0),
    coils=8,
    sampling="uniform",
    acceleration=4,
    calibration_lines=24,
    noise_level=0.005,
    noise_scan=True,
    tr_ms=250.0,
    te_ms=4.6,
    sequence_type="Flash",
    protocol_name="t1_fl2d_simulated",
    series_description="Simulated T1 brain",
    patient_name="Brain^Simulated",
)
"""The scan of the demo: three slices, 160 x 160, 8 coils, R = 4 with 24 calibration lines, noise of 0.5 %."""


def brain_images() -> NDArray[np.float32]:
    """T1-weighted slices of a head, 17 mm apart from below: magnitudes of maximum 1, 1 mm pixels.

    Returns
    -------
    float32 (5, 224, 224), rows from anterior, columns from right. They are of Colin27, the mean of 27 scans of one man;
    `data/colin27.txt` in this folder says where they come from and their licence.
    """
    with resources.files("pipelines.simulation").joinpath("data/colin27.npz").open("rb") as file:
        slices = np.load(file, allow_pickle=False)["slices"]
    images: NDArray[np.float32] = slices.astype(np.float32) / slices.max()
    return images


def brain_scan(settings: SimulationSettings = BRAIN_SCAN) -> Simulation:
    """Prepare a simulated scan of the brain.

    Parameters
    ----------
    settings
        The scan, with 1 to 5 slices; the middle ones of `brain_images` are scanned. `dataclasses.replace` makes others
        of `BRAIN_SCAN`.

    Raises
    ------
    ValueError
        If it has more slices, or is three-dimensional.
    """
    images = brain_images()
    if settings.is_3d or settings.slices > len(images):
        raise ValueError(f"brain: it is scanned in 1 to {len(images)} slices, not in {settings.slices} or in 3D")
    first = (len(images) - settings.slices) // 2
    return Simulation(settings, images[first : first + settings.slices])
