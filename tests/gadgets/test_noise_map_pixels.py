"""Interpolation of noise maps to the matrix of the images."""

from __future__ import annotations

import numpy as np

from gadgets.noise_map_pixels import resampled


def test_centre_stays_and_values_are_between_their_neighbours():
    ramp = np.arange(1.0, 9.0)[:, None] * np.ones((1, 6))
    finer = resampled(ramp, (16, 6))
    assert finer[8, 0] == ramp[4, 0]  # pixel n // 2
    np.testing.assert_allclose(finer[2:15, 0], np.arange(2.0, 8.5, 0.5))
    np.testing.assert_allclose(resampled(finer, (8, 6))[1:], ramp[1:])


def test_zeros_neither_spread_nor_lower_their_neighbours():
    values = np.zeros((8, 8))
    values[2:6, 2:6] = 3.0
    for shape in ((16, 12), (8, 11), (5, 7)):
        assert set(np.unique(np.round(resampled(values, shape), 6))) == {0.0, 3.0}
