"""The brain of the demo: its slices, its scan, and the scan as arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.simulation.arrays import scan_arrays
from pipelines.simulation.brain import BRAIN_SCAN, brain_images, brain_scan
from pipelines.simulation.scan import simulate
from pipelines.simulation.settings import SimulationSettings
from priors import reconstruct
from priors.signal.fourier import ifft2c
from tests.paths import ROOT

from tests.raw_files import replay  # isort: skip

SMALL = replace(BRAIN_SCAN, matrix=(48, 48, 1), coils=4, acceleration=2, calibration_lines=16)


def root_sum_of_squares(kspace: np.ndarray) -> np.ndarray:
    return torch.linalg.vector_norm(ifft2c(torch.from_numpy(kspace)), dim=-3).numpy()


def test_the_slices_are_heads_and_their_licence_lies_beside_them() -> None:
    images = brain_images()
    assert images.shape == (5, 224, 224) and images.dtype == np.float32 and images.max() == 1
    inside = (images > 0.1).mean((1, 2))
    assert (inside > 0.3).all() and images[:, :3].max() < 0.05
    folder = ROOT / "pipelines" / "simulation" / "data"
    text = " ".join((folder / "colin27.txt").read_text().split())
    assert "Redistributions of source code must retain" in text and "Copyright 2006-2010, Chris Rorden" in text
    assert (folder / "colin27.npz").stat().st_size < 200_000


def test_the_middle_slices_are_scanned() -> None:
    one = brain_scan(replace(SMALL, slices=1)).truth[0, 0]
    np.testing.assert_allclose(one, brain_scan(SMALL).truth[0, 1], rtol=0.2, atol=0.05 * one.max())
    for wrong in (replace(SMALL, slices=6), replace(SMALL, matrix=(48, 48, 4), slices=1)):
        with pytest.raises(ValueError, match="1 to 5 slices"):
            brain_scan(wrong)


def test_arrays_are_the_scan() -> None:
    full = replace(SMALL, sampling="full", acceleration=1.0, noise_level=0.0, noise_scan=False)
    kspace, mask, truth = scan_arrays(brain_scan(full))
    assert mask.all() and kspace.shape == (3, 4, 48, 48)
    np.testing.assert_allclose(root_sum_of_squares(kspace), truth, atol=1e-5 * truth.max())
    kspace, mask, _ = scan_arrays(brain_scan(SMALL))
    assert mask[::2].all() and mask[16:32].all() and mask.sum() == 48 * (16 + 16)
    assert not kspace[:, :, ~mask].any() and kspace[:, :, mask].all()


def test_noise_of_prewhitened_arrays_is_white_of_level_1() -> None:
    noisy = scan_arrays(brain_scan(replace(SMALL, sampling="full", acceleration=1.0, noise_level=0.1)))[0]
    quiet = scan_arrays(brain_scan(replace(SMALL, sampling="full", acceleration=1.0, noise_level=1e-6)))[0]
    scale = 1e-6 / 0.1  # prewhitened: the signal is in units of the noise
    noise = (noisy - scale * quiet).swapaxes(0, 1).reshape(4, -1)
    covariance = noise @ noise.conj().T / noise.shape[1]
    np.testing.assert_allclose(covariance, 2 * np.eye(4), atol=0.15)


@pytest.mark.parametrize(
    "changes",
    [
        {"repetitions": 2},
        {"averages": 2},
        {"calibration": "separate"},
        {"asymmetric_echo": 0.8},
        {"recon_matrix": (64, 64, 1)},
        {"matrix": (32, 32, 4), "slices": 1},
    ],
)
def test_scans_that_are_no_arrays_are_refused(changes: dict) -> None:
    settings = SimulationSettings(**{"matrix": (32, 32, 1), "sampling": "uniform", "acceleration": 2, **changes})
    with pytest.raises(ValueError, match="arrays are made of 2D scans"):
        scan_arrays(simulate(settings))


@pytest.mark.slow
def test_the_prior_takes_it_for_a_brain() -> None:
    """A warning that it is unlike the training data is an error here, as every warning is."""
    kspace, mask, truth = scan_arrays(brain_scan(replace(BRAIN_SCAN, slices=1)))
    image = np.abs(reconstruct(kspace, mask, "svd_wkgm", steps=6))
    assert np.abs(image - truth).max() < 0.15 * truth.max()


def test_dicom_of_the_brain_is_where_the_head_is(tmp_path: Path) -> None:
    from pipelines.simulation.writer import write_raw

    write_raw(tmp_path / "raw.h5", brain_scan(SMALL))
    result, datasets = replay(tmp_path / "raw.h5", tmp_path / "out")
    assert result.warnings == []
    places = sorted(float(one.ImagePositionPatient[2]) for one in datasets)
    np.testing.assert_allclose(places, [-10, 7, 24], atol=1e-3)
    first = datasets[0]
    assert [float(value) for value in first.ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
    assert first.SliceThickness == 3 and float(first.PixelSpacing[0]) == pytest.approx(224 / 48)
    assert first.ScanningSequence and first.SeriesDescription
