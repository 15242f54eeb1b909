"""Where pixels are in the patient."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from gadgets.dicom_output import dicom_datasets
from tests.gadgets.dicom.dicom_images import VOLUME, make_header, make_image, quiet


@pytest.mark.parametrize("shape", [(10, 12), (9, 11), (1, 4, 10, 12), (1, 5, 9, 11)])
def test_centre_pixel_is_at_the_position(shape: tuple[int, ...]) -> None:
    image = make_image(np.ones(shape, np.uint16))
    datasets = dicom_datasets(image, make_header(), warn=quiet)
    *_, ny, nx = shape
    nz = len(datasets)
    ds = datasets[nz // 2]
    row, column = np.array(ds.ImageOrientationPatient[:3]), np.array(ds.ImageOrientationPatient[3:])
    dy, dx = ds.PixelSpacing
    assert (dx, dy) == (pytest.approx(24 / nx), pytest.approx(30 / ny))
    np.testing.assert_allclose(row, image.read_dir[:], atol=1e-6)
    np.testing.assert_allclose(column, image.phase_dir[:], atol=1e-6)
    centre = np.array(ds.ImagePositionPatient) + nx // 2 * dx * row + ny // 2 * dy * column
    np.testing.assert_allclose(centre, image.position[:], atol=1e-5)
    if nz > 1:
        step = np.array(datasets[1].ImagePositionPatient) - np.array(datasets[0].ImagePositionPatient)
        np.testing.assert_allclose(step, 5 / nz * np.array(image.slice_dir[:]), atol=1e-5)
        assert float(ds.SpacingBetweenSlices) == pytest.approx(5 / nz)
        assert datasets[1].SliceLocation - datasets[0].SliceLocation == pytest.approx(5 / nz, abs=1e-5)
    assert float(ds.SliceThickness) == pytest.approx(5 / nz)


def test_first_pixel_is_where_gadgetron_puts_it() -> None:
    image = make_image()
    ds = dicom_datasets(image, make_header(), warn=quiet)[0]
    corner = np.array(image.position[:]) - 12 * np.array(image.read_dir[:]) - 15 * np.array(image.phase_dir[:])
    np.testing.assert_allclose(ds.ImagePositionPatient, corner, atol=1e-5)


def test_partitions_are_files_of_their_own() -> None:
    datasets = dicom_datasets(make_image(VOLUME), make_header(matrix=(12, 9, 4)), warn=quiet)
    assert [int(ds.InstanceNumber) for ds in datasets] == [1, 2, 3, 4]
    assert len({ds.SOPInstanceUID for ds in datasets}) == 4
    assert len({ds.SeriesInstanceUID for ds in datasets}) == 1
    assert datasets[0].MRAcquisitionType == "3D"
    for ds, partition in zip(datasets, VOLUME[0], strict=True):
        values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        np.testing.assert_allclose(values, partition, atol=float(ds.RescaleSlope))


def test_missing_orientation_is_assumed_and_said(caplog: pytest.LogCaptureFixture) -> None:
    image = make_image(read_dir=(0, 0, 0), phase_dir=(0, 0, 0), slice_dir=(0, 0, 0))
    with caplog.at_level(logging.WARNING, "genrecon"):
        ds = dicom_datasets(image, make_header(False))[0]
    assert "orientation is assumed" in caplog.text
    assert "WARNING" in ds.ImageComments and "orientation" in ds.ImageComments
    assert list(ds.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]


def test_field_of_view_comes_from_the_header_when_the_image_has_none() -> None:
    ds = dicom_datasets(make_image(field_of_view=(0, 0, 0)), make_header(False), warn=quiet)[0]
    assert list(ds.PixelSpacing) == [3, 2]


def test_oblique_directions_are_made_perpendicular() -> None:
    messages: list[str] = []
    ds = dicom_datasets(make_image(phase_dir=(0.1, 0.0, -1.0)), make_header(), warn=messages.append)[0]
    row, column = np.array(ds.ImageOrientationPatient[:3]), np.array(ds.ImageOrientationPatient[3:])
    assert abs(row @ column) < 1e-6 and np.linalg.norm(column) == pytest.approx(1)
    assert any("perpendicular" in message for message in messages)
