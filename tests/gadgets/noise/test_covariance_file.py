"""Noise covariances that Gadgetron wrote."""

from __future__ import annotations

import numpy as np
import pytest

from gadgets.noise.covariance_file import read_covariance
from gadgets.stream import ReconError
from tests.gadgets.noise.covariances import covariance_blob

COVARIANCE = np.array([[2, 1 + 0.5j], [1 - 0.5j, 3]])


def test_a_covariance_of_gadgetron():
    noise = read_covariance(covariance_blob(COVARIANCE), "file")
    np.testing.assert_array_equal(noise.covariance, COVARIANCE)
    assert (noise.samples, noise.dwell_us, noise.bandwidth) == (384, 20.0, 0.793)
    assert [coil.name for coil in noise.coils] == ["A", "B"]


def test_labels_of_another_number_do_not_count():
    assert read_covariance(covariance_blob(COVARIANCE, labels=("A",)), "file").coils == ()


GOOD = covariance_blob(COVARIANCE)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it begins with other bytes"),
        (GOOD[:20], "it is damaged"),
        (GOOD[:-1], "it is cut off"),
        (GOOD + b" ", "it is cut off"),
        (covariance_blob(COVARIANCE, kind=5), "it is no complex matrix"),
        (covariance_blob([[1, 5], [2, 1]]), "its matrix is no covariance"),
        (covariance_blob([[np.nan, 0], [0, 1]]), "its matrix is no covariance"),
        (covariance_blob(COVARIANCE, dwell="x"), "could not convert"),
        (covariance_blob(COVARIANCE, dwell=float("inf")), "no finite numbers"),
        (GOOD[:18] + b"\xff" * 16 + GOOD[34:], "its matrix is not square"),
        (GOOD[:-90] + b"[" * 90, ""),
    ],
)
def test_another_content_is_an_error(content, reason):
    with pytest.raises(ReconError, match=f"^file: this is no noise covariance of Gadgetron .*{reason}") as error:
        read_covariance(content, "file")
    assert "\n" not in str(error.value)
