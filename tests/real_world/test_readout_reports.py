"""Readouts that are no image lines, or that miss their flags, as scanners and converters write them."""

from __future__ import annotations

import ismrmrd
import numpy as np
import pytest

from tests.raw_files import header, kspace, line, lines, noise, pixels
from tests.real_world.conftest import is_right

SURFACE_COIL = ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA
NOISE = ismrmrd.ACQ_IS_NOISE_MEASUREMENT
CALIBRATION = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION


def junk(samples=128, seed=0):
    return noise((4, samples), 30.0, seed)


def test_first_profile_flagged_noise_and_surface_coil_correction(reconstruct, data):
    """MRIReco.jl#227"""
    _, (image,) = reconstruct(header(), [line(noise(), 0, flags=[NOISE, SURFACE_COIL]), *lines(data)])
    assert is_right(image)


@pytest.mark.parametrize("flag", [ismrmrd.ACQ_IS_DUMMYSCAN_DATA, ismrmrd.ACQ_IS_NAVIGATION_DATA])
def test_noise_and_dummy_scans_before_the_lines(reconstruct, data, flag):
    """MRIReco.jl#248"""
    stray = [line(junk(seed=number), number, flags=[flag]) for number in range(8)]
    _, (image,) = reconstruct(header(), [line(noise(), 0, flags=[NOISE]), *stray, *lines(data)])
    assert is_right(image)


def test_all_imaging_lines_flagged_surface_coil_correction(reconstruct, data):
    """mrpro#119: the flag stands for a correction of the raw data, on every line of the scan."""
    _, (image,) = reconstruct(header(), [line(data[:, y], y, flags=[SURFACE_COIL]) for y in range(64)])
    assert is_right(image)


@pytest.mark.parametrize(
    "flag", [ismrmrd.ACQ_IS_PHASE_STABILIZATION, ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE], ids=["every", "once"]
)
def test_phase_stabilization_readouts_among_the_lines(reconstruct, data, flag):
    """ismrmrd-python#49, MRIReco.jl#237"""
    pairs = [(line(data[:, y], y), line(junk(seed=y), y, flags=[flag])) for y in range(64)]
    _, (image,) = reconstruct(header(), [one for pair in pairs for one in pair])
    assert is_right(image)


def test_readouts_of_other_lengths_and_centres_before_a_turbo_spin_echo(reconstruct, data):
    """siemens_to_ismrmrd#32: adjustment readouts repeat phase encodings with another centre, noise has 1024 samples."""
    before = [
        line(junk(seed=y), y, center_sample=48, flags=[ismrmrd.ACQ_IS_RTFEEDBACK_DATA])
        for _ in range(5)
        for y in range(9)
    ]
    long_noise = [line(noise((4, 256), seed=9), 0, center_sample=0, flags=[NOISE]) for _ in range(22)]
    corrections = [line(data[:, 32], 32, flags=[ismrmrd.ACQ_IS_PHASECORR_DATA]) for _ in range(9)]
    _, (image,) = reconstruct(header(), [*before, *long_noise, *corrections, *lines(data)])
    assert is_right(image)


def test_noise_of_fewer_samples_first(reconstruct, data):
    """siemens_to_ismrmrd#134: the first readouts are shorter than the imaging lines."""
    _, (image,) = reconstruct(header(), [line(noise((4, 32)), 0, flags=[NOISE]), *lines(data)])
    assert is_right(image)


def test_body_coil_lines_among_those_of_the_array(reconstruct, data):
    """gadgetron#39: surface coil correction readouts of the body coil have other channels."""
    body = [line(noise((2, 128), 30.0, y), y, flags=[SURFACE_COIL]) for y in range(0, 64, 8)]
    _, (image,) = reconstruct(header(), [line(noise(), 0, flags=[NOISE]), *body, *lines(data)])
    assert is_right(image)


def test_no_flag_marks_first_and_last_of_a_slice(reconstruct):
    """SIRF#513"""
    slices = [[line(k[:, y], y, slice=number, position=(0, 0, 6 * number)) for y in range(64)] for number, k in two()]
    _, images = reconstruct(
        header(limits={"slice": (0, 1, 0)}), [one for pair in zip(*slices, strict=True) for one in pair]
    )
    assert len(images) == 2
    assert [bool(pixels(image).max() > 0) for image in images] == [True, True]
    assert is_right(images[0])


def two():
    return [(0, kspace()), (1, kspace((0, 0, 6)))]


def test_calibration_flags_without_a_parallel_imaging_section(reconstruct, data):
    """ismrmrd#51"""
    made = [
        line(
            data[:, y],
            y,
            flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING if y % 2 == 0 else CALIBRATION]
            if 20 <= y < 44
            else (),
        )
        for y in range(64)
        if y % 2 == 0 or 20 <= y < 44
    ]
    _, (image,) = reconstruct(header(), made)
    assert is_right(image)


@pytest.mark.parametrize("mode", ["external", "separate"])
def test_reference_scan_before_the_imaging_lines(reconstruct, data, mode):
    """gadgetron#1195"""
    parallel = (
        "<parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>"
        "<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>"
        f"<calibrationMode>{mode}</calibrationMode></parallelImaging>"
    )
    reference = [line(data[:, y] * 0.3, y, flags=[CALIBRATION]) for y in range(20, 44)]
    _, (image,) = reconstruct(header(in_encoding=parallel), [*reference, *lines(data, range(0, 64, 2))])
    assert is_right(image)


def test_undersampled_lines_without_calibration(reconstruct, data):
    """gadgetron#873, ismrmrd#142: acceleration 4 and no calibration line: an image and a warning."""
    result, (image,) = reconstruct(header(), lines(data, range(0, 64, 4)))
    assert any("calibration" in text for text in result.warnings)
    assert pixels(image).max() > 0


def bipolar(data):
    """Two echoes; the second is read backwards, flagged, and 0.7 as bright."""
    echoes = []
    for y in range(64):
        echoes.append(line(data[:, y], y))
        backwards = np.roll(0.7 * data[:, y, ::-1], 1, axis=-1)  # sample 64 stays the centre
        echoes.append(line(backwards, y, contrast=1, flags=[ismrmrd.ACQ_IS_REVERSE]))
    return echoes


def test_echoes_read_backwards(reconstruct, data):
    """gadgetron#1199, SIRF#225, MRIReco.jl#186"""
    _, (first, second) = reconstruct(header(limits={"contrast": (0, 1, 0)}), bipolar(data))
    assert is_right(first)
    assert is_right(second)
    assert pixels(second).max() / pixels(first).max() == pytest.approx(0.7, rel=0.02)


def test_repeated_lines_that_no_flag_and_no_counter_tells_apart(reconstruct, data):
    """siemens_to_ismrmrd#84: the phase stabilisation readouts of older converters have no flag."""
    pairs = [(line(data[:, y], y), line(junk(seed=y) / 30, y)) for y in range(64)]
    result, images = reconstruct(header(), [one for pair in pairs for one in pair])
    assert len(images) == 1
    assert any("twice" in text or "same counters" in text or "more than once" in text for text in result.warnings)
