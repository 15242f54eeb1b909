"""Reference lines in another encoding space than the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from gadgetron.types import ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer, SamplingDescription

from gadgets.references import on_grid_of, with_references
from tests.raw_files import MARKER, encoding, header, kspace, line, lines, marker, pixels, replay, write

CALIBRATION = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION


def buffer(data: Any, extent: tuple[float, float], first: int = 0) -> ReconBuffer:
    """A buffer of k-space (coil, phase, read) of a field of view (read, phase) in mm."""
    coils, height, width = data.shape
    sampling = SamplingDescription()
    sampling.encoded_FOV[0], sampling.encoded_FOV[1], sampling.encoded_FOV[2] = *extent, 5.0
    sampling.encoded_matrix[0], sampling.encoded_matrix[1], sampling.encoded_matrix[2] = width, height, 1
    head = ismrmrd.AcquisitionHeader()
    head.number_of_samples, head.active_channels = width, coils
    headers = np.empty((height, 1, 1, 1, 1), dtype=object)
    headers.fill(head)
    array = np.asfortranarray(data.transpose(2, 1, 0)[:, :, None, :, None, None, None])
    return ReconBuffer(array, None, None, headers, sampling)


def empty() -> ReconBuffer:
    array = np.zeros((0,) * 7, np.complex64)
    return ReconBuffer(array, None, None, np.empty((0,) * 5, dtype=object), SamplingDescription())


IMAGE = buffer(kspace(samples=(64, 64), extent=(150, 150)), (150, 150))


@pytest.mark.parametrize("extent", [(150, 150), (300, 150), (240, 200), (190, 300)])
@pytest.mark.parametrize("gaps", [False, True])
def test_samples_are_those_of_the_image_s_grid(extent: tuple[float, float], gaps: bool) -> None:
    reference = kspace(samples=(64, 48), extent=extent)
    if gaps:  # a full matrix of which the centre is sampled
        reference[:, :8] = reference[:, -8:] = 0
    found = on_grid_of(IMAGE, buffer(reference, extent)).data
    width, height = found.shape[:2]
    assert 8 <= min(width, height) <= max(width, height) <= 64
    truth = kspace(samples=(width, height), extent=(150, 150)).transpose(2, 1, 0)
    inner = (slice(width // 4, -(width // 4)), slice(height // 4, -(height // 4)))  # the outer ones know less
    difference = np.linalg.norm((found[:, :, 0, :, 0, 0, 0] - truth)[inner]) / np.linalg.norm(truth[inner])
    assert difference < (0.06 if gaps else 0.02)


def test_who_gets_them() -> None:
    reference = buffer(kspace(samples=(32, 32), extent=(150, 150)), (150, 150))
    item = ReconData([ReconBit(IMAGE, None), ReconBit(empty(), reference), ReconBit(IMAGE, IMAGE)])
    found = with_references(item).bits
    assert found[0].ref is reference and found[2].ref is IMAGE and not found[1].data.data.size
    for other in (
        ReconData([ReconBit(IMAGE, None)]),
        ReconData([ReconBit(IMAGE, None), ReconBit(IMAGE, reference)]),
    ):
        assert with_references(other) is other
    fewer = buffer(kspace(samples=(32, 32), extent=(150, 150))[:2], (150, 150))
    assert with_references(ReconData([ReconBit(IMAGE, None), ReconBit(empty(), fewer)])).bits[0].ref is None


@pytest.mark.parametrize(
    ("matrix", "extent", "mode"),
    [((64, 24), (300, 150), ""), ((64, 32), (400, 200), ""), ((48, 24), (240, 180), "separate")],
)
def test_images_with_reference_lines_of_another_encoding(
    tmp_path: Path, matrix: tuple[int, int], extent: tuple[float, float], mode: str
) -> None:
    data = kspace()
    spaces = (
        ("encodedSpace", (*matrix, 1), (*extent, 5)),
        ("reconSpace", (matrix[0] // 2, matrix[1], 1), (extent[0] / 2, extent[1], 5)),
    )
    factors = "<kspace_encoding_step_1>2</kspace_encoding_step_1><kspace_encoding_step_2>1</kspace_encoding_step_2>"
    parallel = f"<accelerationFactor>{factors}</accelerationFactor><calibrationMode>{mode}</calibrationMode>"
    more = f"<parallelImaging>{parallel}</parallelImaging>" if mode else ""
    limits = {"kspace_encoding_step_1": (0, matrix[1] - 1, matrix[1] // 2)}
    text = header().replace("</encoding>", "</encoding>" + encoding(spaces, limits, more=more))
    small = kspace(samples=matrix, extent=extent)
    reference = [line(small[:, y], y, flags=[CALIBRATION], encoding_space_ref=1) for y in range(matrix[1])]
    undersampled = lines(data, range(0, 64, 2))
    result, (image,) = replay(write(tmp_path / "scan.h5", (text, [*reference, *undersampled])), tmp_path / "out")
    assert not any("completed by low rank" in warning for warning in result.warnings)
    assert marker(image) == pytest.approx(MARKER, abs=0.25)
    _, (full,) = replay(write(tmp_path / "full.h5", (header(), lines(data))), tmp_path / "full")
    assert np.linalg.norm(pixels(image) - pixels(full)) / np.linalg.norm(pixels(full)) < 0.1


def test_navigators_are_the_first_encoding(tmp_path: Path) -> None:
    """The images are of the second one, and so is what DICOM says of them."""
    spaces = (("encodedSpace", (256, 1, 1), (400, 400, 8)), ("reconSpace", (128, 128, 1), (400, 400, 8)))
    text = header().replace("<encoding>", encoding(spaces, {}, "radial") + "<encoding>")
    data = kspace()
    navigators = [line(data[:, 32], 0, flags=[ismrmrd.ACQ_IS_NAVIGATION_DATA]) for _ in range(3)]
    scan = [*navigators, *lines(data, encoding_space_ref=1)]
    _, (image,) = replay(write(tmp_path / "scan.h5", (text, scan)), tmp_path / "out")
    _, (plain,) = replay(write(tmp_path / "plain.h5", (header(), lines(data))), tmp_path / "plain")
    assert np.array_equal(image.pixel_array, plain.pixel_array)
    for name in ("PixelSpacing", "ImagePositionPatient", "SliceThickness", "AcquisitionMatrix", "MRAcquisitionType"):
        assert image[name] == plain[name]
