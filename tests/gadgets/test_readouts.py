"""Where the samples of a readout are in k-space."""

from __future__ import annotations

import logging
from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.readouts import WholeReadouts, readout_extent
from gadgets.stream import ReconError
from gadgets.twins import AsymmetricEchoAdjustROGadget, RemoveROOversamplingGadget
from tests.raw_files import header, line

WHOLE = 128
RAMP = np.arange(1, WHOLE + 1, dtype=np.complex64) + 0j
BASE = {"encoded": (64, 64, 1), "encoded_extent": (150, 150, 5)}  # a header without the oversampling


def parsed(**changes: Any) -> Any:
    return ismrmrd.xsd.CreateFromDocument(header(**changes))


def whole(head: Any, *readouts: tuple[Any, dict[str, int]]) -> list[ismrmrd.Acquisition]:
    """What the readouts are when they are whole; all are of two coils."""
    items = [line(np.stack([data, 2 * data]), step, **fields) for step, (data, fields) in enumerate(readouts)]
    return list(WholeReadouts(head)(items))


def echo(samples: Any, centre: int) -> Any:
    """Readouts whose energy is at one sample."""
    return np.where(np.arange(samples) == centre, 100, 1).astype(np.complex64)


def test_whole_readouts_pass_as_they_are() -> None:
    item = line(np.stack([RAMP, RAMP]), 3)
    assert next(WholeReadouts(parsed())(iter([item]))) is item


def test_discarded_samples_within_the_matrix_become_zeros() -> None:
    (item,) = whole(parsed(), (RAMP, {"discard_pre": 5, "discard_post": 3}))
    assert (item.discard_pre, item.discard_post, item.center_sample, item.number_of_samples) == (5, 3, 64, WHOLE)
    np.testing.assert_array_equal(item.data[0], np.where((RAMP.real > 5) & (RAMP.real <= 125), RAMP, 0))


@pytest.mark.parametrize("changes", [{}, BASE], ids=["oversampled header", "base resolution"])
def test_discarded_samples_beside_the_matrix_are_left_out(changes: dict[str, Any]) -> None:
    data = np.concatenate([np.full(8, 1e6), RAMP, np.full(4, 1e6)])
    (item,) = whole(parsed(**changes), (data, {"discard_pre": 8, "discard_post": 4, "center_sample": 72}))
    np.testing.assert_array_equal(item.data[0], RAMP)
    assert (item.discard_pre, item.discard_post, item.center_sample) == (0, 0, 64)


def test_discarded_samples_of_noise_are_cut_off() -> None:
    noise = line(np.ones((2, 20)), 0, flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT], discard_pre=3, discard_post=2)
    noise.data[:, :3] = noise.data[:, -2:] = 1e6
    (item,) = WholeReadouts(parsed())([noise])
    np.testing.assert_array_equal(item.data, np.ones((2, 15)))
    assert (item.discard_pre, item.discard_post) == (0, 0)


@pytest.mark.parametrize("changes", [{}, BASE], ids=["oversampled header", "base resolution"])
@pytest.mark.parametrize(("start", "stop", "centre"), [(32, 128, 32), (0, 96, 64), (0, 100, 64), (30, 126, 34)])
def test_partial_echoes_are_placed_by_center_sample(changes: Any, start: int, stop: int, centre: int) -> None:
    (item,) = whole(parsed(**changes), (RAMP[start:stop], {"center_sample": centre}))
    expected = np.where((np.arange(WHOLE) >= start) & (np.arange(WHOLE) < stop), RAMP, 0)
    np.testing.assert_array_equal(item.data[0], expected)
    assert (item.discard_pre, item.discard_post, item.center_sample) == (start, WHOLE - stop, 64)


