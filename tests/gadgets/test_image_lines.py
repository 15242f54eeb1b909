"""Readouts at the head of a chain: left out, turned round, corrected by phase correction readouts."""

from __future__ import annotations

import logging

import ismrmrd
import numpy as np
import pytest
from raw_files import MARKER, header, kspace, line, lines, marker, noise, pixels, replay, write

from gadgets.image_lines import TURNED, ImageLines
from gadgets.polarity import PolarityPhase
from gadgets.stream import ReconError
from pipelines.chain import shipped_xml

REVERSE, CORRECTION = ismrmrd.ACQ_IS_REVERSE, ismrmrd.ACQ_IS_PHASECORR_DATA
NAVIGATOR, LAST_IN_SLICE = ismrmrd.ACQ_IS_NAVIGATION_DATA, ismrmrd.ACQ_LAST_IN_SLICE
KSPACE = kspace()


def through(items, text=None, **properties):
    gadget = ImageLines()
    gadget.configure(ismrmrd.xsd.CreateFromDocument((text or header()).encode()), properties)
    return list(gadget.process(iter(items)))


def backwards(data, shift=0.0, constant=0.0):
    """Samples (..., sample) as a readout of the other polarity stores them, late by `shift` samples."""
    return PolarityPhase(-shift, -constant).removed(data)[..., ::-1]


def alternating(shift, constant):
    return [
        line(backwards(KSPACE[:, y], shift, constant), y, flags=[REVERSE]) if y % 2 else line(KSPACE[:, y], y)
        for y in range(64)
    ]


def references(shift, constant, **fields):
    """Three readouts without phase encoding, the second one of the other polarity."""
    echo = KSPACE[:, 32]
    flags = [CORRECTION]
    other = line(backwards(echo, shift, constant), 32, flags=[*flags, REVERSE], **fields)
    return [line(echo, 32, flags=flags, **fields), other, line(echo, 32, flags=flags, **fields)]


def test_lines_read_forwards_pass_as_they_are():
    plain = lines(KSPACE)
    assert all(own is came for own, came in zip(through(plain), plain, strict=True))


def test_a_line_read_backwards_is_turned_round():
    own = line(KSPACE[:, 20, :100][:, ::-1], 20, flags=[REVERSE], center_sample=35, discard_pre=4, discard_post=9)
    (turned,) = through([own])
    np.testing.assert_array_equal(turned.data, KSPACE[:, 20, :100])
    assert (turned.center_sample, turned.discard_pre, turned.discard_post) == (64, 9, 4)
    assert turned.is_flag_set(REVERSE)
    assert turned.is_flag_set(TURNED)


@pytest.mark.parametrize(
    ("samples", "centre", "forward", "expected"),
    [
        (128, 64, None, 64),  # in the middle, whichever way it is read
        (128, 63, None, 64),
        (96, 32, None, 63),
        (96, 64, 32, 32),  # the writer means n - centre
        (96, 63, 32, 32),
        (97, 48, None, 48),
        (128, 0, None, 0),  # not given
    ],
)
def test_centre_of_a_line_that_was_turned_round(samples, centre, forward, expected):
    own = line(KSPACE[:, 0, :samples], 0, flags=[REVERSE], center_sample=centre)
    before = [line(KSPACE[:, 0, :samples], 1, center_sample=forward)] if forward else []
    assert through([*before, own])[-1].center_sample == expected


def test_trajectory_is_turned_with_the_samples():
    head = line(KSPACE[:, 0], 0, flags=[REVERSE]).getHead()
    head.trajectory_dimensions = 1
    own = ismrmrd.Acquisition(head, KSPACE[:, 0], np.arange(128, dtype=np.float32)[:, None])
    (turned,) = through([own])
    np.testing.assert_array_equal(turned.traj[:, 0], np.arange(128)[::-1])


