"""Pixels in 16 bit, their rescale and window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadgets.dicom_output import dicom_datasets
from gadgets.stream import ReconError
from tests.gadgets.dicom.dicom_images import make_header, make_image, quiet, rng, save


def test_integers_are_stored_as_they_are() -> None:
    data = rng.integers(0, 65536, (10, 12)).astype(np.uint16)
    ds = dicom_datasets(make_image(data), make_header(), warn=quiet)[0]
    np.testing.assert_array_equal(ds.pixel_array, data)
    assert "RescaleSlope" not in ds
    assert (ds.SmallestImagePixelValue, ds.LargestImagePixelValue) == (data.min(), data.max())


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float32, np.float64])
def test_signed_and_float_values_come_back_through_the_rescale(dtype: Any) -> None:
    data = (rng.normal(size=(10, 12)) * 900).astype(dtype)
    ds = dicom_datasets(make_image(data, image_type=3), make_header(), warn=quiet)[0]
    values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    np.testing.assert_allclose(values, data, atol=0.6 * float(ds.RescaleSlope))
    if np.issubdtype(dtype, np.integer):
        assert float(ds.RescaleSlope) == 1
    assert list(ds.ImageType)[2] == "R" and ds.ComplexImageComponent == "REAL"


def test_phase_has_one_scale_for_the_whole_series() -> None:
    scales = set()
    for top in (1.0, 3.0):
        data = np.linspace(-top, top, 120, dtype=np.float32).reshape(10, 12)
        ds = dicom_datasets(make_image(data, image_type=2), make_header(), warn=quiet)[0]
        scales.add((float(ds.RescaleSlope), float(ds.RescaleIntercept)))
        values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        np.testing.assert_allclose(values, data, atol=1e-4)
        assert ds.SeriesDescription.endswith("phase")
    assert len(scales) == 1


def test_image_scale_and_window_of_the_meta_attributes() -> None:
    meta = {"GADGETRON_ScaleRatio": "4", "WindowCenter": "60", "WindowWidth": "100"}
    ds = dicom_datasets(make_image(meta=meta), make_header(), warn=quiet)[0]
    assert float(ds.RescaleSlope) == 0.25 and float(ds.RescaleIntercept) == 0
    assert (float(ds.WindowCenter), float(ds.WindowWidth)) == (15, 25)
    small = dicom_datasets(make_image(meta={"GADGETRON_ScaleRatio": "1e6"}), make_header(), warn=quiet)[0]
    assert small.VOILUTFunction == "LINEAR_EXACT" and 0 < small.WindowWidth < 1
    bad = dicom_datasets(make_image(meta={"GADGETRON_ScaleRatio": "0"}), make_header(), warn=quiet)[0]
    assert "RescaleSlope" not in bad


def test_window_ignores_a_few_hot_pixels() -> None:
    data = np.full((100, 100), 1000.0, np.float32)
    data[:50] = 0
    data[0, 0] = 1e6
    ds = dicom_datasets(make_image(data), make_header(), warn=quiet)[0]
    assert ds.WindowCenter + ds.WindowWidth / 2 == pytest.approx(1000)


def test_blank_image_is_written() -> None:
    ds = dicom_datasets(make_image(np.zeros((10, 12), np.float32)), make_header(), warn=quiet)[0]
    assert not ds.pixel_array.any() and ds.WindowWidth > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1j])
def test_what_dicom_cannot_hold_is_refused_in_one_line(bad: Any, tmp_path: Path) -> None:
    data = np.ones((10, 12), np.complex64 if bad == 1j else np.float32)
    data[3, 3] = bad
    with pytest.raises(ReconError, match=r"^DicomOutput: image 1 .*;") as error:
        save(make_image(data), make_header(), tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.rglob("*"))
