"""When noise was measured, by which scanner, and which noise a header names."""

from __future__ import annotations

import datetime

import ismrmrd
import numpy as np
import pytest

from gadgets.noise.lines import NoiseLines
from gadgets.noise.scan import NoiseScan, age_of, age_text, conflict, moment_of, noise_dependencies
from tests.noise_scans import MIXING, header, noise_lines


def parsed(**changes):
    return ismrmrd.xsd.CreateFromDocument(header(**changes).encode())


def noise_of(lines, coils=4, **changes):
    noise = NoiseLines()
    for line in lines:
        noise.add(line)
    return noise.noise(parsed(**changes), coils)


def test_a_noise_scan_knows_its_measurement():
    noise = noise_of(noise_lines(), measurement_id="1_2_3_1")
    assert noise.covariance.shape == (4, 4)
    assert (noise.samples, noise.dwell_us, noise.bandwidth, noise.measurement) == (1024, 5.0, 0.793, "1_2_3_1")
    assert noise.moment == datetime.datetime(2024, 3, 1, 10, 1)
    np.testing.assert_allclose(noise.covariance, MIXING @ MIXING.conj().T, atol=0.1 * abs(noise.covariance).max())


def test_discarded_samples_are_no_noise():
    lines = noise_lines(discard_pre=10, discard_post=20)
    for line in lines:
        line.data[:, :10] = line.data[:, -20:] = 1e6
    noise = noise_of(lines)
    assert noise.samples == 8 * 98
    assert np.abs(noise.covariance).max() < 1e3


def test_lines_of_other_coils_and_dwell_times_are_left_out():
    others = [*noise_lines(2, range(3)), *noise_lines(2, sample_time_us=10.0)]
    mixed = [others[0], *noise_lines(), *others[1:]]
    assert noise_of(mixed).samples == 1024
    assert noise_of(mixed).digest() == noise_of(noise_lines()).digest()
    assert len(noise_of(mixed, coils=3).covariance) == 3


def test_what_changes_images_changes_the_digest():
    noise = noise_of(noise_lines())
    assert noise_of(noise_lines(), measurement_id="9", station="MR2").digest() == noise.digest()
    assert noise_of(noise_lines(7)).digest() != noise.digest()
    assert noise_of(noise_lines(sample_time_us=6.0)).digest() != noise.digest()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""),
        ({"measurement_id": "1_2_3_9"}, ""),
        ({"station": "MR2"}, "station"),
        ({"bandwidth": 0.6}, "receiver noise bandwidth"),
        ({"measurement_id": "8_2_3_9"}, "device in measurementID"),
        ({"measurement_id": "1_7_3_9", "identity": False}, "patient in measurementID"),
        ({"measurement_id": None, "identity": False}, ""),
    ],
)
def test_noise_of_another_scanner_or_patient(changes, text):
    assert conflict(noise_of(noise_lines(), measurement_id="1_2_3_1"), parsed(**changes)) == text


def test_the_moment_needs_a_time_of_its_own():
    assert moment_of(parsed(), 14_424_000) == datetime.datetime(2024, 3, 1, 10, 1)
    assert moment_of(parsed(), 0) is None  # the time of the study is that of all its measurements
    assert moment_of(parsed(identity=False), 14_424_000) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s older"), (90, "90 s older"), (3600, "60 min older"), (-300, "5 min newer"), (200_000, "2 days older")],
)
def test_ages(seconds, text):
    assert age_text(datetime.timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("date", "text"),
    [
        ("2024-02-10", "20 days older"),
        ("2024-02-29", "1 day older"),
        ("2024-03-03", "2 days newer"),
        ("2024-03-01", ""),
    ],
)
def test_without_times_of_day_the_dates_tell_the_age(date, text):
    noise = noise_of(noise_lines(acquisition_time_stamp=0), date=date)
    assert (age_of(noise, parsed(), 14_424_000) or (None, ""))[1] == text
    assert (age_of(noise, parsed(), 0) or (None, ""))[1] == text


def test_noise_dependencies():
    assert noise_dependencies(parsed()) == []
    assert noise_dependencies(parsed(depends_on="1_2_3_1")) == ["1_2_3_1"]
    assert noise_dependencies(parsed(depends_on="17")) == ["17", "1_2_3_17"]


def test_a_readout_of_the_same_covariance():
    noise = noise_of(noise_lines())
    line = noise.as_line()
    assert line.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT) and line.sample_time_us == 5.0
    np.testing.assert_allclose(noise_of([line]).covariance, noise.covariance, rtol=1e-5)
    silent = NoiseScan(np.diag([0.0, 1.0]).astype(complex)).as_line()
    np.testing.assert_allclose(noise_of([silent], coils=2).covariance, np.diag([0, 1]), atol=1e-6)
