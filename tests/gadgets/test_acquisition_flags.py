"""Every flag of the ISMRMRD standard, and what readouts with one or several are used for."""

from __future__ import annotations

from collections import Counter

import ismrmrd
import pytest
from raw_files import header, kspace, line, lines, marker, noise, replay, write

from gadgets.acquisition_flags import (
    FLAGS,
    Use,
    counts_text,
    is_calibration,
    is_calibration_only,
    is_compressed,
    is_for_images,
    is_noise,
    is_phase_correction,
    is_reversed,
    kind_left_out,
    mistaken_flags,
    undefined_flags,
)
from gadgets.stream import ReconError

STANDARD = {name: getattr(ismrmrd, name) for name in dir(ismrmrd) if name.startswith("ACQ_")}
NOT_LINES = [name for name, flag in FLAGS.items() if flag.use in {Use.LEFT_OUT, Use.PHASE_CORRECTION}]
COMPRESSIONS = [name for name, flag in FLAGS.items() if flag.use is Use.REFUSED]


def flagged(*names):
    head = ismrmrd.AcquisitionHeader()
    for name in names:
        head.set_flag(STANDARD[name])
    return head


def test_every_flag_of_the_installed_standard_is_decided_on():
    assert {name: flag.number for name, flag in FLAGS.items()} == STANDARD
    assert all(flag.reason for flag in FLAGS.values())
    assert all(flag.kind for flag in FLAGS.values() if flag.use not in {Use.NONE, Use.REFUSED})


@pytest.mark.parametrize("name", sorted(STANDARD))
def test_what_a_flag_makes_of_a_readout(name):
    head, use = flagged(name), FLAGS[name].use
    assert is_noise(head) == (use is Use.NOISE)
    assert is_for_images(head) == (use not in {Use.NOISE, Use.LEFT_OUT, Use.PHASE_CORRECTION})
    assert is_calibration(head) == (use in {Use.CALIBRATION, Use.IMAGE_AND_CALIBRATION})
    assert is_calibration_only(head) == (use is Use.CALIBRATION)
    assert is_phase_correction(head) == (use is Use.PHASE_CORRECTION)
    assert is_reversed(head) == (use is Use.REVERSED)
    assert is_compressed(head) == (use is Use.REFUSED)
    assert kind_left_out(head) == (FLAGS[name].kind if use in {Use.LEFT_OUT, Use.PHASE_CORRECTION} else "")
    assert undefined_flags(head) == []


@pytest.mark.parametrize(
    ("names", "image", "calibration", "left_out"),
    [
        (("ACQ_IS_PARALLEL_CALIBRATION", "ACQ_IS_NAVIGATION_DATA"), False, True, "navigator"),
        (("ACQ_IS_PARALLEL_CALIBRATION", "ACQ_IS_PHASECORR_DATA"), False, True, "phase correction"),
        (("ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING", "ACQ_IS_PHASE_STABILIZATION"), False, True, "phase stabilization"),
        (("ACQ_IS_PHASECORR_DATA", "ACQ_IS_RTFEEDBACK_DATA", "ACQ_IS_REVERSE"), False, False, "feedback"),
        (("ACQ_IS_PHASE_STABILIZATION", "ACQ_IS_PHASE_STABILIZATION_REFERENCE"), False, False, "phase stabilization"),
        (("ACQ_IS_NOISE_MEASUREMENT", "ACQ_IS_NAVIGATION_DATA", "ACQ_IS_PARALLEL_CALIBRATION"), False, True, ""),
        (("ACQ_IS_PARALLEL_CALIBRATION", "ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING"), True, True, ""),
        (("ACQ_IS_REVERSE", "ACQ_IS_PARALLEL_CALIBRATION", "ACQ_USER3"), True, True, ""),
    ],
)
def test_flags_together(names, image, calibration, left_out):
    head = flagged(*names)
    assert (is_for_images(head), is_calibration(head), kind_left_out(head)) == (image, calibration, left_out)


def test_both_calibration_flags_do_not_take_a_line_from_the_image():
    assert not is_calibration_only(flagged("ACQ_IS_PARALLEL_CALIBRATION", "ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING"))


def test_flags_that_the_standard_does_not_define():
    assert undefined_flags(1 << 39 | 1 << 6) == [40]


