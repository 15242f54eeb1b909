"""The gadget that compresses coils."""

from __future__ import annotations

import numpy as np
import pytest
from gadgetron.types import ReconData
from gadgetron.types.recon_data import ReconBit

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
    def coils(level, noise_scan, **properties):
        header, (item,) = buffered(coils=12, noise_level=level, noise_scan=noise_scan)
        return run(header, [item], CoilCompression, **properties)[0][0].data.data.shape[3]

    for noise_scan in (True, False):
        assert coils(0.002, noise_scan, energy=0.995) < coils(0.002, noise_scan) <= 12
        # Where there is much noise it makes half a percent of the energy, and hides no signal that is worth a coil.
        assert coils(0.3, noise_scan) == coils(0.3, noise_scan, energy=0.995)


def test_samples_left_out_within_lines_do_not_look_like_less_noise():
    """A 2D mask and no calibration lines: coils of noise alone are not kept."""
    header, (item,) = buffered(matrix=(64, 64, 1), coils=12, noise_level=0, noise_scan=False, acceleration=1)
    data, generator = item[0].data.data, np.random.default_rng(0)
    data[:, :, :, 4:] = 0
    level = 0.01 * np.abs(data).std()
    data += level * (generator.standard_normal(data.shape) + 1j * generator.standard_normal(data.shape))
    x, y = np.meshgrid(*[np.arange(size) - size // 2 for size in data.shape[:2]], indexing="ij")
    data[(np.hypot(x, y) > 12) & (generator.random(x.shape) < 0.8)] = 0
    (after,) = run(header, [ReconData([ReconBit(item[0].data, None)])], CoilCompression)
    assert 3 <= after[0].data.data.shape[3] <= 5


def test_calibration_without_signal_keeps_the_coils_that_later_images_need():
    header, (item,) = buffered(coils=8, noise_level=0.01, noise_scan=True)
    generator = np.random.default_rng(0)
    for buffer in (item[0].data, item[0].ref):
        parts = generator.standard_normal((2, *buffer.data.shape))
        buffer.data[:] = (parts[0] + 1j * parts[1]) * (buffer.data != 0)
    assert run(header, [item], CoilCompression)[0][0].data.data.shape[3] == 8


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
