"""The scan of the demo, and the quality of its reconstruction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gadgets.images import SCALE_RATIO, meta_of, meta_values
from pipelines.evaluation.metrics import measures
from pipelines.replay import read_images
from pipelines.simulation import SimulationSettings
from pipelines.simulation.writer import read_truth

DEMO_SCAN = SimulationSettings(
    matrix=(192, 192, 1),
    field_of_view_mm=(220.0, 220.0, 5.0),
    slices=4,
    slice_gap_mm=10.0,
    coils=8,
    sampling="uniform",
    acceleration=3,
    calibration_lines=24,
    noise_level=0.005,
    noise_scan=True,
)


def quality(raw: Path, folder: Path) -> Iterator[tuple[str, tuple[float, float]]]:
    """PSNR (dB) and SSIM of each slice of a replay against the truth in its raw file.

    Both images are divided by the truth's maximum.
    """
    truth = read_truth(raw)[0]
    result = np.zeros_like(truth)
    for image in read_images(folder, series=1):
        scale = float((meta_values(meta_of(image.attribute_string), SCALE_RATIO) or ["1"])[0])
        result[image.slice] = image.data[0, 0] / scale
    result, truth = result / truth.max(), truth / truth.max()
    for number, (expected, got) in enumerate(zip(truth, result, strict=True)):
        found = measures(got, expected)
        yield str(number), (found["psnr"], found["ssim"])
