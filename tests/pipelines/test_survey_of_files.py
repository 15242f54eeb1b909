"""What a header announces, beside what came; warnings of images and files that are fewer than they seem."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.info import describe
from tests.raw_files import header, kspace, line, lines, replay, write


def test_info_shows_announced_beside_found(tmp_path: Path) -> None:
    head = header(limits={"repetition": (0, 9999, 0), "phase": (0, 2, 0), "set": (0, 0, 0)})
    data = kspace()
    made = [one for phase in range(5) for one in lines(data, phase=phase, slice=phase * 2)]
    rows = dict(describe(write(tmp_path / "scan.h5", (head, made))))
    assert rows["counters 0"] == (
        "kspace_encode_step_1 0..63 (header 0..63), slice 5 of 0..8 (header nothing), phase 0..4 (header 0..2), "
        "repetition 0 (header 0..9999)"
    )


@pytest.mark.parametrize("counter", ["repetition", "slice"])
def test_an_image_of_a_fraction_of_the_lines_is_marked(tmp_path: Path, counter: str) -> None:
    data = kspace()
    made = [*lines(data), *lines(data, range(20, 40), **{counter: 1})]
    head = header(limits={counter: (0, 1, 0)})
    result, images = replay(write(tmp_path / "scan.h5", (head, made)), tmp_path / "out")
    assert "only 20 lines came, other images have 64: the image is not complete" in result.warnings
    assert "GenerativeRecon: 1 of 2 images have a fraction of their lines; they are marked" in result.warnings
    assert ["not complete" in image.get("ImageComments", "") for image in images] == [False, True]


def test_single_lines_are_no_images(tmp_path: Path) -> None:
    made = [line(kspace()[:, y], y, repetition=y) for y in range(30, 34)]
    result, images = replay(write(tmp_path / "scan.h5", (header(), made)), tmp_path / "out")
    assert len(images) == 4
    assert "only 1 of 64 lines came: the image is not complete" in result.warnings


def test_combinations_of_counters_that_did_not_come_are_no_images(tmp_path: Path) -> None:
    data = kspace()
    made = [*lines(data), *lines(data, contrast=1), *lines(data, contrast=3, phase=1)]
    _, images = replay(write(tmp_path / "scan.h5", (header(), made)), tmp_path / "out")
    assert len(images) == 3
    assert [int(image.InstanceNumber) for image in images] == [1, 2, 8]


def test_temporal_positions_are_those_that_came(tmp_path: Path) -> None:
    data = kspace()
    made = [one for repetition in range(2) for one in lines(data, repetition=repetition)]
    head = header(limits={"repetition": (0, 9999, 0)})
    _, images = replay(write(tmp_path / "scan.h5", (head, made)), tmp_path / "out")
    assert [(image.TemporalPositionIdentifier, image.NumberOfTemporalPositions) for image in images] == [(1, 2), (2, 2)]
