"""Statistics of noise scans."""

from __future__ import annotations

import numpy as np
import pytest

from gadgets.noise.coils import Coil
from gadgets.noise.quality import noise_quality
from gadgets.noise.scan import NoiseScan


def scan(covariance, **fields):
    coils = tuple(Coil(i, f"HE{i + 1}") for i in range(len(covariance)))
    return NoiseScan(np.asarray(covariance, complex), **{"samples": 1000, "coils": coils, **fields})


def test_good_coils_have_no_warning():
    covariance = np.diag([1.0, 4.0, 9.0]).astype(complex)
    covariance[0, 2], covariance[2, 0] = 1.5j, -1.5j
    quality = noise_quality(scan(covariance))
    assert quality.levels == pytest.approx((0.5, 1, 1.5))
    assert (quality.correlation, quality.pair) == (pytest.approx(0.5), ("HE1", "HE3"))
    assert quality.condition == pytest.approx(np.linalg.cond(covariance))
    assert quality.warnings == ()
    assert quality.rows()[1] == (
        "noise levels",
        "0.50 to 1.50 of the median of 3 coils, strongest correlation 0.50 (HE1 and HE3), "
        f"condition {quality.condition:.3g}",
    )


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        ((1, 1, 0, 1), "HE3 has far less noise than the others: disconnected or broken"),
        ((1, 0.01, 0.01, 1, 1), "HE2, HE3 have far less noise"),
        ((1, 1, 1, 40), "HE4 has far more noise than the others: broken, or something interferes"),
    ],
)
def test_odd_coils_are_named(levels, text):
    (warning,) = noise_quality(scan(np.diag(np.square(levels)))).warnings
    assert warning.startswith(text)


def test_coils_of_the_same_noise_are_named():
    covariance = np.eye(4)
    covariance[1, 3] = covariance[3, 1] = 0.99
    (warning,) = noise_quality(scan(covariance, coils=())).warnings
    assert warning.startswith("coil 1 and coil 3 have nearly the same noise (correlation 0.99)")


def test_receivers_fewer_than_coils():
    mixing = np.random.default_rng(0).standard_normal((6, 3))
    (warning,) = noise_quality(scan(mixing @ mixing.T)).warnings
    assert "fewer receivers than coils" in warning


@pytest.mark.parametrize("covariance", [np.zeros((3, 3)), np.eye(1), [[0]]])
def test_any_covariance_has_statistics(covariance):
    assert noise_quality(scan(covariance)).rows()


def test_few_samples_say_nothing_of_correlation():
    samples = np.random.default_rng(0).standard_normal((8, 5))
    (warning,) = noise_quality(scan(samples @ samples.T / 4, samples=5)).warnings
    assert warning == "5 noise samples of 8 coils: fewer than 2 a coil"
