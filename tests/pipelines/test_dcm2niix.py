"""DICOM as dcm2niix reads it: volumes, order and spacing of slices, and the place of a marker in the patient.

The NIfTI files of `genrecon replay --nifti` are those that dcm2niix makes of the DICOM files.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from tests import raw_files
from tests.gadgets.dicom.validator import assert_valid
from tests.nifti_images import assert_same_voxels

PIXEL_MM = 150 / 64
SPACING_MM = 8.0
TOLERANCE_MM = 0.1 * PIXEL_MM
MARKER_RADIUS_MM = 7.0  # less than the spacing: a marker is in its own slice only
PLACES = ((18.0, -11.0), (-20.0, 4.0), (6.0, 22.0), (-9.0, -19.0), (24.0, 12.0))  # of slices' markers along read, phase
CENTRE = np.array((4.0, -7.0, 11.0))
NO_CONVERTER = "dcm2niix is not installed (Debian package dcm2niix): NIfTI files are not checked"


def rotation(*degrees: float) -> Any:
    """Read, phase and slice direction: the patient's axes, turned about x, then y, then z."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = ((1, 2), (2, 0), (0, 1))[axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result.T


OBLIQUE = rotation(20, -30, 15)
SAGITTAL = np.array(((0, 1, 0), (0, 0, -1), (-1, 0, 0)), float)


@functools.cache
def stack_of(count: int) -> Stack:
    return Stack(OBLIQUE, count)


