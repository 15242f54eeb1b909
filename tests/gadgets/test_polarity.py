"""The phase between readouts of opposite polarity, estimated where shift and constant are known."""

from __future__ import annotations

import numpy as np
import pytest
from raw_files import kspace, noise

from gadgets.polarity import PolarityPhase, between, fitted, within_image

KSPACE = kspace(samples=(64, 64), extent=(150.0, 150.0)).transpose(2, 1, 0)[:, :, None]  # RO, E1, E2, CHA
EVERY = np.ones((64, 1), dtype=bool)
ODD = (np.arange(64) % 2 == 1)[:, None]
PAIRS = (np.arange(64) // 2 % 2 == 1)[:, None]  # each polarity twice: no ambiguity of half a field of view


def delayed(data, lines, shift, constant, axis=0):
    """k-space whose `lines` [E1, E2] came late by `shift` samples and with a constant phase."""
    changed = data.copy()
    changed[:, lines] = PolarityPhase(-shift, -constant).removed(data[:, lines], axis)
    return changed


def test_a_shift_of_whole_samples_moves_them():
    lines = noise((3, 32))
    np.testing.assert_allclose(PolarityPhase(2.0, 0.0).removed(lines), np.roll(lines, -2, axis=1), atol=1e-5)


def test_what_was_removed_is_put_back_by_its_opposite():
    lines = noise((32, 3))
    back = PolarityPhase(-0.37, -1.2).removed(PolarityPhase(0.37, 1.2).removed(lines, 0), 0)
    np.testing.assert_allclose(back, lines, atol=1e-5)


@pytest.mark.parametrize(("shift", "constant"), [(0.0, 0.0), (0.4, 0.5), (-1.6, 3.0), (7.3, -2.0)])
def test_phase_between_the_same_lines_of_both_polarities(shift, constant):
    other = delayed(KSPACE, EVERY, shift, constant)
    found = fitted(between(KSPACE, other))
    assert found.shift == pytest.approx(shift, abs=1e-3)
    assert np.angle(np.exp(1j * (found.constant - constant))) == pytest.approx(0.0, abs=1e-3)


def test_phase_of_nothing_is_none():
    assert fitted(np.zeros(16, dtype=np.complex64)) == PolarityPhase(0.0, 0.0)


@pytest.mark.parametrize("constant", [-2.8, -1.2, 0.4, 2.2, 3.1])
def test_of_two_constants_that_is_taken_whose_object_is_in_the_middle(constant):
    data = delayed(KSPACE, ODD, 1.3, constant) + 2e-4 * abs(KSPACE).max() * noise(KSPACE.shape)
    assert within_image(data, EVERY, ODD).constant == pytest.approx(constant, abs=0.02)


@pytest.mark.parametrize("acceleration", [1, 2, 3])
@pytest.mark.parametrize(("shift", "constant"), [(0.0, 0.0), (0.35, 0.5), (-1.0, -1.2)])
def test_phase_between_lines_of_one_image(shift, constant, acceleration):
    measured = (np.arange(64) % acceleration == 0)[:, None]
    backward = (np.arange(64) // acceleration % 2 == 1)[:, None]
    if acceleration == 3:  # with a calibration region
        measured[20:44], backward = True, ODD
    data = delayed(KSPACE, backward, shift, constant) + 2e-4 * abs(KSPACE).max() * noise(KSPACE.shape)
    data = np.where(measured[None, ..., None], data, 0).astype(np.complex64)
    found = within_image(data, measured, backward)
    assert found.shift == pytest.approx(shift, abs=0.02)
    assert found.constant == pytest.approx(constant, abs=0.02)


def test_a_constant_above_half_a_turn_is_found_where_polarities_do_not_alternate():
    found = within_image(delayed(KSPACE, PAIRS, 0.3, 2.5), EVERY, PAIRS)
    assert (found.shift, found.constant) == pytest.approx((0.3, 2.5), abs=0.02)


def test_polarities_that_alternate_along_the_partitions():
    volume = kspace(samples=(32, 24, 16), extent=(150.0, 150.0, 80.0)).transpose(3, 2, 1, 0)
    measured = np.ones((24, 16), dtype=bool)
    backward = np.broadcast_to(np.arange(16) % 2 == 1, (24, 16))
    found = within_image(delayed(volume, backward, 0.5, -0.4), measured, backward)
    assert (found.shift, found.constant) == pytest.approx((0.5, -0.4), abs=0.05)


def test_lines_without_neighbours_of_the_other_polarity_give_no_phase():
    measured = np.zeros((64, 1), dtype=bool)
    measured[[0, 40]] = True
    backward = np.zeros_like(measured)
    backward[40] = True
    assert within_image(np.where(measured[None, ..., None], KSPACE, 0), measured, backward) is None


def test_noise_gives_no_phase():
    assert within_image(noise(KSPACE.shape), EVERY, ODD) is None


def test_fewer_lines_than_the_coils_can_tell_apart_give_no_phase():
    measured = (np.arange(64) % 3 == 0)[:, None]
    backward = (np.arange(64) // 3 % 2 == 1)[:, None]
    assert within_image(np.where(measured[None, ..., None], KSPACE, 0), measured, backward) is None
