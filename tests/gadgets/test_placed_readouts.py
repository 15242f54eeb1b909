"""Buffers with readouts that a real Gadgetron placed though they are no lines, or as they were read."""

from __future__ import annotations

import copy
import logging

import ismrmrd
import numpy as np
import pytest
from raw_files import MARKER, header, kspace, line, lines, marker, noise, replay, write

from gadgets.image_lines import TURNED
from gadgets.placed_readouts import checked_readouts
from gadgets.polarity import PolarityPhase
from gadgets.stream import ReconError
from gadgets.twins import TWINS

REVERSE, NAVIGATOR = ismrmrd.ACQ_IS_REVERSE, ismrmrd.ACQ_IS_NAVIGATION_DATA
CALIBRATION = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION
KSPACE = kspace()
EMBEDDED = (
    "<parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1><kspace_encoding_step_2>1"
    "</kspace_encoding_step_2></accelerationFactor><calibrationMode>embedded</calibrationMode></parallelImaging>"
)


def backwards(data, shift=0.0, constant=0.0):
    return PolarityPhase(-shift, -constant).removed(data)[..., ::-1]


def buffers(items, text=None, **dimensions):
    """Header and ReconData as a real Gadgetron hands them to our gadgets: no readout was turned round."""
    parsed = ismrmrd.xsd.CreateFromDocument((text or header()).encode())
    stream = iter(items)
    for name, properties in (
        ("RemoveROOversamplingGadget", {}),
        ("AcquisitionAccumulateTriggerGadget", {"release_complete_slices": "false"}),
        ("BucketToBufferGadget", {"N_dimension": "contrast", "S_dimension": "average", **dimensions}),
    ):
        gadget = TWINS[name]()
        gadget.configure(parsed, properties)
        stream = gadget.process(stream)
    return parsed, list(stream)


def checked(items, text=None):
    parsed, data = buffers(items, text)
    (found,) = checked_readouts(data, parsed)
    return found.bits[0]


@pytest.fixture(scope="module")
def truth():
    return checked(lines(KSPACE)).data.data


def polarity(shift, constant, backward):
    return [
        line(backwards(KSPACE[:, y], shift, constant), y, flags=[REVERSE]) if backward(y) else line(KSPACE[:, y], y)
        for y in range(64)
    ]


def off(found, truth):
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


def test_buffers_of_lines_only_pass_as_they_are():
    parsed, data = buffers(lines(KSPACE))
    bit = data[0].bits[0]
    (found,) = checked_readouts(data, parsed)
    assert found.bits[0] is bit


def test_lines_that_a_real_gadgetron_left_as_they_were_read_are_turned_round(truth):
    found = checked(polarity(0.0, 0.0, lambda y: True)).data
    assert off(found.data, truth) < 0.02  # the readout's edge pixel is that of the other edge
    assert not any(head.is_flag_set(REVERSE) or head.is_flag_set(TURNED) for head in found.headers.flat)


def test_lines_of_both_polarities_are_brought_into_one_phase(truth):
    found = checked(polarity(0.7, 0.6, lambda y: y % 2))
    assert off(found.data.data, truth) < 0.02


def test_calibration_lines_tell_the_phase_of_the_image_and_are_corrected_too():
    backward = lambda y: y // 2 % 2  # noqa: E731
    measured = [one for one in polarity(0.7, 0.6, backward) if one.idx.kspace_encode_step_1 % 2 == 0]
    extra = [one for one in polarity(0.7, 0.6, backward) if 20 <= one.idx.kspace_encode_step_1 < 44]
    extra = [one for one in extra if one.idx.kspace_encode_step_1 % 2]
    for one in extra:
        one.set_flag(CALIBRATION)
    found = checked(measured + extra, header(in_encoding=EMBEDDED))
    plain = checked(lines(KSPACE)).data.data
    assert off(found.data.data[:, ::2], plain[:, ::2]) < 0.02
    assert off(found.ref.data[:, 21:44:2], plain[:, 21:44:2]) < 0.02


def contrasts(shift, constant, count, field):
    """Echoes of alternating polarity; off-resonance adds a linear and a constant phase to each one after the first."""
    measured = []
    for contrast in range(count):
        echo = PolarityPhase(-field[0] * contrast, -field[1] * contrast).removed(KSPACE)
        for y in range(64):
            if contrast % 2:
                measured.append(line(backwards(echo[:, y], shift, constant), y, flags=[REVERSE], contrast=contrast))
            else:
                measured.append(line(echo[:, y], y, contrast=contrast))
    return measured


