"""Scans that are valid but not what one expects first: odd sizes, stray lines, counters that begin at 1."""

from __future__ import annotations

import copy

import ismrmrd
import numpy as np
import pytest
from test_scenarios import VOLUME, in_units, psnr, quality, reconstruct, scan

from gadgets.dicom.geometry import image_geometry
from gadgets.images import meta_of, meta_values
from pipelines.chain import read_chain
from pipelines.replay import DICOM_MODULE


def through(simulation, lines, config="cg_sense"):
    return list(read_chain(config).without(DICOM_MODULE).run(simulation.header, lines))


def flagged(line, flag, **counters):
    """A copy of a line with one more flag, other counters, and samples that would spoil the image."""
    head = line.getHead()
    other = ismrmrd.Acquisition(head, 1e3 * line.data)
    other.set_flag(flag)
    for name, value in counters.items():
        setattr(other.idx, name, value)
    return other


@pytest.mark.parametrize(
    ("matrix", "recon"),
    [
        ((48, 48, 1), (48, 48, 1)),
        ((47, 48, 1), (47, 48, 1)),
        ((48, 47, 1), (48, 47, 1)),
        ((48, 48, 1), (48, 45, 1)),
        ((24, 24, 8), (24, 24, 8)),
        ((24, 24, 8), (24, 24, 5)),
    ],
)
def test_a_point_at_the_isocentre_is_shown_there(matrix, recon):
    extent = np.array([4.0 * size for size in matrix])
    simulation = scan(
        matrix=matrix,
        field_of_view_mm=tuple(extent),
        recon_matrix=recon,
        recon_field_of_view_mm=tuple(extent * recon / matrix),
        coils=1,
        sampling="full",
        acceleration=1,
        calibration="none",
        noise_level=0.0,
        noise_scan=False,
        rotation_degrees=(20.0, 10.0, 30.0),
    )
    lines = []
    for line in simulation.acquisitions():
        line.data[:] = 1  # the transform of a point at the centre of the field of view, where the positions refer to
        lines.append(line)
    (image,) = through(simulation, lines)
    z, y, x = np.unravel_index(image.data[0].argmax(), image.data.shape[1:])
    centre = np.array(image_geometry(image, simulation.header).pixel(x, y, z))
    np.testing.assert_allclose(centre, 0.0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("recon", [(64, 128, 80), (64, 128, 40), (32, 64, 80)])
def test_interpolated_volumes_are_not_cut(recon):
    simulation = scan(
        **VOLUME, recon_matrix=recon, recon_field_of_view_mm=VOLUME["field_of_view_mm"], sampling="poisson"
    )
    truth = simulation.truth
    result = in_units(reconstruct(simulation, "cg_sense"), truth.shape)
    assert psnr(result, truth) >= 33.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "flag",
    [
        ismrmrd.ACQ_IS_NAVIGATION_DATA,
        ismrmrd.ACQ_IS_PHASECORR_DATA,
        ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
        ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
        ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
    ],
)
def test_lines_that_are_not_for_images_change_nothing(flag):
    simulation = scan(matrix=(48, 48, 1), coils=4)
    lines = list(simulation.acquisitions())
    stray = flagged(lines[-1], flag, kspace_encode_step_1=24)
    stray.clear_flag(ismrmrd.ACQ_LAST_IN_SLICE)
    (plain,) = through(simulation, lines)
    noise = sum(line.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT) for line in lines)
    for place in (noise, len(lines)):  # before the imaging lines, and after the slice was complete
        (image,) = through(simulation, [*lines[:place], stray, *lines[place:]])
        np.testing.assert_array_equal(image.data, plain.data)


def is_reference(line):
    return line.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)


@pytest.mark.slow
@pytest.mark.parametrize("repetitions", [1, 2])
def test_calibration_after_the_imaging_lines(repetitions):
    simulation = scan(calibration="separate", slices=2, repetitions=repetitions)
    # Within a repetition the imaging lines first; the noise scan is of repetition 0.
    lines = sorted(simulation.acquisitions(), key=lambda line: (line.idx.repetition, is_reference(line)))
    truth = simulation.truth
    assert psnr(in_units(through(simulation, lines), truth.shape), truth) >= 42.0


