"""One pixel scale for all images of a scan."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from gadgets.espirit import Espirit
from gadgets.generative_recon import GenerativeRecon
from gadgets.images import SCALE_RATIO, meta_of, meta_values
from gadgets.outputs import STANDARD_DEVIATION
from gadgets.pixel_scale import FULL_SCALE, MOST_WITHOUT_SIGNAL, PixelScale, has_signal
from tests.gadgets.scans import buffered, run
from tests.raw_files import kspace, noise


def test_the_scale_is_that_of_the_first_image_for_all_that_fit() -> None:
    scale = PixelScale("gadget", 2000.0, 0.0)
    image = torch.rand(1, 32, 32)
    scale.take(image)
    assert np.percentile(image * scale.of(image), 99.9) == pytest.approx(2000, rel=0.01)
    assert scale.of(10 * image) == scale.of(0.01 * image) == scale.of(image)
    assert scale.of(image / 10, STANDARD_DEVIATION) == 16 * scale.of(image)


@pytest.mark.parametrize("deviations", [False, True])
def test_what_16_bit_cannot_hold_has_a_smaller_scale_and_a_warning(
    deviations: bool, caplog: pytest.LogCaptureFixture
) -> None:
    scale = PixelScale("gadget", 2000.0, 10.0)
    bright = torch.full((1, 4, 4), 5000.0)
    of = partial(scale.of, output=STANDARD_DEVIATION) if deviations else scale.of
    with caplog.at_level(logging.WARNING):
        found = [of(bright), of(bright)]
    assert found[0] == found[1] and 5000 * found[0] <= FULL_SCALE
    assert len(caplog.messages) == 1 and "set property pixel_scale" in caplog.messages[0]


def test_intensities_that_are_to_be_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    scale = PixelScale("gadget", 0.0, 0.0)
    assert scale.of(torch.full((1, 4, 4), 1e9)) == scale.of(torch.zeros(1, 4, 4)) == 1
    assert not caplog.messages
    assert scale.of(torch.full((1, 4, 4), 0.3)) == scale.of(torch.full((1, 4, 4), 0.2)) == 1
    assert len(caplog.messages) == 1 and "the brightest pixel of an image has the value 0.3" in caplog.messages[0]


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("step", [1, 2])
def test_signal_is_told_from_noise(coils: int, step: int) -> None:
    mask = torch.zeros(1, 64, 128, dtype=torch.bool)
    mask[:, ::step] = True
    for seed in range(10):
        empty = torch.from_numpy(noise((1, coils, 64, 128), seed=seed))
        assert not has_signal(empty * mask, mask)
        signal = torch.from_numpy(kspace()[None, :coils])
        weak = signal / signal.abs().max() * 10 + empty  # ten times the noise at the centre of k-space
        assert has_signal(weak * mask, mask)
    assert not has_signal(torch.zeros(1, coils, 64, 128), mask)


def scan(order: list[str]) -> tuple[Any, list[Any]]:
    """Header and buffers with coil maps: noise, or k-space times the number by which an item is called."""
    header, (item,) = buffered()
    random = np.random.default_rng(0)
    items = []
    for kind in order:
        image = copy.deepcopy(item)
        for buffer in (image[0].data, image[0].ref):
            empty = random.standard_normal((2, *buffer.data.shape)).astype(np.float32) * 1e-4
            wanted = empty[0] + 1j * empty[1] if kind == "noise" else float(kind) * buffer.data
            buffer.data = np.asfortranarray(wanted * (buffer.data != 0), dtype=np.complex64)
        items.append(image)
    return header, run(header, items, Espirit)


def scaled_levels(order: list[str]) -> list[float]:
    """Levels of the images of a scan, which have one scale."""
    header, items = scan(order)
    arrays = run(header, items, GenerativeRecon, method="cg_sense")
    assert len({meta_values(meta_of(array.meta[0]), SCALE_RATIO)[0] for array in arrays}) == 1
    return [float(np.percentile(np.abs(array.data), 99.9)) for array in arrays]


@pytest.mark.parametrize("order", [["noise", "1", "0.9", "1.3"], ["noise", "noise", "1"], ["1", "noise", "1.3"]])
def test_images_of_noise_do_not_give_the_scale(order: list[str]) -> None:
    levels = scaled_levels(order)
    first = order.index("1")
    for kind, level in zip(order, levels, strict=True):
        if kind == "noise":
            assert level < 0.1 * levels[first]
        else:
            assert level == pytest.approx(2048 * float(kind), rel=0.05)


def test_a_scan_of_noise_alone_is_scaled_by_its_first_image() -> None:
    assert scaled_levels(["noise", "noise"])[0] == pytest.approx(2048, rel=0.05)


def test_images_do_not_wait_for_signal_without_end() -> None:
    header, items = scan(["noise"] * (MOST_WITHOUT_SIGNAL + 1))
    taken = 0

    def counted() -> Iterator[Any]:
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    gadget = GenerativeRecon()
    gadget.configure(header, {"method": "zero_filled"})
    images = gadget.process(counted())
    next(images)
    assert taken == MOST_WITHOUT_SIGNAL
    assert len(list(images)) == MOST_WITHOUT_SIGNAL
