"""Which images are one series, and the numbers of series and images."""

from __future__ import annotations

import pytest

from gadgets.dicom.series import series_number
from gadgets.outputs import STANDARD_DEVIATION
from tests.gadgets.dicom.dicom_images import make_header, make_image, quiet


def test_series_of_one_study_have_numbers_of_their_own() -> None:
    """Images and standard deviations of two encoding spaces, scans 1 to 40 of a study."""
    header = make_header()
    numbers = []
    for scan in range(1, 41):
        header.measurementInformation.initialSeriesNumber = scan
        for index in (1, 2, 1 + STANDARD_DEVIATION.series, 2 + STANDARD_DEVIATION.series):
            numbers.append(series_number(make_image(image_series_index=index), header, 1000, pytest.fail))
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) == 2001


@pytest.mark.parametrize(("index", "warnings"), [(999, 0), (1000, 1)])
def test_a_number_of_the_next_scan_is_warned_of(index: int, warnings: int) -> None:
    texts: list[str] = []
    series_number(make_image(image_series_index=index), make_header(), 1000, texts.append)
    assert len(texts) == warnings


def test_the_largest_number_dicom_allows_is_kept() -> None:
    header = make_header()
    header.measurementInformation.initialSeriesNumber = 2**31
    assert series_number(make_image(), header, 0, quiet) == 2**31 - 1