@pytest.mark.parametrize(("shift", "constant"), [(0.4, 0.5), (-1.0, 2.8)])
def test_phase_correction_readouts_give_linear_and_constant_phase(shift, constant):
    found = through([*references(shift, constant), *alternating(shift, constant)])
    assert len(found) == 64
    data = np.stack([own.data for own in found], axis=1)
    assert np.linalg.norm(data - KSPACE) <= 1e-3 * np.linalg.norm(KSPACE)
    assert not any(own.is_flag_set(REVERSE) or own.is_flag_set(TURNED) for own in found)


def test_discarded_samples_of_a_line_enter_no_transform():
    spoilt = alternating(0.4, 0.5)
    for own in (*spoilt, *(extra := references(0.4, 0.5))):
        if own.is_flag_set(REVERSE):
            own.data[:, -3:] = 1e6
            own.discard_post = 3
    for own in through([*extra, *spoilt]):
        samples = own.data[:, own.discard_pre :]
        assert (
            abs(samples - KSPACE[:, own.idx.kspace_encode_step_1, own.discard_pre :]).max() < 0.02 * abs(KSPACE).max()
        )


def test_the_last_phase_correction_of_a_slice_counts():
    first, second = references(0.4, 0.5), references(-0.8, -0.3)
    late = line(backwards(KSPACE[:, 31], -0.8, -0.3), 31, flags=[REVERSE])
    found = through([*first, line(backwards(KSPACE[:, 31], 0.4, 0.5), 31, flags=[REVERSE]), *second, late])
    for own in found:
        np.testing.assert_allclose(own.data, KSPACE[:, 31], atol=1e-3 * abs(KSPACE).max())


def test_polarities_in_two_contrasts_correct_each_other():
    echo = KSPACE[:, 32]
    pair = [line(echo, 32, flags=[CORRECTION])]
    pair.append(line(backwards(echo, 0.6, 0.2), 32, flags=[CORRECTION, REVERSE], contrast=1))
    own = line(backwards(KSPACE[:, 9], 0.6, 0.2), 9, flags=[REVERSE], contrast=1)
    (found,) = through([*pair, own])
    np.testing.assert_allclose(found.data, KSPACE[:, 9], atol=1e-3 * abs(KSPACE).max())


def test_phase_correction_of_one_polarity_is_of_no_use_and_told(caplog):
    with caplog.at_level(logging.WARNING, "genrecon"):
        found = through([references(0.4, 0.5)[0], *alternating(0.4, 0.5)])
    assert found[1].is_flag_set(TURNED)
    assert caplog.messages == ["ImageLines: 1 phase correction readout is left out"]


def test_phase_correction_that_was_used_is_not_told(caplog):
    with caplog.at_level(logging.WARNING, "genrecon"):
        through([*references(0.4, 0.5), *alternating(0.4, 0.5), line(noise(), 0, flags=[NAVIGATOR])])
    assert caplog.messages == ["ImageLines: 1 navigator readout is left out"]


def test_flags_of_the_end_go_to_the_line_before():
    mixed = [
        line(KSPACE[:, 5], 5, slice=2),
        line(noise(), 0, flags=[NAVIGATOR], slice=2),
        line(noise(), 0, flags=[NAVIGATOR, LAST_IN_SLICE], slice=2),
        line(KSPACE[:, 6], 6, slice=3),
        line(noise(), 0, flags=[NAVIGATOR, LAST_IN_SLICE], slice=1),
    ]
    found = through(mixed)
    assert [own.is_flag_set(LAST_IN_SLICE) for own in found] == [True, False]
    assert not mixed[0].is_flag_set(LAST_IN_SLICE)  # the reader's own line stays


def test_a_line_that_ends_its_slice_is_not_held_back():
    gadget = ImageLines()
    gadget.configure(ismrmrd.xsd.CreateFromDocument(header().encode()), {})
    taken = []

    def source():
        yield line(KSPACE[:, 0], 0, flags=[LAST_IN_SLICE])
        taken.append("next")
        yield line(KSPACE[:, 1], 1)

    next(gadget.process(source()))
    assert not taken


def test_lines_for_a_real_gadgetron_are_not_turned_round():
    own = line(KSPACE[:, 3], 3, flags=[REVERSE])
    (found,) = through([*references(0.4, 0.5), own], turn_round="false")
    assert found is own