class Stack:
    """Slices of a ball, each with a marker at a place of its own: their truth, k-space and lines."""

    def __init__(self, axes: Any, count: int, descending: bool = False) -> None:
        self.axes = axes
        steps = (np.arange(count) - count // 2) * SPACING_MM * (-1 if descending else 1)
        self.centres = [CENTRE + step * axes[2] for step in steps]
        self.markers = [
            centre + u * axes[0] + v * axes[1] for centre, (u, v) in zip(self.centres, PLACES, strict=False)
        ]
        objects = [(CENTRE, 45.0, 1.0), *((marker, MARKER_RADIUS_MM, 1.5) for marker in self.markers)]
        self.kspace = [raw_files.kspace(centre, axes, objects) for centre in self.centres]

    def lines(self, order: Any, scale: float = 1.0, **counters: int) -> list[Any]:
        return [
            line
            for number in order
            for line in raw_files.lines(
                scale * self.kspace[number],
                position=self.centres[number],
                axes=self.axes,
                slice=number,
                **counters,
            )
        ]


def valid_nifti(tmp_path: Path, header: str, lines: list[Any], vendor: str) -> list[Any]:
    """NIfTI images that dcm2niix makes of a scan's valid DICOM, by file name; it treats scanners by their maker."""
    converter = shutil.which("dcm2niix")
    if converter is None:
        pytest.skip(NO_CONVERTER)
    system = f"<acquisitionSystemInformation><systemVendor>{vendor}</systemVendor></acquisitionSystemInformation>"
    header = header.replace("<experimentalConditions>", system + "<experimentalConditions>")
    if vendor == "SIEMENS":  # whose directions go with the other sign of the Fourier transform
        for line in lines:
            for direction in (line.read_dir, line.phase_dir, line.slice_dir):
                direction[:] = [-value for value in direction]
    raw = raw_files.write(tmp_path / "scan.h5", (header, lines))
    result, _ = raw_files.replay(raw, tmp_path / "out", "generative_recon.iterations=5", nifti=True)
    (tmp_path / "nifti").mkdir()
    command = [converter, "-b", "n", "-z", "n", "-f", "%s", "-o", str(tmp_path / "nifti"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    # Times of slices are in private elements of the makers; nothing else may be amiss.
    doubts = [text for text in (done.stdout + done.stderr).splitlines() if text.startswith(("Warning", "Error"))]
    assert [text for text in doubts if "lice timing" not in text] == []
    assert_valid((tmp_path / "out").rglob("*.dcm"))
    images = [nibabel.load(path) for path in sorted((tmp_path / "nifti").glob("*.nii"))]
    own = [nibabel.load(path) for path in sorted((tmp_path / "out" / "nifti").glob("*.nii.gz"))]
    assert result.nifti_files == len(own) == len(images)
    for ours, theirs in zip(own, images, strict=True):
        assert_same_voxels(ours, theirs)
    return images


def marker_index(values: Any) -> list[float]:
    """Array index of the marker's centre: of its outline, for coils shade its inside."""
    inside = np.clip((values / values.max() - 0.6) / 0.2, 0, 1)
    return [float((index * inside).sum() / inside.sum()) for index in np.indices(values.shape)]


def place(image: Any, index: Any) -> Any:
    """Patient position (LPS, mm) of an index (i, j, k) of a NIfTI image, which is RAS."""
    return (image.affine @ (*index, 1))[:3] * (-1, -1, 1)


def places(image: Any, volume: Any) -> list[Any]:
    """Patient positions of the markers in the slices of a volume."""
    return [place(image, (*marker_index(volume[:, :, k]), k)) for k in range(volume.shape[2])]


def assert_each_found(found: list[Any], markers: list[Any]) -> None:
    """Each slice holds its own marker, where it is in the patient, and the slices are in their order in space."""
    distances = np.linalg.norm(np.array(found)[:, None] - np.array(markers)[None], axis=-1)
    order = distances.argmin(1).tolist()
    assert order in (list(range(len(markers))), list(range(len(markers)))[::-1])
    assert distances.min(1).max() < TOLERANCE_MM


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axes", "order", "descending", "vendor"),
    [
        (OBLIQUE, (0, 2, 4, 1, 3), False, "SIEMENS"),
        (OBLIQUE, (1, 3, 0, 2, 4), True, "GE MEDICAL SYSTEMS"),
        (SAGITTAL, (4, 3, 2, 1, 0), False, "Philips"),
        (np.array(raw_files.AXIAL), (0, 1, 2, 3, 4), True, "SIEMENS"),
    ],
    ids=["oblique interleaved", "oblique interleaved descending", "sagittal backwards", "axial descending"],
)
def test_slices(axes: Any, order: Any, descending: bool, vendor: str, tmp_path: Path) -> None:
    stack = Stack(axes, 5, descending)
    (image,) = valid_nifti(tmp_path, raw_files.header(limits={"slice": (0, 4, 0)}), stack.lines(order), vendor)
    assert image.shape == (64, 64, 5)
    np.testing.assert_allclose(image.header.get_zooms(), (PIXEL_MM, PIXEL_MM, SPACING_MM), rtol=1e-4)
    assert_each_found(places(image, image.get_fdata()), stack.markers)


@pytest.mark.slow
@pytest.mark.parametrize("vendor", ["SIEMENS", "Philips"])
def test_echoes_are_volumes_of_their_own(vendor: str, tmp_path: Path) -> None:
    stack = stack_of(3)
    header = raw_files.header(
        limits={"slice": (0, 2, 0), "contrast": (0, 1, 0)},
        after="<sequenceParameters><TR>500</TR><TE>5</TE><TE>12.5</TE></sequenceParameters>",
    )
    lines = stack.lines((0, 2, 1)) + stack.lines((0, 2, 1), 0.5, contrast=1)
    images = valid_nifti(tmp_path, header, lines, vendor)
    assert [image.shape for image in images] == [(64, 64, 3)] * 2
    first, second = (image.get_fdata() for image in images)
    assert second.mean() / first.mean() == pytest.approx(0.5, rel=0.02)
    for image in images:
        assert_each_found(places(image, image.get_fdata()), stack.markers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counter", "vendor"),
    [
        ("repetition", "SIEMENS"),
        ("repetition", "Philips"),
        ("phase", "GE MEDICAL SYSTEMS"),
        ("set", "Canon"),
    ],
)
def test_repetitions_are_volumes_of_one_series(counter: str, vendor: str, tmp_path: Path) -> None:
    stack = stack_of(3)
    header = raw_files.header(limits={"slice": (0, 2, 0), counter: (0, 3, 0)})
    scales = (1.0, 0.8, 0.6, 0.4)
    lines = [line for n, scale in enumerate(scales) for line in stack.lines((2, 0, 1), scale, **{counter: n})]
    (image,) = valid_nifti(tmp_path, header, lines, vendor)
    assert image.shape == (64, 64, 3, 4)
    volumes = np.moveaxis(image.get_fdata(), 3, 0)
    means = volumes.mean((1, 2, 3))
    np.testing.assert_allclose(means / means[0], scales, rtol=0.02)
    for volume in volumes:
        assert_each_found(places(image, volume), stack.markers)


@pytest.mark.slow
@pytest.mark.parametrize("vendor", ["SIEMENS", "Canon"])
def test_volume_with_oversampling_along_all_axes(vendor: str, tmp_path: Path) -> None:
    """Read twofold, slices 20 for 16; one marker, off the centre along all axes."""
    axes = OBLIQUE
    voxel = np.array((PIXEL_MM, PIXEL_MM, 5.0))
    marker = CENTRE + np.array((17.0, -12.0, 13.0)) @ axes
    objects = [(CENTRE, 35.0, 1.0), (marker, 9.0, 1.5)]
    slab = raw_files.kspace(CENTRE, axes, objects, (128, 64, 20), (300.0, 150.0, 100.0))
    lines = [
        raw_files.line(slab[:, z, y], y, position=CENTRE, axes=axes, kspace_encode_step_2=z)
        for z in range(20)
        for y in range(64)
    ]
    header = raw_files.header(
        encoded=(128, 64, 20),
        encoded_extent=(300, 150, 100),
        recon=(64, 64, 16),
        recon_extent=(150, 150, 80),
        limits={"kspace_encoding_step_2": (0, 19, 10)},
    )
    (image,) = valid_nifti(tmp_path, header, lines, vendor)
    assert image.shape == (64, 64, 16)
    np.testing.assert_allclose(image.header.get_zooms(), voxel, rtol=1e-4)
    found = place(image, marker_index(image.get_fdata()))
    assert np.all(np.abs(axes @ (found - marker)) < 0.1 * voxel)
