"""Which frames are a volume, and which are none of one grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gadgets.dicom.frames import IN_MEMORY
from gadgets.dicom.geometry import image_geometry
from gadgets.dicom.stacks import stacks_of
from tests.gadgets.dicom.dicom_images import VOLUME, make_header, make_image, quiet
from tests.gadgets.dicom.stack_images import NORMAL, START, at, frames_of


def stacks(*images: Any) -> list[list[list[float]]]:
    """For each stack and volume, mm along the normal of its slices."""
    (series,) = frames_of(*images).series()
    found = stacks_of(series)
    for stack in found:
        affine = stack.affine()
        for z, frame in enumerate(stack.volumes[0]):
            np.testing.assert_allclose((affine @ (0, 0, z, 1))[:3], frame.position, atol=0.02)
    first = image_geometry(make_image(), make_header(), quiet).pixel(0, 0, 0)
    return [
        [[round(float((f.position - first) @ NORMAL), 2) + 0.0 for f in volume] for volume in stack.volumes]
        for stack in found
    ]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_slices_are_in_the_order_of_their_places(order: tuple[int, ...]) -> None:
    assert stacks(*(at(6.0 * n, slice=n) for n in order)) == [[[0, 6, 12, 18]]]
    assert stacks(*(at(-6.0 * n, slice=n) for n in order)) == [[[-18, -12, -6, 0]]]


@pytest.mark.slow
def test_float32_positions_are_one_grid() -> None:
    """120 slices of a third of a millimetre, 300 mm away, as single precision has them."""
    images = [make_image(position=tuple(np.float32(START + (300 + n / 3) * NORMAL)), slice=n) for n in range(120)]
    (volumes,) = stacks(*images)
    assert len(volumes) == 1 and len(volumes[0]) == 120


@pytest.mark.slow
def test_counters_are_volumes_in_the_order_of_instance_numbers() -> None:
    for name in ("repetition", "average", "set", "phase"):
        images = [at(6.0 * n, slice=n, **{name: volume}) for n in range(2) for volume in (2, 0, 1)]
        assert stacks(*images) == [[[0, 6]] * 3], name
    (series,) = frames_of(*(at(0, phase=p, repetition=r) for p in range(2) for r in range(2))).series()
    (stack,) = stacks_of(series)
    assert [(f.volume[0], f.volume[3]) for f in stack.frames] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_echoes_are_stacks_of_their_own() -> None:
    (series,) = frames_of(*(at(6.0 * n, slice=n, contrast=c) for c in (1, 0) for n in range(2))).series()
    assert [stack.first.contrast for stack in stacks_of(series)] == [0, 1]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ((0, 5, 10, 40, 45, 50), [[0, 5, 10], [40, 45, 50]]),  # two slabs
        ((0, 5, 11, 17), [[0, 5], [11, 17]]),
        ((0, 5, 10.1), [[0, 5], [10.1]]),
        ((0, 5, 10.01), [[0, 5, 10.01]]),  # nearer than a reader could tell
        ((0, 20, 100), [[0, 20], [100]]),
    ],
)
def test_unequal_distances_are_several_stacks(places: Any, expected: Any) -> None:
    assert stacks(*(at(place, slice=n) for n, place in enumerate(places))) == [[part] for part in expected]


def test_slices_in_several_directions_are_several_stacks() -> None:
    planes = [
        {"read_dir": (1, 0, 0), "phase_dir": (0, 1, 0), "slice_dir": (0, 0, 1)},
        {"read_dir": (0, 1, 0), "phase_dir": (0, 0, -1), "slice_dir": (-1, 0, 0)},
        {"read_dir": (1, 0, 0), "phase_dir": (0, 0, -1), "slice_dir": (0, 1, 0)},
    ]
    images = [make_image(slice=2 * n + m, position=tuple(m * np.array(p["slice_dir"]) * 9), **p)
              for n, p in enumerate(planes) for m in range(2)]  # fmt: skip
    (series,) = frames_of(*images).series()
    found = stacks_of(series)
    assert [stack.shape for stack in found] == [(12, 10, 2, 1)] * 3
    assert all(stack.spacing[2] == pytest.approx(9) for stack in found)


def test_slices_beside_each_other_are_no_stack() -> None:
    sheared = [make_image(slice=n, position=tuple(START + n * (6 * NORMAL + (0, 0, 2)))) for n in range(3)]
    (series,) = frames_of(*sheared).series()
    assert [stack.shape for stack in stacks_of(series)] == [(12, 10, 1, 1)] * 3


def test_a_volume_cut_short_is_a_stack_of_its_own() -> None:
    images = [at(6.0 * n, slice=n, repetition=r) for r in range(3) for n in range(3) if (r, n) < (2, 1)]
    assert stacks(*images) == [[[0, 6, 12]] * 2, [[0]]]


def test_images_at_one_place_are_all_kept() -> None:
    assert stacks(*(at(0, slice=n) for n in range(3))) == [[[0]] * 3]


def test_partitions_and_channels() -> None:
    image = make_image(np.concatenate([VOLUME, 2 * VOLUME]), field_of_view=(24.0, 30.0, 12.0))
    frames = frames_of(image, header=make_header(matrix=(12, 9, 4)))
    (series,) = frames.series()
    (stack,) = stacks_of(series)
    assert stack.shape == (12, 9, 4, 2) and stack.spacing == pytest.approx((2.0, 30 / 9, 3.0))
    values = [
        [frames.pixels(f) * float(f.dataset.RescaleSlope) + float(f.dataset.RescaleIntercept) for f in volume]
        for volume in stack.volumes
    ]
    half_a_step = 0.51 * float(stack.first.dataset.RescaleSlope)
    np.testing.assert_allclose(values, np.stack([VOLUME[0], 2 * VOLUME[0]]), atol=half_a_step)


def test_pixels_go_to_the_disk_and_attributes_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = frames_of(*(at(6.0 * n, slice=n) for n in range(3)))
    assert IN_MEMORY > 3 * 240 and not frames._pixels._rolled  # type: ignore[attr-defined]
    monkeypatch.setattr("gadgets.dicom.frames.IN_MEMORY", 300)
    on_disk = frames_of(*(at(6.0 * n, slice=n) for n in range(3)))
    assert on_disk._pixels._rolled  # type: ignore[attr-defined]
    for one, other in zip(frames._frames, on_disk._frames, strict=True):
        np.testing.assert_array_equal(frames.pixels(one), on_disk.pixels(other))
        assert "PixelData" not in one.dataset
    first, second = (frame.dataset for frame in frames._frames[:2])
    assert first["PatientName"] is second["PatientName"]
    assert first["ImagePositionPatient"] is not second["ImagePositionPatient"]
