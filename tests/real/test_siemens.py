"""The main job on a real Siemens scan (R = 3, partial phase coverage), against Gadgetron's own GRAPPA image."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from pipelines.cli.options import DEFAULT_CHAIN
from pipelines.replay import read_images, replay


@pytest.fixture(scope="module")
def replayed(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("siemens") / "out"
    return replay(real_data / "siemens_skyra_r3.h5", DEFAULT_CHAIN, folder)


def correlation(pixels, reference):
    inside = reference > 0.05 * reference.max()
    return np.corrcoef(pixels[inside], reference[inside])[0, 1]


def test_image_agrees_with_grappa(real_data, replayed):
    reference = np.load(real_data / "siemens_skyra_r3_grappa.npy").astype(float)
    (image,) = read_images(replayed.folder, 1)
    pixels = image.data[0, 0].astype(float)
    assert pixels.shape == reference.shape == (144, 192)
    assert correlation(pixels, reference) >= 0.996
    for turned in (pixels[::-1], pixels[:, ::-1], np.roll(pixels, 2, 0), np.roll(pixels, 2, 1)):
        assert correlation(turned, reference) < 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("method", "lowest"), [("l1_wavelet", 0.99), ("grappa", 0.995)])
def test_other_methods_agree_too(method, lowest, real_data, tmp_path):
    settings = [f"generative_recon.method={method}"]
    result = replay(real_data / "siemens_skyra_r3.h5", "l1_wavelet", tmp_path / "out", settings=settings)
    reference = np.load(real_data / "siemens_skyra_r3_grappa.npy").astype(float)
    (image,) = read_images(result.folder, 1)
    assert correlation(image.data[0, 0].astype(float), reference) >= lowest


@pytest.mark.slow
def test_generative_chain_fills_what_grappa_leaves_empty(real_data, tmp_path):
    settings = ["generative_recon.samples=2"]
    result = replay(real_data / "siemens_skyra_r3.h5", "svd_wkgm", tmp_path / "out", settings=settings)
    reference = np.load(real_data / "siemens_skyra_r3_grappa.npy").astype(float)
    (image,) = read_images(result.folder, 1)
    # The scan's partial phase coverage blurs GRAPPA's image, not this one.
    assert correlation(image.data[0, 0].astype(float), reference) >= 0.97
    (deviation,) = read_images(result.folder, 101)
    assert 0 < deviation.data.mean() < image.data.mean()
    files = {pydicom.dcmread(path).SeriesNumber for path in (result.folder / "dicom").rglob("*.dcm")}
    assert len(files) == 2


def test_dicom(replayed):
    (path,) = (replayed.folder / "dicom").rglob("*.dcm")
    ds = pydicom.dcmread(path)
    assert (ds.Rows, ds.Columns) == (144, 192)
    assert list(ds.ImageOrientationPatient) == [1, 0, 0, 0, -1, 0]  # the air bubble of a bottle is at the top
    np.testing.assert_allclose(ds.PixelSpacing, [280 / 192, 210 / 144], rtol=1e-6)
    # The pixel at the matrix centre lies at the position the scanner gave.
    centre = np.array(ds.ImagePositionPatient, float)
    centre += ds.PixelSpacing[1] * 96 * np.array([1, 0, 0]) + ds.PixelSpacing[0] * 72 * np.array([0, -1, 0])
    np.testing.assert_allclose(centre, [20.0483, 66.5700, 0.0], atol=1e-3)
    assert ds.ContentQualification == "RESEARCH"
    assert DEFAULT_CHAIN in ds.DerivationDescription
    if shutil.which("dciodvfy"):
        run = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert "Error" not in run.stdout + run.stderr


def test_same_uids_and_pixels_again(real_data, replayed, tmp_path):
    again = replay(real_data / "siemens_skyra_r3.h5", DEFAULT_CHAIN, tmp_path / "again")
    first, second = (pydicom.dcmread(next((r.folder / "dicom").rglob("*.dcm"))) for r in (replayed, again))
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PixelData"):
        assert first[keyword].value == second[keyword].value
