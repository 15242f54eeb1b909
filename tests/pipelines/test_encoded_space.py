"""Headers that contradict the lines about the encoded space: the marker is at its place in DICOM, to 0.1 pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.raw_files import MARKER, header, kspace, line, lines, marker, pixels, replay, write

BASE = {"encoded": (64, 64, 1), "encoded_extent": (150, 150, 5)}  # a header at the base resolution
SLAB = {"encoded_extent": (300, 150, 40), "recon_extent": (150, 150, 40)}
WHOLE = kspace()
NOT_OVERSAMPLED = kspace(samples=(64, 64), extent=(150, 150))
PHASE_OVERSAMPLED = kspace(samples=(128, 96), extent=(300, 225))


def limits(count: int, step: int = 1) -> dict[str, tuple[int, int, int]]:
    return {f"kspace_encoding_step_{step}": (0, count - 1, count // 2)}


def surrounded(data: Any, before: int, after: int) -> Any:
    """The readouts with samples of no meaning around them."""
    useless = np.full((*data.shape[:2], before + after), 1e4, np.complex64)
    return np.concatenate([useless[..., :before], data, useless[..., before:]], axis=-1)


def volume(data: Any) -> list[Any]:
    return [one for step in range(data.shape[1]) for one in lines(data[:, step], kspace_encode_step_2=step)]


def error(datasets: list[Any]) -> float:
    """Distance in pixels of the marker from its place, in the image where it is brightest."""
    brightest = max(datasets, key=lambda dataset: pixels(dataset).max())
    spacing = np.array(brightest.PixelSpacing, float)
    return float(np.linalg.norm((marker(brightest) - MARKER) / spacing.max()))


def partial(start: int, stop: int, centre: int) -> list[Any]:
    return lines(WHOLE[..., start:stop], center_sample=centre)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "acquisitions", "warning"),
    [
        pytest.param(BASE, lines(WHOLE), "taken as oversampled, over 300 mm", id="base resolution"),
        pytest.param({}, lines(NOT_OVERSAMPLED), "taken as without oversampling", id="oversampling removed"),
        pytest.param(
            BASE, lines(kspace(samples=(96, 64), extent=(225, 150))), "oversampled, over 225 mm", id="1.5 times"
        ),
        pytest.param({**BASE, "recon": (128, 128, 1)}, lines(WHOLE), "over 300 mm", id="interpolated"),
        pytest.param(
            {"encoded": (129, 63, 1), "limits": limits(63)}, lines(kspace(samples=(129, 63))), "", id="odd sizes"
        ),
        pytest.param(
            {"encoded": (126, 64, 1), "recon": (63, 63, 1)},
            lines(kspace(samples=(63, 64), extent=(150, 150))),
            "without oversampling",
            id="odd, oversampling removed",
        ),
        pytest.param(
            {}, lines(surrounded(WHOLE, 8, 4), discard_pre=8, discard_post=4, center_sample=72), "", id="discarded"
        ),
        pytest.param({}, partial(32, 128, 32), "", id="partial echo, start cut"),
        pytest.param({}, partial(32, 128, 64), "32 is taken", id="partial echo, centre of all samples"),
        pytest.param(BASE, partial(0, 96, 64), "over 300 mm", id="partial echo, base resolution"),
        pytest.param({}, lines(WHOLE, center_sample=0), "64 is taken", id="no centre"),
        pytest.param({"encoded": (128, 64, 2)}, lines(WHOLE), "taken as 2D, slices 5 mm thick", id="2D, header 3D"),
        pytest.param(
            {"limits": limits(96)}, lines(PHASE_OVERSAMPLED), "over 225 mm", id="phase oversampling in the lines"
        ),
        pytest.param(
            {"encoded": (128, 71, 1), "encoded_extent": (300, 170, 5), "limits": limits(71)},
            lines(kspace(samples=(128, 71), extent=(300, 170))),
            "",
            id="phase oversampling, no whole pixels",
        ),
        pytest.param(
            {"encoded": (128, 96, 1), "encoded_extent": (300, 225, 5), "recon": (64, 63, 1), "limits": limits(96)},
            lines(PHASE_OVERSAMPLED),
            "",
            id="phase oversampling, odd image",
        ),
        pytest.param({}, [line(WHOLE[:, step], step + 1) for step in range(64)], "33 is taken", id="counted from 1"),
    ],
)
def test_marker_of_a_slice(head: Any, acquisitions: list[Any], warning: str, tmp_path: Path) -> None:
    result, datasets = replay(write(tmp_path / "scan.h5", (header(**head), acquisitions)), tmp_path / "out")
    assert len(datasets) == 1
    assert error(datasets) < 0.1
    assert float(datasets[0].SliceThickness) == 5
    assert not warning or any(warning in text for text in result.warnings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "partitions", "extent"),
    [
        pytest.param({**SLAB, "encoded": (128, 64, 8), "recon": (64, 64, 8)}, 8, 40.0, id="3D"),
        pytest.param({**SLAB, "recon": (64, 64, 8)}, 8, 40.0, id="encoded z 1"),
        pytest.param({"encoded": (128, 64, 8), "encoded_extent": (300, 150, 40)}, 8, 40.0, id="recon z 1"),
        pytest.param(
            {
                "encoded": (128, 64, 12),
                "encoded_extent": (300, 150, 60),
                "recon": (64, 64, 8),
                "recon_extent": (150, 150, 40),
            },
            12,
            60.0,
            id="slice oversampling",
        ),
        pytest.param(
            {**SLAB, "encoded": (128, 64, 8), "recon": (64, 64, 8)}, 12, 60.0, id="slice oversampling in the lines"
        ),
    ],
)
def test_marker_of_a_volume(head: Any, partitions: int, extent: float, tmp_path: Path) -> None:
    data = kspace(samples=(128, 64, partitions), extent=(300, 150, extent))
    _, datasets = replay(write(tmp_path / "scan.h5", (header(**head), volume(data))), tmp_path / "out")
    assert len(datasets) == 8
    assert error(datasets) < 0.1
    assert {float(dataset.SliceThickness) for dataset in datasets} == {5.0}
    assert {dataset.MRAcquisitionType for dataset in datasets} == {"3D"}


def test_slices_of_a_header_with_as_many_partitions(tmp_path: Path) -> None:
    head = header(encoded=(128, 64, 3), encoded_extent=(300, 150, 15), recon=(64, 64, 3), recon_extent=(150, 150, 15))
    slices = [one for number in range(3) for one in lines(WHOLE, slice=number, position=(0, 0, 5 * number))]
    _, datasets = replay(write(tmp_path / "scan.h5", (head, slices)), tmp_path / "out")
    assert [float(dataset.ImagePositionPatient[2]) for dataset in datasets] == [0, 5, 10]
    assert {(dataset.MRAcquisitionType, float(dataset.SliceThickness)) for dataset in datasets} == {("2D", 5.0)}
