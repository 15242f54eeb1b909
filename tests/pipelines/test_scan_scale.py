"""Pixel values of a file's images are on one scale, whatever the order of its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

from pipelines.replay import read_images
from tests.raw_files import header, kspace, lines, noise, replay, write

WHOLE = kspace()
BRIGHTNESS = {1: 1.0, 2: 0.9, 3: 1.15, 4: 1.3}  # of the slices after one of noise


def scan(counter: str, order: tuple[int, ...]) -> tuple[str, list[Any]]:
    """A scan whose images, by a counter, are of noise (0) and of an object in several brightnesses."""
    acquisitions = []
    for number in order:
        data = BRIGHTNESS[number] * WHOLE if number else noise(WHOLE.shape, 0.2)
        acquisitions += lines(data, position=(0, 0, 7.5 * number), **{counter: number})
    return header(limits={counter: (0, 4, 0)}), acquisitions


def stored(folder: Path, counter: str) -> dict[int, float]:
    """Brightness of the images that a client gets which reads no slope."""
    return {
        getattr(image, counter): float(np.sort(image.data.ravel())[-30:].mean()) for image in read_images(folder, 1)
    }


@pytest.mark.slow
@pytest.mark.parametrize("counter", ["slice", "contrast", "repetition"])
def test_stored_values_are_on_one_scale_in_any_order(counter: str, tmp_path: Path) -> None:
    found = []
    for order in ((0, 1, 2, 3, 4), (3, 0, 4, 1, 2)):
        folder = tmp_path / str(order[0])
        _, datasets = replay(write(tmp_path / "scan.h5", scan(counter, order)), folder)
        assert len({float(dataset.RescaleSlope) for dataset in datasets}) == 1
        levels = stored(folder, counter)
        for number, brightness in BRIGHTNESS.items():
            assert levels[number] / levels[1] == pytest.approx(brightness, rel=0.01)
        assert levels[0] < 0.05 * levels[1]
        found.append(levels)
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1)
    assert 1000 < found[0][4] < 4000


def test_prewhitened_images_are_on_one_scale(tmp_path: Path) -> None:
    """The brightest image is measured in the units that it has behind the noise scan."""
    head, acquisitions = scan("slice", (0, 1, 4))
    noise_line = lines(noise((4, 1, 128), 0.05), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    replay(write(tmp_path / "scan.h5", (head, noise_line + acquisitions)), tmp_path / "out")
    levels = stored(tmp_path / "out", "slice")
    assert levels[4] / levels[1] == pytest.approx(1.3, rel=0.01)
    assert 1000 < levels[4] < 4000


def test_a_scale_that_was_set_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.h5", scan("slice", (1, 2)))
    _, datasets = replay(path, tmp_path / "out", "generative_recon.pixel_scale=4")
    assert {float(dataset.RescaleSlope) for dataset in datasets} == {0.25}
    _, datasets = replay(path, tmp_path / "unscaled", "generative_recon.intensity=0")
    assert {float(dataset.RescaleSlope) for dataset in datasets} == {1.0}


def test_a_single_image_is_scaled_by_itself(tmp_path: Path) -> None:
    replay(write(tmp_path / "scan.h5", (header(), lines(WHOLE))), tmp_path / "out")
    (image,) = read_images(tmp_path / "out", 1)
    assert np.percentile(image.data, 99.9) == pytest.approx(2048, rel=0.02)