def test_last_calibration_line_flagged_as_the_slices_last():
    simulation = scan(calibration="separate", slices=2)
    lines = list(simulation.acquisitions())
    for number in range(2):
        last = max(i for i, line in enumerate(lines) if is_reference(line) and line.idx.slice == number)
        lines[last].set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
    truth = simulation.truth
    assert psnr(in_units(through(simulation, lines), truth.shape), truth) >= 42.0


@pytest.mark.parametrize("counter", ["phase", "set"])
def test_calibration_of_one_phase_serves_the_others(counter):
    simulation = scan(calibration="separate")
    lines = list(simulation.acquisitions())
    again = []
    for line in lines:
        if not is_reference(line) and not line.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT):
            other = ismrmrd.Acquisition(line.getHead(), line.data)
            setattr(other.idx, counter, 1)
            line.clear_flag(ismrmrd.ACQ_LAST_IN_SLICE)
            again.append(other)
    getattr(simulation.header.encoding[0].encodingLimits, counter).maximum = 1
    first, second = through(simulation, lines + again)
    assert (getattr(first, counter), getattr(second, counter)) == (0, 1)
    assert np.abs(first.data.astype(int) - second.data.astype(int)).max() <= 1


def test_calibration_in_one_average_serves_all():
    simulation = scan(averages=2)
    lines = [line for line in simulation.acquisitions() if not (is_reference(line) and line.idx.average == 1)]
    truth = simulation.truth
    images = through(simulation, lines)
    assert not meta_values(meta_of(images[0].attribute_string), "GenreconWarning")
    assert psnr(in_units(images, truth.shape), truth) >= 42.0


def test_noise_scan_that_comes_late_is_told(caplog):
    simulation = scan(matrix=(48, 48, 1), coils=4)
    lines = list(simulation.acquisitions())
    noise = [line for line in lines if line.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]
    imaging = lines[len(noise) :]
    through(simulation, imaging[:5] + noise + imaging[5:])
    assert "5 lines came before the noise scan" in caplog.text


def test_contrasts_that_begin_at_one():
    simulation = scan(contrasts=2)
    lines = []
    for line in simulation.acquisitions():
        line.idx.contrast += 1
        lines.append(line)
    limit = simulation.header.encoding[0].encodingLimits.contrast
    limit.minimum, limit.maximum = 1, 2
    images = through(simulation, lines)
    assert [image.contrast for image in images] == [1, 2]
    assert images[0].data.mean() > images[1].data.mean() > 0


def test_second_encoding_space_keeps_its_own_matrix():
    simulation = scan(matrix=(48, 48, 1), coils=4, slices=2)
    header = simulation.header
    header.encoding.append(copy.deepcopy(header.encoding[0]))
    header.encoding[1].reconSpace.matrixSize.x = header.encoding[1].reconSpace.matrixSize.y = 96
    lines = []
    for line in simulation.acquisitions():
        line.encoding_space_ref = line.idx.slice
        lines.append(line)
    images = through(simulation, lines)
    assert [(image.data.shape[2:], image.image_series_index) for image in images] == [((48, 48), 1), ((96, 96), 2)]


@pytest.mark.slow
def test_completed_calibration_is_marked_in_every_repetition():
    images = reconstruct(scan(calibration="none", repetitions=3), "cg_sense")
    warnings = [meta_values(meta_of(image.attribute_string), "GenreconWarning") for image in images]
    assert len(warnings) == 3
    assert all("no calibration lines" in texts[0] and "regular intervals" in texts[1] for texts in warnings)


def test_volume_of_two_partitions():
    simulation = scan(
        matrix=(32, 32, 2), field_of_view_mm=(220.0, 220.0, 10.0), sampling="full", acceleration=1, coils=4
    )
    assert quality(simulation, "cg_sense") >= 30.0


def test_field_of_view_smaller_than_the_reconstructed_one_keeps_its_pixels():
    simulation = scan(
        matrix=(48, 36, 1),
        field_of_view_mm=(220.0, 165.0, 5.0),
        sampling="full",
        acceleration=1,
        calibration="none",
        noise_scan=False,
    )
    recon = simulation.header.encoding[0].reconSpace
    recon.matrixSize.y, recon.fieldOfView_mm.y = 48, 220.0
    (image,) = through(simulation, simulation.acquisitions())
    assert image.data.shape[2:] == (36, 48)
    assert image_geometry(image, simulation.header).spacing[:2] == pytest.approx((220 / 48, 165 / 36), rel=1e-5)
