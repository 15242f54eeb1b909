"""Calibration from a reference scan is what the scan itself would have measured, wherever its slices lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gadgets.noise.coils import Coil
from gadgets.reference_scan import ReferenceBlock, ReferenceImage, ReferenceScan, reference_from_bytes
from gadgets.stream import ReconError
from tests import raw_files

ANGLE = np.deg2rad(25)
TURNED = (
    (np.cos(ANGLE), np.sin(ANGLE), 0.0),
    (-np.sin(ANGLE), np.cos(ANGLE), 0.0),
    (0.0, 0.0, 1.0),
)
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))
COILS = tuple(Coil(number, f"C{number}") for number in range(4))


def slice_block(position: Sequence[float] = (0, 0, 0), thickness: float = 5.0) -> ReferenceBlock:
    extent = (256.0, 200.0)
    data = raw_files.kspace(position=position, samples=(64, 48), extent=extent).transpose(2, 1, 0)[:, :, None]
    return ReferenceBlock(data, np.array([*extent, thickness]), np.array(position, float), np.eye(3))


def slab_block() -> ReferenceBlock:
    extent = (220.0, 200.0, 180.0)
    data = raw_files.kspace(samples=(24, 24, 24), extent=extent).transpose(3, 2, 1, 0)
    return ReferenceBlock(data, np.array(extent), np.zeros(3), np.eye(3))


def difference(found: Any, position: Sequence[float], axes: Any, extent: Sequence[float]) -> float:
    """From what the scan would measure, relative, but for a common factor."""
    n = found.shape
    samples = (64, 64) if n[2] == 1 else (32, 32, 32)
    wanted = raw_files.kspace(position=position, axes=axes, samples=samples, extent=extent)
    wanted = wanted.transpose(2, 1, 0)[:, :, None] if n[2] == 1 else wanted.transpose(3, 2, 1, 0)
    begin = [size // 2 - m // 2 if size > 1 else 0 for size, m in zip(wanted.shape, n, strict=False)]
    wanted = wanted[tuple(slice(b, b + m) for b, m in zip(begin, n[:3], strict=False))]
    factor = np.vdot(found, wanted) / np.vdot(found, found)
    return float(np.linalg.norm(factor * found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize(
    ("axes", "position", "extent"),
    [
        (raw_files.AXIAL, (0.0, 0.0, 0.0), (300.0, 150.0)),
        (TURNED, (7.0, -4.0, 0.0), (300.0, 150.0)),
        (TURNED, (7.0, -4.0, 1.0), (160.0, 80.0)),  # the object folds along the second axis
    ],
    ids=["other field of view", "turned and shifted", "folded"],
)
def test_a_slice(axes: Any, position: Sequence[float], extent: Sequence[float]) -> None:
    image = ReferenceImage(ReferenceScan((slice_block(),)))
    found, reason = image.calibration((*extent, 5.0), position, np.array(axes), False)
    assert not reason and found is not None
    assert min(found.shape[:2]) >= 8
    assert difference(found, position, axes, extent) < 0.02


@pytest.mark.slow
def test_a_volume_for_a_slice_of_another_orientation_and_for_a_volume() -> None:
    image = ReferenceImage(ReferenceScan((slab_block(),)))
    position = (3.0, 8.0, -5.0)
    found, reason = image.calibration((240.0, 190.0, 2.0), position, np.array(CORONAL), False)
    assert found is not None, reason
    assert difference(found, position, CORONAL, (240.0, 190.0)) < 0.1  # thick partitions, thin slice
    found, reason = image.calibration((200.0, 180.0, 160.0), (0.0, 0.0, 4.0), np.array(TURNED), True)
    assert found is not None, reason
    assert found.shape[2] >= 8
    assert difference(found, (0.0, 0.0, 4.0), TURNED, (200.0, 180.0, 160.0)) < 0.05


def test_a_stack_of_slices() -> None:
    blocks = [slice_block((0.0, 0.0, height)) for height in (10.0, -10.0, 0.0)]  # in any order
    image = ReferenceImage(ReferenceScan(tuple(blocks)))
    for height in (-10.0, -4.0, 10.0):
        found, reason = image.calibration((200.0, 200.0, 5.0), (0.0, 0.0, height), np.eye(3), False)
        assert found is not None, reason
        assert difference(found, (0.0, 0.0, height), raw_files.AXIAL, (200.0, 200.0)) < 0.05
    for height in (14.0, -40.0):
        found, reason = image.calibration((200.0, 200.0, 5.0), (0.0, 0.0, height), np.eye(3), False)
        assert found is None and reason == "it does not lie where the scan does"


def test_what_cannot_be_used() -> None:
    image = ReferenceImage(ReferenceScan((slice_block(),)))
    found, reason = image.calibration((40.0, 40.0, 5.0), (0.0, 0.0, 0.0), np.eye(3), False)
    assert found is None and "resolution is too low" in reason
    found, reason = image.calibration((200.0, 200.0, 5.0), (500.0, 0.0, 0.0), np.eye(3), False)
    assert found is None and "does not lie where" in reason


def test_prewhitening_mixes_its_coils_like_the_data() -> None:
    mixing = np.array(raw_files.noise((4, 4)))
    plain, _ = ReferenceImage(ReferenceScan((slice_block(),))).calibration((256, 200, 5), (0, 0, 0), np.eye(3), False)
    mixed, _ = ReferenceImage(ReferenceScan((slice_block(),)), mixing).calibration(
        (256, 200, 5), (0, 0, 0), np.eye(3), False
    )
    assert plain is not None and mixed is not None
    np.testing.assert_allclose(mixed, np.einsum("dc,xyzc->xyzd", mixing, plain), rtol=1e-3, atol=1e-3)


def test_coils_are_matched_by_name() -> None:
    scan = ReferenceScan((slice_block(),), coils=COILS)
    order = [2, 0, 3, 1]
    matched = scan.for_coils(tuple(COILS[place] for place in order), 4)
    assert matched is not None
    np.testing.assert_array_equal(matched.blocks[0].kspace, scan.blocks[0].kspace[..., order])
    assert scan.for_coils(tuple(Coil(9, name) for name in "abcd"), 4) is None


def test_it_is_kept_exactly() -> None:
    scan = ReferenceScan((slice_block(), slice_block((0, 0, 8))), coils=COILS)
    copy = reference_from_bytes(scan.to_bytes(), "file")
    assert copy.digest() == scan.digest() and copy.coils == COILS
    with pytest.raises(ReconError, match="file: this is no kept reference scan"):
        reference_from_bytes(b"PK", "file")
