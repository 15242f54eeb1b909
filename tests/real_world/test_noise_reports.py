"""Noise measurements and channels, as scanners write them."""

from __future__ import annotations

import ismrmrd
import numpy as np
import pytest

from tests.raw_files import header, line, lines, noise, pixels
from tests.real_world.conftest import is_right

NOISE = ismrmrd.ACQ_IS_NOISE_MEASUREMENT


def labels(names):
    return (
        "<acquisitionSystemInformation>"
        + f"<receiverChannels>{len(names)}</receiverChannels>"
        + "".join(
            f"<coilLabel><coilNumber>{number}</coilNumber><coilName>{name}</coilName></coilLabel>"
            for number, name in enumerate(names)
        )
        + "</acquisitionSystemInformation>"
    )


@pytest.mark.parametrize("dwell", [0.0, 2.5, float("nan")])
def test_dwell_time_of_the_noise(reconstruct, data, dwell):
    """gadgetron#12, ismrmrd#54"""
    measured = [line(noise((4, 256), seed=y), 0, flags=[NOISE]) for y in range(4)]
    for one in measured:
        one.sample_time_us = dwell
    _, (image,) = reconstruct(header(), [*measured, *lines(data)])
    assert np.isfinite(pixels(image)).all()
    assert is_right(image)


def test_channel_that_is_only_noise(reconstruct, data):
    """gadgetron#7, #1297: channels of very different gain; prewhitening makes up for it."""
    gain = np.array([1, 100, 0.01, 1], np.float32)[:, None, None]
    measured = [line(noise((4, 256), seed=y) * gain[:, 0], 0, flags=[NOISE]) for y in range(4)]
    _, (image,) = reconstruct(header(after=labels("ABCD")), [*measured, *lines(data * gain)])
    assert is_right(image)


def test_channel_without_any_signal(reconstruct, data):
    """siemens_to_ismrmrd#130: a selected coil that is not plugged in: zeros in the noise and in the lines"""
    dead = data.copy()
    dead[3] = 0
    measured = [line(noise((4, 256), seed=y) * np.array([[1], [1], [1], [0]]), 0, flags=[NOISE]) for y in range(4)]
    _, (image,) = reconstruct(header(), [*measured, *lines(dead)])
    assert is_right(image)


def test_fewer_noise_samples_than_channels(reconstruct, data):
    """siemens_to_ismrmrd#134: a single short noise readout: the covariance has no inverse"""
    _, (image,) = reconstruct(header(), [line(noise((4, 3)), 0, flags=[NOISE]), *lines(data)])
    assert is_right(image)


def test_noise_of_more_channels_than_the_lines(reconstruct, data):
    """gadgetron#39, #598: the noise was measured with other coils: told, and the image made without it"""
    result, (image,) = reconstruct(header(), [line(noise((6, 256)), 0, flags=[NOISE]), *lines(data)])
    assert is_right(image)
    assert any("noise" in text for text in result.warnings)


def test_other_number_of_channels_in_a_calibration_scan(reconstruct, data):
    """gadgetron#39: reference lines of the body coil (2 channels) beside those of the array"""
    calibration = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION
    body = [line(noise((2, 128), 30.0, y), y, flags=[calibration]) for y in range(20, 44)]
    array = [line(data[:, y], y, flags=[calibration]) for y in range(20, 44)]
    made = [*body, *array, *lines(data, range(0, 64, 2))]
    try:
        _, (image,) = reconstruct(header(), made)
    except Exception as error:
        assert "coils" in str(error)
    else:
        assert is_right(image)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_samples_in_other_units(reconstruct, data, factor):
    """gadgetron#548: samples of a Siemens scanner are a million times smaller than others: no black image"""
    _, (image,) = reconstruct(header(), lines(data * np.float32(factor)))
    assert image.pixel_array.max() > 1000
    assert is_right(image)
