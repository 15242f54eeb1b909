"""The gadget that compresses coils."""

from __future__ import annotations

import numpy as np
import pytest
from gadgetron.types import ReconData

from gadgets.coil_compression import CoilCompression
from tests.gadgets.scans import buffered, run, two_spaces


@pytest.mark.parametrize("changes", [{}, {"matrix": (16, 24, 12), "calibration_lines": 8}])
def test_compression_keeps_the_signal_and_what_was_sampled(changes):
    header, (before,) = buffered(**changes, coils=8)
    (after,) = run(header, [before], CoilCompression, virtual_coils=5)
    for old, new in ((before[0].data, after[0].data), (before[0].ref, after[0].ref)):
        assert new.data.shape[3] == 5
        np.testing.assert_array_equal((new.data != 0).any(axis=3), (old.data != 0).any(axis=3))
        kept = np.linalg.norm(new.data) ** 2 / np.linalg.norm(old.data) ** 2
        assert 0.95 < kept <= 1.00001
        assert {line.active_channels for line in new.headers.flat if line.number_of_samples} == {5}
    assert before[0].data.data.shape[3] == 8


def test_energy_decides_the_number_of_virtual_coils():
    header, (item,) = buffered(coils=8)
    counts = [run(header, [item], CoilCompression, energy=e)[0][0].data.data.shape[3] for e in (0.6, 0.9, 1.0)]
    assert counts[0] < counts[1] < counts[2] == 8


def test_without_a_fraction_of_energy_the_noise_decides():
    quiet, loud = ({"coils": 12, "noise_level": level, "noise_scan": True} for level in (0.002, 0.2))
    counts = {}
    for name, changes in (("quiet", quiet), ("loud", loud), ("no noise scan", loud | {"noise_scan": False})):
        header, (item,) = buffered(**changes)
        counts[name] = run(header, [item], CoilCompression)[0][0].data.data.shape[3]
    assert counts["loud"] < counts["quiet"] <= 12
    assert counts["loud"] <= counts["no noise scan"] < 12  # its noise is estimated low where the lines are few


def test_compression_none_and_one_coil_pass_unchanged():
    header, (item,) = buffered()
    assert run(header, [item], CoilCompression, method="none")[0] is item
    header, (item,) = buffered(coils=1, sampling="random")
    assert run(header, [item], CoilCompression)[0][0] is item[0]


def test_all_repetitions_get_the_same_virtual_coils():
    header, items = buffered(repetitions=2, calibration_repetitions="first", repetition_change=0.0)
    assert [item[0].ref is None for item in items] == [False, True]
    first, second = run(header, items, CoilCompression, virtual_coils=3)
    np.testing.assert_allclose(second[0].data.data, first[0].data.data, atol=1e-6)


def test_each_encoding_space_has_virtual_coils_of_its_own():
    header, items = two_spaces()
    both = run(header, items, CoilCompression, virtual_coils=3)
    for space in (0, 1):
        alone = run(header, [ReconData([item[space]]) for item in items], CoilCompression, virtual_coils=3)
        for item, expected in zip(both, alone, strict=True):
            np.testing.assert_array_equal(item[space].data.data, expected[0].data.data)