def test_text_of_the_counts():
    assert counts_text(Counter({"phase stabilization": 64, "navigator": 32})) == (
        "32 navigator, 64 phase stabilization readouts"
    )
    assert counts_text(Counter({"dummy": 1})) == "1 dummy readout"


@pytest.fixture(scope="module")
def slice_lines():
    return lines(kspace())


@pytest.fixture(scope="module")
def plain(slice_lines, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return replay(write(folder / "scan.h5", (header(), slice_lines)), folder / "out")[1][0].pixel_array


def interleaved(slice_lines, *names):
    """The slice with a readout of noise and these flags after every line, the last one with the end of the slice."""
    flags = [STANDARD[name] for name in names]
    mixed = []
    for own in slice_lines:
        stray = line(noise(own.data.shape, 50.0), own.idx.kspace_encode_step_1, flags=flags)
        mixed += [own, stray]
    return mixed


@pytest.mark.parametrize("name", NOT_LINES)
def test_readouts_that_are_no_lines_change_nothing_and_are_counted(name, slice_lines, plain, tmp_path):
    mixed = interleaved(slice_lines, name)
    result, (image,) = replay(write(tmp_path / "scan.h5", (header(), mixed)), tmp_path / "out")
    assert (image.pixel_array == plain).all()
    assert [text for text in result.warnings if "readouts" in text] == [
        f"ImageLines: 64 {FLAGS[name].kind} readouts are left out"
    ]


def test_end_of_the_slice_flagged_at_a_readout_that_is_left_out(slice_lines, plain, tmp_path):
    mixed = interleaved(slice_lines, "ACQ_IS_NAVIGATION_DATA")
    last = mixed[-2]
    mixed[-2] = line(last.data, last.idx.kspace_encode_step_1)
    mixed[-1].set_flag(ismrmrd.ACQ_LAST_IN_SLICE)
    result, (image,) = replay(write(tmp_path / "scan.h5", (header(), mixed)), tmp_path / "out")
    assert (image.pixel_array == plain).all()
    assert not any("ACQ_LAST_IN_SLICE" in text for text in result.warnings)


@pytest.mark.parametrize("name", ["ACQ_FIRST_IN_SEGMENT", "ACQ_USER7", "ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING"])
def test_flags_without_a_use_change_nothing(name, slice_lines, plain, tmp_path):
    copies = [line(own.data, own.idx.kspace_encode_step_1, flags=[STANDARD[name]]) for own in slice_lines]
    _, (image,) = replay(write(tmp_path / "scan.h5", (header(), copies)), tmp_path / "out")
    assert (image.pixel_array == plain).all()


def test_a_scan_whose_lines_have_both_calibration_flags(slice_lines, plain, tmp_path):
    both = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING]
    copies = [line(own.data, own.idx.kspace_encode_step_1, flags=both) for own in slice_lines]
    _, (image,) = replay(write(tmp_path / "scan.h5", (header(), copies)), tmp_path / "out")
    assert (image.pixel_array == plain).all()


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_compressed_samples_are_refused(name, slice_lines, tmp_path):
    copies = [line(own.data, own.idx.kspace_encode_step_1) for own in slice_lines]
    copies[5].set_flag(STANDARD[name])
    raw = write(tmp_path / "scan.h5", (header(), copies))
    with pytest.raises(ReconError, match=r"acquisition 5 is compressed \(a flag ACQ_COMPRESSION\)"):
        replay(raw, tmp_path / "out")


def test_the_marker_is_where_it_is(slice_lines, tmp_path):
    mixed = interleaved(slice_lines, "ACQ_IS_PHASE_STABILIZATION")
    _, (image,) = replay(write(tmp_path / "scan.h5", (header(), mixed)), tmp_path / "out")
    assert marker(image) == pytest.approx((18.0, -11.0, 0.0), abs=0.2)


def test_surface_coil_flags_of_all_imaging_lines_are_mistaken() -> None:
    surface, noise, calibration = (
        1 << number - 1
        for number in (
            ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,
            ismrmrd.ACQ_IS_NOISE_MEASUREMENT,
            ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,
        )
    )
    assert mistaken_flags([noise, surface]) == surface
    assert mistaken_flags([calibration, surface]) == surface
    assert mistaken_flags([0, surface]) == 0
    assert mistaken_flags([noise | surface, calibration]) == 0