@pytest.mark.parametrize("given", [0, 32, 96, 128, 500])
@pytest.mark.parametrize("changes", [{}, BASE], ids=["oversampled header", "base resolution"])
def test_a_wrong_center_sample_of_whole_readouts_is_told_by_their_energy(
    changes: Any, given: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        items = whole(parsed(**changes), *[(echo(WHOLE, 64), {"center_sample": given})] * 3)
    for item in items:
        np.testing.assert_array_equal(item.data[0], echo(WHOLE, 64))
        assert item.center_sample == 64
    assert len(caplog.messages) == 1


def test_an_echo_beside_the_middle_of_a_whole_readout_is_brought_there() -> None:
    for item in whole(parsed(), *[(echo(WHOLE, 30), {"center_sample": 30})] * 3):
        assert abs(item.data[0]).argmax() == item.center_sample == 64


@pytest.mark.parametrize(("samples", "at", "given"), [(96, 32, 64), (96, 32, 0), (96, 64, 0), (96, 64, 64)])
def test_the_side_that_was_cut_is_told_by_the_energy(samples: int, at: int, given: int) -> None:
    for item in whole(parsed(), *[(echo(samples, at), {"center_sample": given})] * 3):
        assert abs(item.data[0]).argmax() == 64
        assert (item.discard_pre, item.discard_post) == ((32, 0) if at == 32 else (0, 32))


def test_a_side_that_energy_does_not_tell_is_refused() -> None:
    with pytest.raises(
        ReconError, match=r"center_sample 0 of readouts of 96 samples is wrong.*; correct center_sample"
    ):
        whole(parsed(), (np.ones(96), {"center_sample": 0}))


@pytest.mark.parametrize(
    ("changes", "samples", "extent"),
    [
        ({}, 128, 300),
        ({}, 64, 150),  # the oversampling was removed
        ({}, 256, 600),
        ({"encoded": (256, 64, 1), "encoded_extent": (600, 150, 5)}, 128, 300),  # in part
        (BASE, 64, 150),
        (BASE, 128, 300),
        (BASE, 80, 187.5),
        (BASE, 192, 450),
        ({"encoded": (64, 64, 1), "encoded_extent": (150, 150, 5), "recon": (128, 64, 1)}, 128, 150),  # matrix wrong
        ({"encoded": (64, 64, 1), "encoded_extent": (150, 150, 5), "recon": (128, 128, 1)}, 128, 300),  # interpolated
        ({"encoded": (126, 64, 1), "recon": (63, 64, 1)}, 63, 150),
    ],
)
def test_field_of_view_by_the_samples_that_come(changes: dict[str, Any], samples: int, extent: float) -> None:
    assert readout_extent(parsed(**changes).encoding[0], samples) == pytest.approx(extent)


@pytest.mark.parametrize("samples", [124, 96, 50, 40])
def test_samples_that_no_oversampling_explains_are_refused(samples: int) -> None:
    with pytest.raises(
        ReconError, match=rf"has {samples} samples, the header's encoded matrix is 128; .*: give matrix"
    ):
        whole(parsed(), (np.ones(samples), {}))


def test_readouts_of_two_sizes_in_one_encoding_are_refused() -> None:
    with pytest.raises(ReconError, match="came after others of 128 in encoding 0; give them encodings of their own"):
        whole(parsed(), (RAMP, {}), (RAMP[32:96], {}))


@pytest.mark.parametrize(
    ("changes", "samples", "kept", "centre"),
    [
        ({}, 128, 64, 32),
        ({}, 64, 64, 32),
        ({}, 256, 64, 32),
        (BASE, 128, 64, 32),
        (BASE, 80, 64, 32),
        (BASE, 95, 64, 32),
        ({"encoded": (126, 64, 1)}, 252, 63, 32),  # as from 126 samples: the image's header knows
        ({"encoded": (126, 64, 1)}, 63, 63, 32),
    ],
)
def test_oversampling_is_cut_to_the_reconstructed_field_of_view(
    changes: dict[str, Any], samples: int, kept: int, centre: int
) -> None:
    """An object at the centre stays there."""
    head = parsed(**changes)
    item = next(WholeReadouts(head)([line(np.ones((1, samples)), 0)]))
    for kind in (AsymmetricEchoAdjustROGadget, RemoveROOversamplingGadget):
        gadget = kind()
        gadget.configure(head, {})
        (item,) = gadget.process(iter([item]))
    assert (item.number_of_samples, item.center_sample) == (kept, kept // 2)
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(item.data[0])))
    assert abs(image).argmax() == centre
