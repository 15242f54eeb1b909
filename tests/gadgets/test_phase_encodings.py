"""How much of k-space the phase encodings cover."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ismrmrd
import pytest

from gadgets.phase_encodings import partition_axis, phase_axis
from gadgets.stream import ReconError
from tests.raw_files import header


def encoding(**changes: Any) -> Any:
    return ismrmrd.xsd.CreateFromDocument(header(**changes)).encoding[0]


def limits(low: int, high: int, centre: int, step: int = 1) -> dict[str, tuple[int, int, int]]:
    return {f"kspace_encoding_step_{step}": (low, high, centre)}


def lines(steps: Iterable[int], centre: int | None = None) -> dict[int, float]:
    """Energies of lines, one of them far above the others."""
    return {step: 100.0 if step == centre else 1.0 for step in steps}


@pytest.mark.parametrize(
    ("announced", "steps", "centre"),
    [
        ((0, 63, 32), range(64), 32),
        ((0, 63, 32), range(1, 65), 33),  # counted from 1
        ((0, 63, 32), range(100, 164), 132),
        ((0, 63, 0), range(64), 32),
        ((0, 0, 0), range(64), 32),
        ((0, 20, 10), range(64), 32),
        ((0, 500, 32), range(64), 32),
        ((0, 43, 12), range(44), 12),  # partial Fourier
        ((0, 63, 32), range(0, 64, 2), 32),
        ((7, 3, 5), range(64), 32),
    ],
)
def test_centre_of_lines_that_fit_the_matrix(announced: tuple[int, int, int], steps: Any, centre: int) -> None:
    axis = phase_axis(encoding(limits=limits(*announced)), lines(steps))
    assert (axis.size, axis.centre, axis.extent) == (64, centre, 150)


def test_centre_that_the_header_lacks_is_told_by_the_energy() -> None:
    assert phase_axis(encoding(limits=limits(0, 0, 0)), lines(range(44), centre=12)).centre == 12
    assert phase_axis(encoding(limits=limits(0, 43, 12)), lines(range(44), centre=20)).centre == 20


@pytest.mark.parametrize(
    ("changes", "steps", "size", "extent"),
    [
        ({"limits": limits(0, 95, 48)}, range(96), 96, 225),  # phase oversampling
        ({}, range(96), 96, 225),  # limits at the base resolution, too
        ({"limits": limits(0, 127, 64)}, range(128), 128, 300),
        ({"recon": (64, 96, 1)}, range(96), 96, 150),  # the encoded matrix is wrong
    ],
)
def test_more_lines_than_the_matrix(changes: dict[str, Any], steps: Any, size: int, extent: float) -> None:
    axis = phase_axis(encoding(**changes), lines(steps))
    assert (axis.size, axis.centre, axis.extent) == (size, size // 2, extent)
    assert len(axis.notes) == 1


@pytest.mark.parametrize("steps", [range(65), [*range(64), 65000], range(400)], ids=["one more", "stray", "far more"])
def test_lines_that_no_oversampling_explains_are_refused(steps: Any) -> None:
    with pytest.raises(
        ReconError, match=r"encoded matrix has 64 lines along kspace_encode_step_1.*; correct matrixSize y"
    ):
        phase_axis(encoding(), lines(steps))


def volume(steps: Iterable[int], partitions: Iterable[int]) -> dict[tuple[int, int], float]:
    chosen = list(partitions)
    return {(step, partition): 1.0 for step in steps for partition in chosen}


@pytest.mark.parametrize(
    ("changes", "thickness"),
    [
        ({"encoded": (128, 64, 2)}, 5),
        ({"encoded": (128, 64, 6), "recon": (64, 64, 6), "recon_extent": (150, 150, 30)}, 5),
    ],
)
@pytest.mark.parametrize("partition", [0, 1])
def test_partitions_of_a_2d_scan(changes: dict[str, Any], thickness: float, partition: int) -> None:
    axis = partition_axis(encoding(**changes), volume(range(64), [partition]))
    assert (axis.size, axis.recon_size, axis.recon_extent) == (1, 1, thickness)
    assert "taken as 2D" in axis.notes[0]


@pytest.mark.parametrize("energy", [{(step, step): 1.0 for step in range(64)}, volume(range(64), [7])])
def test_another_use_of_the_partitions_counter(energy: dict[tuple[int, int], float]) -> None:
    assert partition_axis(encoding(), energy).size == 1


SLAB = {"encoded_extent": (300, 150, 40), "recon_extent": (150, 150, 40)}


@pytest.mark.parametrize(
    ("changes", "partitions", "size", "extent", "recon"),
    [
        ({**SLAB, "encoded": (128, 64, 8), "recon": (64, 64, 8)}, 8, 8, 40, 8),
        ({**SLAB, "recon": (64, 64, 8)}, 8, 8, 40, 8),  # encoded matrix of one partition
        ({**SLAB, "recon": (64, 64, 8)}, 12, 12, 60, 8),
        ({**SLAB, "encoded": (128, 64, 8), "recon": (64, 64, 8)}, 12, 12, 60, 8),  # slice oversampling
        ({"encoded": (128, 64, 8), "encoded_extent": (300, 150, 40)}, 8, 8, 40, 8),  # reconstructed: one
        ({"encoded_extent": (300, 150, 40)}, 8, 8, 40, 8),
    ],
)
def test_partitions_that_vary_are_a_volume(
    changes: dict[str, Any], partitions: int, size: int, extent: float, recon: int
) -> None:
    axis = partition_axis(encoding(**changes), volume(range(64), range(partitions)))
    assert (axis.size, axis.centre, axis.recon_size) == (size, size // 2, recon)
    assert axis.extent == pytest.approx(extent)


def test_volume_without_a_field_of_view_is_refused() -> None:
    with pytest.raises(
        ReconError, match=r"have one partition, the lines have 8 .*; give matrixSize z and fieldOfView_mm z"
    ):
        partition_axis(encoding(), volume(range(64), range(8)))