def test_readouts_without_samples_are_left_out_like_others(plain, tmp_path):
    empty = line(np.zeros((4, 0)), 0, flags=[ismrmrd.ACQ_IS_DUMMYSCAN_DATA])
    result, (image,) = replay(write(tmp_path / "scan.h5", (header(), [empty, *lines(KSPACE)])), tmp_path / "out")
    np.testing.assert_array_equal(pixels(image), plain)
    assert "ImageLines: 1 dummy readout is left out" in result.warnings


@pytest.mark.slow
def test_a_chain_that_has_the_gadget_turns_lines_round_once(plain, tmp_path):
    gadget = '<external><execute name="gadgets.image_lines" target="ImageLines" type="python"/></external>'
    chain = tmp_path / "chain.xml"
    chain.write_text(shipped_xml("cg_sense").decode().replace("<stream>", f"<stream>{gadget}"))
    measured = [line(backwards(KSPACE[:, y]), y, flags=[REVERSE]) for y in range(64)]
    raw = write(tmp_path / "scan.h5", (header(), measured))
    _, (image,) = replay(raw, tmp_path / "out", config=str(chain), processes=True)
    assert marker(image) == pytest.approx(MARKER, abs=0.05)
    assert_within_a_step(image, plain)


def test_flags_that_the_standard_does_not_define_are_told(caplog):
    odd = line(KSPACE[:, 0], 0)
    odd.set_flag(40)
    with caplog.at_level(logging.WARNING, "genrecon"):
        assert len(through([odd])) == 1
    assert "1 lines have flag 40, which the ISMRMRD standard does not define" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        header(trajectory="epi"),
        header(in_encoding="<trajectoryDescription><identifier>ConventionalEPI</identifier></trajectoryDescription>"),
    ],
)
def test_epi_is_refused_with_its_reason(text):
    with pytest.raises(ReconError, match=r"^acquisition 0: it was read backwards in an EPI echo train, .* ghost"):
        through([line(KSPACE[:, 0], 0, flags=[REVERSE])], text)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return pixels(replay(write(folder / "scan.h5", (header(), lines(KSPACE))), folder / "out")[1][0])


def error(image, plain):
    values = pixels(image)
    values = values * (values * plain).sum() / (values**2).sum()
    return np.linalg.norm(values - plain) / np.linalg.norm(plain)


def assert_within_a_step(image, plain):
    """Each pixel within a step of the stored whole numbers: turning lines round changes the last digits of samples."""
    assert np.abs(pixels(image) - plain).max() < 1.01 * image.RescaleSlope
    assert error(image, plain) < 1e-4


@pytest.mark.parametrize("with_references", [True, False])
def test_image_of_lines_of_both_polarities(with_references, plain, tmp_path):
    measured = [*(references(0.7, 0.6) if with_references else []), *alternating(0.7, 0.6)]
    _, (image,) = replay(write(tmp_path / "scan.h5", (header(), measured)), tmp_path / "out")
    assert marker(image) == pytest.approx(MARKER, abs=0.05)
    assert error(image, plain) < 2e-3


def test_image_read_backwards_as_a_whole(plain, tmp_path):
    measured = [line(backwards(KSPACE[:, y]), y, flags=[REVERSE]) for y in range(64)]
    _, (image,) = replay(write(tmp_path / "scan.h5", (header(), measured)), tmp_path / "out")
    assert marker(image) == pytest.approx(MARKER, abs=0.05)
    assert_within_a_step(image, plain)


def test_partial_echoes_of_both_polarities(tmp_path):
    """The first quarter of k-space is missing; the centre is where the header says."""
    measured = []
    for y in range(64):
        part, centre = (KSPACE[:, y, 32:], 32) if y % 2 == 0 else (KSPACE[:, y, 32:][:, ::-1], 63)
        measured.append(line(part, y, flags=[REVERSE] * (y % 2), center_sample=centre))
    _, (image,) = replay(write(tmp_path / "scan.h5", (header(), measured)), tmp_path / "out")
    assert marker(image) == pytest.approx(MARKER, abs=0.1 * 150 / 64)
