"""NIfTI files: names, values, places, headers and sidecars, and what dcm2niix makes of the same images' DICOM files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ismrmrd
import nibabel
import numpy as np
import pytest

from gadgets.dicom.geometry import image_geometry
from gadgets.dicom_output import DicomOutput
from gadgets.nifti_output import NiftiOutput
from gadgets.outputs import OUTPUT
from gadgets.stream import ReconError
from tests.gadgets.dicom.dicom_images import VOLUME, make_header, make_image, quiet
from tests.gadgets.dicom.stack_images import at
from tests.nifti_images import assert_same_voxels

BASE = np.arange(120, dtype=np.uint16).reshape(10, 12)
CORONAL = {"read_dir": (1, 0, 0), "phase_dir": (0, 0, -1), "slice_dir": (0, 1, 0)}
NO_CONVERTER = "dcm2niix is not installed (Debian package dcm2niix): NIfTI files are not compared with its own"


def write(folder: Path, images: list[Any], header: Any = None, **properties: str) -> list[Path]:
    gadget = NiftiOutput()
    gadget.configure(header or make_header(), {"folder": str(folder), **properties})
    assert list(gadget.process(iter(images))) == images
    return sorted(folder.glob("*.nii.gz"))


def side(path: Path) -> Any:
    return json.loads(path.with_name(path.name.removesuffix(".nii.gz") + ".json").read_text())


def scaled(image: Any, ratio: float) -> Any:
    image.meta = ismrmrd.Meta({**image.meta, "GADGETRON_ScaleRatio": ratio})
    return image


def part(image_type: int, name: str, **fields: Any) -> Any:
    values = np.linspace(-3, 3, 120, dtype=np.float32).reshape(10, 12)
    return at(0, values, meta={OUTPUT: name}, image_type=image_type, image_series_index=100 * image_type, **fields)


CASES: dict[str, Callable[[], list[Any]]] = {
    "single slice": lambda: [make_image()],
    "gaps": lambda: [at(9.0 * n, BASE + n, slice=n) for n in (2, 0, 1)],
    "coronal descending": lambda: [
        make_image(BASE + n, slice=n, position=(3.0, -7.0 * n, 2.0), **CORONAL) for n in range(3)
    ],
    "a scale for each slice": lambda: [scaled(at(6.0 * n, BASE, slice=n), 1.0 + n) for n in range(3)],
    "volume": lambda: [make_image(VOLUME, field_of_view=(24.0, 30.0, 12.0))],
    "phase": lambda: [part(2, "phase")],
    "real": lambda: [part(3, "real")],
    "imaginary": lambda: [part(4, "imaginary")],
    "repetitions": lambda: [
        at(6.0 * n, BASE + 50 * r, slice=n, repetition=r, acquisition_time_stamp=32510348 + 400 * r + n)
        for n in range(3)
        for r in range(3)
    ],
}


@pytest.mark.parametrize("frames", ["single", "enhanced"])
@pytest.mark.parametrize("case", CASES)
def test_files_are_those_of_dcm2niix(case: str, frames: str, tmp_path: Path) -> None:
    """With the enhanced files, too; dcm2niix before April 2023 reads several volumes only of some makers'."""
    converter = shutil.which("dcm2niix")
    if converter is None:
        pytest.skip(NO_CONVERTER)
    header = make_header(limits={"repetition": 2}, matrix=(12, 9, 4) if case == "volume" else (12, 10, 1))
    header.acquisitionSystemInformation.systemVendor = "Philips"
    gadget = DicomOutput()
    gadget.configure(header, {"folder": str(tmp_path / "dicom"), "frames": frames})
    list(gadget.process(iter(CASES[case]())))
    (tmp_path / "theirs").mkdir()
    command = [converter, "-b", "n", "-z", "n", "-p", "n", "-f", "%s", "-o", str(tmp_path / "theirs")]
    done = subprocess.run([*command, str(tmp_path / "dicom")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    (theirs,) = (tmp_path / "theirs").glob("*.nii")
    (ours,) = write(tmp_path / "ours", CASES[case](), header)
    assert_same_voxels(nibabel.load(ours), nibabel.load(theirs))
    suffix = {"phase": "_ph", "real": "_real", "imaginary": "_imaginary"}.get(case, "")
    assert theirs.stem.endswith(suffix) and ours.name.endswith(f"{suffix}.nii.gz")


def test_voxels_are_the_pixels_at_their_places_in_the_patient(tmp_path: Path) -> None:
    (path,) = write(tmp_path, CASES["gaps"]())
    image = nibabel.load(path)
    values = image.get_fdata()
    for own in CASES["gaps"]():
        geometry = image_geometry(own, make_header(), quiet)
        for x, y in ((0, 0), (11, 0), (3, 9)):
            index = np.linalg.inv(image.affine) @ (*(geometry.pixel(x, y, 0) * (-1, -1, 1)), 1)
            assert np.abs(index - np.rint(index)).max() < 1e-4
            assert values[tuple(np.rint(index[:3]).astype(int))] == own.data[0, 0, y, x]
    header = image.header
    np.testing.assert_allclose(header.get_zooms(), (2, 3, 9), rtol=1e-5)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    assert (header["qform_code"], header["sform_code"], header.get_xyzt_units()) == (1, 1, ("mm", "unknown"))
    assert image.get_data_dtype() == np.uint16


def test_one_rescale_is_in_the_header_and_several_make_floats(tmp_path: Path) -> None:
    (one,) = write(tmp_path / "one", [scaled(at(6.0 * n, BASE, slice=n), 4.0) for n in range(2)])
    image = nibabel.load(one)
    assert image.get_data_dtype() == np.uint16 and image.dataobj.slope == pytest.approx(0.25)
    (several,) = write(tmp_path / "several", CASES["a scale for each slice"]())
    image = nibabel.load(several)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.get_fdata().max((0, 1)), 119 / np.array((1, 2, 3)), rtol=1e-6)


def test_complex_images_are_complex(tmp_path: Path) -> None:
    values = (BASE - 60 + 1j * BASE[::-1]).astype(np.complex64)
    images = [
        scaled(
            at(6.0 * n, (n + 1) * values, slice=n, image_type=5, image_series_index=501, meta={OUTPUT: "complex"}), 2.0
        )
        for n in range(2)
    ]
    (path,) = write(tmp_path, [make_image(), *images])[1:]
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.complex64 and image.shape == (12, 10, 2)
    np.testing.assert_allclose(np.asarray(image.dataobj)[:, ::-1, 1].T, values, rtol=1e-6)
    assert side(path)["ImageType"][2] == "MIXED" and side(path)["ComplexImageComponent"] == "MIXED"


def test_where_the_raw_data_have_no_orientation_readers_are_told(tmp_path: Path) -> None:
    (path,) = write(tmp_path, [make_image(read_dir=(0, 0, 0), phase_dir=(0, 0, 0), slice_dir=(0, 0, 0))])
    header = nibabel.load(path).header
    assert (header["qform_code"], header["sform_code"]) == (0, 0)
    np.testing.assert_allclose(header.get_zooms(), (2, 3, 5))


def test_times_of_volumes_and_slices(tmp_path: Path) -> None:
    (path,) = write(tmp_path, CASES["repetitions"]())
    image, text = nibabel.load(path), side(path)
    assert image.shape == (12, 10, 3, 3)
    assert image.header.get_zooms()[3] == pytest.approx(1.0) and image.header.get_xyzt_units() == ("mm", "sec")
    assert text["RepetitionTime"] == pytest.approx(1.0)
    assert text["RepetitionTimeExcitation"] == pytest.approx(0.21964)
    assert text["SliceTiming"] == pytest.approx([0, 0.0025, 0.005])
    irregular = CASES["repetitions"]()
    for image in irregular:
        image.acquisition_time_stamp += 900 * (image.repetition == 2)
    (path,) = write(tmp_path / "irregular", irregular)
    assert side(path)["VolumeTiming"] == pytest.approx([0, 1, 4.25]) and "RepetitionTime" not in side(path)
    assert nibabel.load(path).header.get_xyzt_units() == ("mm", "unknown")


def test_the_sidecar_says_how_it_was_measured(tmp_path: Path) -> None:
    warned = make_image(meta={"GenreconWarning": ["coil maps are poor"]}, contrast=1)
    (path,) = write(tmp_path, [warned])
    text = side(path)
    expected = {
        "Modality": "MR", "Manufacturer": "SIEMENS", "ManufacturersModelName": "Skyra", "EchoTime": 0.0049,
        "RepetitionTime": 0.21964, "FlipAngle": 50, "MagneticFieldStrength": 2.89362, "SeriesNumber": 4001,
        "ReconMethod": "svd-wkgm", "ReconSettings": "steps=25, rank=72", "Warnings": ["coil maps are poor"],
        "EchoNumber": 2, "ConversionSoftware": "gadgetron-genrecon", "ImageType": ["DERIVED", "PRIMARY", "M"],
        "MRAcquisitionType": "2D", "SliceThickness": 5, "InPlanePhaseEncodingDirectionDICOM": "COL",
    }  # fmt: skip
    assert {key: text.get(key) for key in expected} == expected
    content = json.dumps(text) + str(nibabel.load(path).header["descrip"]) + path.name
    for name in ("Mustermann", "P-1", "1980", "2019", "4711", "House", "Secret"):
        assert name not in content


@pytest.mark.parametrize(("rescale", "units"), [("siemens", "arbitrary"), ("radians", "rad")])
def test_units(rescale: str, units: str, tmp_path: Path) -> None:
    (path,) = write(tmp_path, [part(2, "phase")], phase_rescale=rescale)
    assert side(path)["Units"] == units
    largest = np.abs(nibabel.load(path).get_fdata()).max()
    assert largest == pytest.approx(3.0 if units == "rad" else 3 / np.pi * 4096, rel=1e-3)


def test_names_are_of_the_series_and_never_meet(tmp_path: Path) -> None:
    images = [at(6.0 * n, slice=n, contrast=c) for c in range(2) for n in (0, 1, 5)] + [part(2, "phase")]
    header = make_header(limits={"slice": 5, "contrast": 1})
    names = [path.name for path in write(tmp_path, images, header)]
    assert len(names) == len(set(names)) == 5
    magnitude, phase = names[:4], names[4]
    assert all(name.startswith("4001_t1_knee_svd-wkgm_") for name in magnitude)
    assert [re.findall(r"_(e\d)_(i\d+)\.nii", name) for name in magnitude] == [
        [("e1", "i1")], [("e1", "i6")], [("e2", "i12")], [("e2", "i7")]
    ]  # fmt: skip
    assert phase.startswith("4200_") and phase.endswith("_ph.nii.gz")
    other = write(tmp_path, [make_image()], make_header(patient="P-2"))
    assert len(other) == 6
    before = {path.name: path.read_bytes() for path in other}
    write(tmp_path, images, header)  # again: the same files, byte for byte
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.nii.gz")} == before


def test_irregular_slices_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, [at(d, slice=n) for n, d in enumerate((0.0, 5.0, 11.0))])
    assert "series 4001: its slices are no regular grid" in caplog.text and "2 files" in caplog.text
    caplog.clear()
    write(tmp_path / "one place", [at(0.0, slice=n) for n in range(2)])
    assert "several slices are at one place" in caplog.text


def test_files_are_private_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / "b"
    write(folder, [make_image()])
    assert [oct(path.stat().st_mode & 0o777) for path in (folder.parent, folder)] == ["0o700"] * 2
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o600"}

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReconError, match=r"^NiftiOutput: cannot write to folder .* \(No space left on device\)"):
        write(tmp_path / "full", [make_image()])
    assert not list((tmp_path / "full").iterdir())


def test_a_folder_must_be_named() -> None:
    with pytest.raises(ReconError, match="property 'folder' is empty"):
        NiftiOutput().configure(make_header(), {})
