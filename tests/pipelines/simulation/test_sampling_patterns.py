"""Sampling patterns: their acceleration, centre and distances."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.simulation.sampling import PATTERNS, poisson_disc


@pytest.mark.parametrize(("pattern", "factor"), [("poisson", 3), ("uniform", 2), ("random_lines", 2)])
def test_patterns(pattern, factor):
    mask = PATTERNS[pattern]((96, 80), factor, centre=16)
    assert mask[40:56, 32:48].all() and mask.sum() == pytest.approx(mask.size / factor, rel=0.2)
    assert np.array_equal(mask, PATTERNS[pattern]((96, 80), factor, centre=16))
    # Where the centre is already more than wanted, there is nothing beside it.
    assert PATTERNS["poisson"]((48, 48), 8).sum() == 24 * 24


def test_thin_matrices_have_their_centre_in_the_middle():
    mask = PATTERNS["poisson"]((64, 16), 3)
    assert mask[20:44].all() and mask.sum() >= 24 * 16
    assert PATTERNS["uniform"]((20, 64), 4).all()


def test_poisson_disc_keeps_its_distance() -> None:
    pattern = poisson_disc(np.ones((64, 48), bool), 300, np.random.default_rng(1), density_slope=0.0)
    places = np.argwhere(pattern)
    assert len(places) == 300
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    assert apart[apart > 0].min() > 2