def difference(found, contrast):
    """Shift in samples of the recorded readout, and constant, of a contrast against the first one."""
    from gadgets.polarity import between, fitted

    phase = fitted(between(found[..., 0, 0, 0], found[..., contrast, 0, 0]))
    return 2 * phase.shift, phase.constant


@pytest.mark.parametrize("count", [3, 4])
def test_echoes_of_alternating_polarity_keep_their_off_resonance(count):
    found = checked(contrasts(0.8, 0.5, count, (0.2, 0.3))).data.data
    for contrast in range(1, count):
        assert difference(found, contrast) == pytest.approx((0.2 * contrast, 0.3 * contrast), abs=0.05)


def test_two_echoes_lose_the_linear_phase_only():
    found = checked(contrasts(0.8, 0.5, 2, (0.0, 0.3))).data.data
    assert difference(found, 1) == pytest.approx((0.0, 0.8), abs=0.05)


def test_averages_of_both_polarities_are_brought_into_one_phase(truth):
    measured = [*polarity(0.0, 0.0, lambda y: False), *polarity(0.6, 2.5, lambda y: True)]
    for one in measured[64:]:
        one.idx.average = 1
    found = checked(measured).data.data
    assert off(found[..., 1, 0], truth[..., 0, 0]) < 0.02


def test_a_phase_that_the_image_does_not_tell_is_told(caplog):
    with caplog.at_level(logging.WARNING, "genrecon"):
        checked([one for one in polarity(0.0, 0.0, lambda y: y == 40) if one.idx.kspace_encode_step_1 in {0, 40}])
    assert "whose data do not tell the phase between them" in caplog.text


def placed(count):
    """A slice in which navigators took the places of some lines."""
    parsed, data = buffers(lines(KSPACE))
    headers = data[0].bits[0].data.headers
    for place in [index for index, _ in np.ndenumerate(headers)][:count]:
        headers[place] = copy.copy(headers[place])
        headers[place].set_flag(NAVIGATOR)
        data[0].bits[0].data.data[:, place[0]] = noise((64, 1, 4, 1, 1, 1))
    return parsed, data


def test_navigators_in_a_buffer_are_taken_out_and_told(truth, caplog):
    parsed, data = placed(4)
    with caplog.at_level(logging.WARNING, "genrecon"):
        (found,) = checked_readouts(data, parsed)
    buffer = found.bits[0].data
    assert not buffer.data[:, :4].any()
    np.testing.assert_array_equal(buffer.data[:, 4:], truth[:, 4:])
    assert [head.number_of_samples > 0 for head in buffer.headers.flat] == [False] * 4 + [True] * 60
    assert "4 navigator readouts had been placed among 64 lines of an image and are taken out" in caplog.text


def test_an_image_that_may_have_lost_lines_to_navigators_is_refused():
    parsed, data = placed(7)
    with pytest.raises(ReconError, match=r"^7 navigator readouts had been placed .* put gadgets.image_lines"):
        list(checked_readouts(data, parsed))


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        (header(), 0.3),  # of 2.5 ms: a line every 0.75 ms
        (header(in_encoding="<echoTrainLength>64</echoTrainLength>"), 0.0),
    ],
)
def test_one_echo_train_of_alternating_polarity_is_refused_as_epi(text, ticks):
    measured = polarity(0.0, 0.0, lambda y: y % 2)
    for number, one in enumerate(measured):
        one.acquisition_time_stamp = round(ticks and 1000 + ticks * number)
        one.scan_counter = number + 1
    with pytest.raises(ReconError, match=r"^acquisition 1: one echo train of alternating polarity .* \(EPI\)"):
        checked(measured, text)


@pytest.mark.parametrize("ticks", [1, 800])
def test_lines_of_alternating_polarity_in_repetition_times_of_their_own_are_not_refused(ticks, truth):
    measured = polarity(0.0, 0.0, lambda y: y % 2)
    for number, one in enumerate(measured):
        one.acquisition_time_stamp = 1000 + ticks * number
    text = header(after="<sequenceParameters><TR>600</TR></sequenceParameters>")  # of the whole image, as for bSSFP
    assert off(checked(measured, text).data.data, truth) < 0.02


def test_marker_of_echoes_of_alternating_polarity(tmp_path):
    limits = {"contrast": (0, 1, 0)}
    raw = write(tmp_path / "scan.h5", (header(limits=limits), contrasts(0.8, 0.5, 2, (0.0, 0.0))))
    _, images = replay(raw, tmp_path / "out")
    assert len(images) == 2
    for image in images:
        assert marker(image) == pytest.approx(MARKER, abs=0.05)
