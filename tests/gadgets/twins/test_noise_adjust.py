"""The mark of prewhitened lines: who gets it, and that it reaches the reconstruction."""

from __future__ import annotations

import dataclasses

import ismrmrd
import numpy as np
import pytest
from gadgetron.types import ReconData

from gadgets.buffers import replace_data
from gadgets.noise.lines import NoiseLines
from gadgets.twins import TWINS, NoiseAdjustGadget
from gadgets.twins.noise_adjust import PREWHITENED, is_prewhitened
from pipelines.simulation import SimulationSettings, simulate
from tests import noise_scans, raw_files

BUFFERING = (
    ("AcquisitionAccumulateTriggerGadget", {"trigger_dimension": "repetition", "sorting_dimension": "slice"}),
    ("BucketToBufferGadget", {"split_slices": "true"}),
)
SCAN = SimulationSettings(matrix=(16, 16, 1), coils=2, noise_scan=True, noise_level=0.01, calibration_lines=4)


def headers(noise_scan=True, order=lambda lines: lines, **properties):
    """Headers of the buffer of a scan behind NoiseAdjustGadget."""
    simulation = simulate(dataclasses.replace(SCAN, noise_scan=noise_scan))
    items = iter(order(list(simulation.acquisitions())))
    for name, settings in (("NoiseAdjustGadget", properties), *BUFFERING):
        gadget = TWINS[name]()
        gadget.configure(simulation.header, settings)
        items = gadget.process(items)
    (recon_data,) = [item for item in items if isinstance(item, ReconData)]
    buffer = recon_data.bits[0].data
    return replace_data(buffer, buffer.data[:, :, :, :1]).headers  # as coil compression hands them on


def late_noise(lines):
    first = next(line for line in lines if not line.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT))
    return [first, *(line for line in lines if line is not first)]


def marked(lines):
    for line in lines:
        line.set_flag(PREWHITENED)
    return lines


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"noise_scan": False}, False),
        ({"noise_scan": False, "order": marked}, False),
        ({"order": late_noise}, False),
        ({"perform_noise_adjust": "false"}, False),
    ],
    ids=["noise scan", "none", "none, a flag of the raw data", "noise scan after some lines", "switched off"],
)
def test_only_what_was_prewhitened_is_marked(options, expected):
    assert is_prewhitened(headers(**options)) is expected


def test_a_buffer_without_lines_is_not_prewhitened():
    never = ismrmrd.AcquisitionHeader()
    assert not is_prewhitened(np.array([never, never], dtype=object))


def test_lines_of_another_coil_count_are_not_marked():
    simulation = simulate(SCAN)
    lines = list(simulation.acquisitions())
    head = lines[-2].getHead()
    head.active_channels = 1
    gadget = NoiseAdjustGadget()
    gadget.configure(simulation.header, {})
    one_coil = ismrmrd.Acquisition(head, lines[-2].data[:1])
    noise = [line for line in lines if line.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]
    first, second = gadget.process(iter([*noise, lines[-1], one_coil]))
    assert first.is_flag_set(PREWHITENED)
    assert not second.is_flag_set(PREWHITENED)


# --- the matrix -----------------------------------------------------------------------------------------------------


def whitened(lines, noise=None, **properties):
    """The data lines behind the gadget, for a header with coil labels."""
    gadget = NoiseAdjustGadget()
    gadget.configure(ismrmrd.xsd.CreateFromDocument(noise_scans.header().encode()), properties)
    gadget.noise = noise
    return list(gadget.process(iter(lines)))


def line(**fields):
    return raw_files.line(np.ones((4, 8)), 0, **fields)


@pytest.mark.parametrize(
    ("data_us", "noise_us", "preset", "factor"),
    [
        (5.0, 5.0, "0", 1.0),
        (20.0, 5.0, "0", 2.0),
        (5.0, 20.0, "0", 0.5),
        (5.0, 20.0, "5", 0.5),
        (5.0, 0.0, "20", 0.5),
        (5.0, 0.0, "0", (2 * 0.793) ** -0.5),
    ],
    ids=["equal", "longer data", "longer noise", "preset does not count", "preset", "not known"],
)
def test_dwell_times(data_us, noise_us, preset, factor):
    (expected,) = whitened([*noise_scans.noise_lines(), line()])
    lines = [*noise_scans.noise_lines(sample_time_us=noise_us), line(sample_time_us=data_us)]
    (found,) = whitened(lines, noise_dwell_time_us_preset=preset)
    np.testing.assert_allclose(found.data, factor * expected.data, rtol=1e-5)
    assert found.is_flag_set(PREWHITENED) == bool(noise_us or float(preset))  # else its noise level is not known


def test_few_samples_scale_each_coil_by_itself(caplog):
    noise = noise_scans.noise_lines(1)[0]
    few = raw_files.line(noise.data[:, :7], 0, flags=[noise_scans.NOISE])
    (found,) = whitened([few, line()])
    levels = np.sqrt((np.abs(few.data) ** 2).sum(1) / 6)
    np.testing.assert_allclose(found.data[:, 0], np.sqrt(2 * 0.793) / levels, rtol=1e-5)
    assert "the noise scan has 7 samples of 4 coils" in caplog.text


def test_noise_of_another_measurement_is_that_in_the_stream():
    lines = noise_scans.noise_lines()
    noise = NoiseLines()
    for one in lines:
        noise.add(one)
    scan = noise.noise(ismrmrd.xsd.CreateFromDocument(noise_scans.header().encode()), 4)
    (own,) = whitened([*lines, line()])
    (other,) = whitened([line()], scan)
    assert np.array_equal(own.data, other.data) and other.is_flag_set(PREWHITENED)
    (instead,) = whitened([*noise_scans.noise_lines(3), line()], scan)
    assert np.array_equal(own.data, instead.data)
