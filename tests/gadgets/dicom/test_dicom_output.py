"""DICOM files: valid by an independent validator, geometry, stable identity, and safe writing."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pydicom
import pytest
from ismrmrd.xsd import CreateFromDocument, ismrmrdHeader

from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom_output import DicomOutput, dicom_datasets, write_dicom
from gadgets.stream import ReconError
from pipelines.chain import read_chain, shipped_chains

NO_VALIDATOR = "dciodvfy is not installed (Debian package dicom3tools): DICOM validity is not checked"

SUBJECT = (
    "<subjectInformation><patientName>{name}</patientName><patientWeight_kg>71.5</patientWeight_kg>"
    "<patientHeight_m>1.8</patientHeight_m><patientID>{patient}</patientID>"
    "<patientBirthdate>1980-03-15</patientBirthdate><patientGender>F</patientGender></subjectInformation>"
)
STUDY = (
    "<studyInformation><studyDate>2019-03-14</studyDate><studyTime>22:34:35</studyTime><studyID>7</studyID>"
    "<accessionNumber>4711</accessionNumber><referringPhysicianName>House^Gregory</referringPhysicianName>"
    "<studyDescription>Secret study</studyDescription><studyInstanceUID>1.2.3.4.5</studyInstanceUID>"
    "<bodyPartExamined>Knee</bodyPartExamined></studyInformation>"
)
MEASUREMENT = (
    "<measurementInformation><measurementID>45387_1_2_349</measurementID><seriesDate>2019-03-14</seriesDate>"
    "<seriesTime>22:34:36.5</seriesTime><patientPosition>HFS</patientPosition>"
    "<initialSeriesNumber>3</initialSeriesNumber><protocolName>{protocol}</protocolName>"
    "<frameOfReferenceUID>1.3.12.2.1107.5.2.19.45387.1</frameOfReferenceUID></measurementInformation>"
)
SYSTEM = (
    "<acquisitionSystemInformation><systemVendor>SIEMENS</systemVendor><systemModel>Skyra</systemModel>"
    "<systemFieldStrength_T>2.89362</systemFieldStrength_T>"
    "<coilLabel><coilNumber>1</coilNumber><coilName>Body_18:1:B22</coilName></coilLabel>"
    "<coilLabel><coilNumber>2</coilNumber><coilName>Body_18:1:B21</coilName></coilLabel>"
    "<coilLabel><coilNumber>3</coilNumber><coilName>Spine_32:1:S52</coilName></coilLabel>"
    "<institutionName>Princeton-Plainsboro</institutionName><stationName>MRC1</stationName>"
    "<deviceSerialNumber>45387</deviceSerialNumber></acquisitionSystemInformation>"
)
SEQUENCE = (
    "<sequenceParameters><TR>219.64</TR><TE>1.62</TE><TE>4.9</TE><TI>300</TI>"
    "<flipAngle_deg>50</flipAngle_deg><sequence_type>{kind}</sequence_type></sequenceParameters>"
)


def make_header(
    full: bool = True,
    *,
    name: str = "Mustermann^Eva",
    patient: str = "P-1",
    protocol: str = "t1_knee",
    kind: str = "SSFP",
    limits: dict[str, int] | None = None,
    matrix: tuple[int, int, int] = (12, 10, 1),
) -> ismrmrdHeader:
    """A Siemens-like header, or one with nothing but the encoding and the resonance frequency."""
    before = (
        (SUBJECT.format(name=name, patient=patient) + STUDY + MEASUREMENT.format(protocol=protocol) + SYSTEM)
        if full
        else ""
    )
    size = "".join(f"<{axis}>{n}</{axis}>" for axis, n in zip("xyz", matrix, strict=True))
    space = f"<matrixSize>{size}</matrixSize><fieldOfView_mm><x>24</x><y>30</y><z>5</z></fieldOfView_mm>"
    encoding_limits = "".join(
        f"<{dimension}><minimum>0</minimum><maximum>{(limits or {}).get(dimension, 0)}</maximum>"
        f"<center>0</center></{dimension}>"
        for dimension in ("kspace_encoding_step_1", "slice", "contrast", "phase", "repetition")
    )
    return CreateFromDocument(
        f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">{before}'
        "<experimentalConditions><H1resonanceFrequency_Hz>123182813</H1resonanceFrequency_Hz>"
        f"</experimentalConditions><encoding><encodedSpace>{space}</encodedSpace>"
        f"<reconSpace>{space}</reconSpace><encodingLimits>{encoding_limits}</encodingLimits>"
        "<trajectory>cartesian</trajectory></encoding>"
        f"{SEQUENCE.format(kind=kind) if full else ''}</ismrmrdHeader>".encode()
    )


def make_image(data: Any = None, meta: dict[str, Any] | None = None, **header: Any) -> ismrmrd.Image:
    """An oblique image of (10, 12) pixels, 3 mm rows and 2 mm columns, centred away from the origin."""
    if data is None:
        data = np.arange(120, dtype=np.uint16).reshape(10, 12)
    c, s = np.cos(0.3), np.sin(0.3)
    fields = {
        "image_type": ismrmrd.IMTYPE_MAGNITUDE,
        "image_index": 1,
        "image_series_index": 1,
        "field_of_view": (24.0, 30.0, 5.0),
        "position": (20.0, -66.5, 7.25),
        "read_dir": (c, s, 0.0),
        "phase_dir": (0.0, 0.0, -1.0),
        "slice_dir": (-s, c, 0.0),
        "acquisition_time_stamp": 32510348,
    }
    image = ismrmrd.Image.from_array(np.asarray(data), transpose=False, **{**fields, **header})
    image.meta = ismrmrd.Meta({"GenreconMethod": "svd-wkgm", "GenreconSettings": "steps=25, rank=72", **(meta or {})})
    return image


def quiet(_: str) -> None:
    """Takes warnings that a test does not look at."""


def save(image: ismrmrd.Image, header: ismrmrdHeader, folder: Path, **settings: Any) -> list[Path]:
    return write_dicom(image, header, DicomParameters(folder=str(folder), **settings), quiet)


rng = np.random.default_rng(0)
VOLUME = rng.normal(size=(1, 4, 9, 12)).astype(np.float32) ** 2

CASES: dict[str, Callable[[Path], list[Path]]] = {
    "siemens": lambda f: save(make_image(), make_header(), f),
    "minimal": lambda f: save(make_image(), make_header(False), f),
    "phantom": lambda f: save(
        make_image(read_dir=(0, 0, 0), phase_dir=(0, 0, 0), slice_dir=(0, 0, 0)), make_header(False), f
    ),
    "multi_slice": lambda f: [
        path
        for s in range(3)
        for path in save(
            make_image(slice=s, image_index=s, position=(0, 5.0 * s, 0)), make_header(limits={"slice": 2}), f
        )
    ],
    "3d": lambda f: save(make_image(VOLUME), make_header(kind="Flash", matrix=(12, 9, 4)), f),
    "float": lambda f: save(make_image(VOLUME[0, 0]), make_header(kind="TurboSpinEcho"), f),
    "phase": lambda f: save(
        make_image(np.linspace(-np.pi, np.pi, 120, dtype=np.float32).reshape(10, 12), image_type=2),
        make_header(),
        f,
    ),
    "two_contrasts": lambda f: [
        path
        for c in range(2)
        for path in save(make_image(contrast=c, repetition=1), make_header(limits={"contrast": 1, "repetition": 4}), f)
    ],
    "inversion": lambda f: save(make_image(), make_header(kind="MPRAGE"), f),
    "epi": lambda f: save(make_image(), make_header(kind="EPI"), f),
    "scaled": lambda f: save(
        make_image(meta={"GADGETRON_ScaleRatio": 2.5e6, "GenreconWarning": ["a", "b"]}), make_header(), f
    ),
    "anonymized": lambda f: save(make_image(), make_header(), f, anonymize=True),
    "unicode": lambda f: save(
        make_image(), make_header(name="Müller^Ağça=山田^太郎", protocol="Knie links ÄÖÜ" * 9), f
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_validator_finds_no_error(case: str, tmp_path: Path) -> None:
    paths = CASES[case](tmp_path)
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip(NO_VALIDATOR)
    for path in paths:
        done = subprocess.run([validator, str(path)], capture_output=True, text=True, timeout=60)
        lines = (done.stdout + done.stderr).splitlines()
        assert "MRImage" in lines
        assert [line for line in lines if line.startswith(("Error", "Abort"))] == []


@pytest.mark.parametrize("shape", [(10, 12), (9, 11), (1, 4, 10, 12), (1, 5, 9, 11)])
def test_centre_pixel_is_at_the_position(shape: tuple[int, ...]) -> None:
    image = make_image(np.ones(shape, np.uint16))
    datasets = dicom_datasets(image, make_header(), warn=quiet)
    *_, ny, nx = shape
    nz = len(datasets)
    ds = datasets[nz // 2]
    row, column = np.array(ds.ImageOrientationPatient[:3]), np.array(ds.ImageOrientationPatient[3:])
    dy, dx = ds.PixelSpacing
    assert (dx, dy) == (pytest.approx(24 / nx), pytest.approx(30 / ny))
    np.testing.assert_allclose(row, image.read_dir[:], atol=1e-6)
    np.testing.assert_allclose(column, image.phase_dir[:], atol=1e-6)
    centre = np.array(ds.ImagePositionPatient) + nx // 2 * dx * row + ny // 2 * dy * column
    np.testing.assert_allclose(centre, image.position[:], atol=1e-5)
    if nz > 1:
        step = np.array(datasets[1].ImagePositionPatient) - np.array(datasets[0].ImagePositionPatient)
        np.testing.assert_allclose(step, 5 / nz * np.array(image.slice_dir[:]), atol=1e-5)
        assert float(ds.SpacingBetweenSlices) == pytest.approx(5 / nz)
        assert datasets[1].SliceLocation - datasets[0].SliceLocation == pytest.approx(5 / nz, abs=1e-5)
    assert float(ds.SliceThickness) == pytest.approx(5 / nz)


def test_first_pixel_is_where_gadgetron_puts_it() -> None:
    image = make_image()
    ds = dicom_datasets(image, make_header(), warn=quiet)[0]
    corner = np.array(image.position[:]) - 12 * np.array(image.read_dir[:]) - 15 * np.array(image.phase_dir[:])
    np.testing.assert_allclose(ds.ImagePositionPatient, corner, atol=1e-5)


def test_partitions_are_files_of_their_own() -> None:
    datasets = dicom_datasets(make_image(VOLUME), make_header(matrix=(12, 9, 4)), warn=quiet)
    assert [int(ds.InstanceNumber) for ds in datasets] == [1, 2, 3, 4]
    assert len({ds.SOPInstanceUID for ds in datasets}) == 4
    assert len({ds.SeriesInstanceUID for ds in datasets}) == 1
    assert datasets[0].MRAcquisitionType == "3D"
    for ds, partition in zip(datasets, VOLUME[0], strict=True):
        values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        np.testing.assert_allclose(values, partition, atol=float(ds.RescaleSlope))


def test_missing_orientation_is_assumed_and_said(caplog: pytest.LogCaptureFixture) -> None:
    image = make_image(read_dir=(0, 0, 0), phase_dir=(0, 0, 0), slice_dir=(0, 0, 0))
    with caplog.at_level(logging.WARNING, "genrecon"):
        ds = dicom_datasets(image, make_header(False))[0]
    assert "orientation is assumed" in caplog.text
    assert "WARNING" in ds.ImageComments and "orientation" in ds.ImageComments
    assert list(ds.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]


def test_field_of_view_comes_from_the_header_when_the_image_has_none() -> None:
    ds = dicom_datasets(make_image(field_of_view=(0, 0, 0)), make_header(False), warn=quiet)[0]
    assert list(ds.PixelSpacing) == [3, 2]


def test_oblique_directions_are_made_perpendicular() -> None:
    messages: list[str] = []
    ds = dicom_datasets(make_image(phase_dir=(0.1, 0.0, -1.0)), make_header(), warn=messages.append)[0]
    row, column = np.array(ds.ImageOrientationPatient[:3]), np.array(ds.ImageOrientationPatient[3:])
    assert abs(row @ column) < 1e-6 and np.linalg.norm(column) == pytest.approx(1)
    assert any("perpendicular" in message for message in messages)


def test_header_reaches_the_dataset() -> None:
    image = make_image(contrast=1, repetition=2)
    ds = dicom_datasets(image, make_header(limits={"contrast": 1, "repetition": 4}), warn=quiet)[0]
    assert ds.PatientName == "Mustermann^Eva" and ds.PatientID == "P-1" and ds.PatientSex == "F"
    assert ds.PatientAge == "038Y" and ds.PatientBirthDate == "19800315"
    assert ds.StudyInstanceUID == "1.2.3.4.5" and ds.AccessionNumber == "4711"
    assert ds.FrameOfReferenceUID == "1.3.12.2.1107.5.2.19.45387.1"
    assert ds.SeriesNumber == 4001 and ds.SeriesDescription == "t1_knee svd-wkgm"
    assert ds.RepetitionTime == pytest.approx(219.64) and ds.FlipAngle == 50
    assert (ds.EchoNumbers, float(ds.EchoTime)) == (2, 4.9)
    assert (ds.TemporalPositionIdentifier, ds.NumberOfTemporalPositions, ds.AcquisitionNumber) == (3, 5, 3)
    assert ds.ImagingFrequency == pytest.approx(123.182813) and ds.MagneticFieldStrength == pytest.approx(2.89362)
    assert ds.ReceiveCoilName == "Body_18;Spine_32"
    assert (ds.ScanningSequence, ds.SequenceVariant) == ("GR", "SS")
    assert "InversionTime" not in ds  # Siemens headers name a TI where nothing is inverted
    assert ds.AcquisitionDate == "20190314" and ds.AcquisitionTime == "223435.870000"
    assert list(ds.ImageType) == ["DERIVED", "PRIMARY", "M"]
    assert "svd-wkgm" in ds.DerivationDescription and "rank=72" in ds.DerivationDescription
    equipment = ds.ContributingEquipmentSequence[0]
    assert equipment.ManufacturerModelName == "gadgetron-genrecon"
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert ds.ContentQualification == "RESEARCH" and ds.BodyPartExamined == "KNEE" and ds.Laterality == ""


@pytest.mark.parametrize(
    ("kind", "codes"),
    [("Flash", "GR"), ("TurboSpinEcho", "SE"), ("EPI", "EP"), ("MPRAGE", ["GR", "IR"]), ("mine", "RM")],
)
def test_sequence_type_becomes_valid_codes(kind: str, codes: Any) -> None:
    ds = dicom_datasets(make_image(), make_header(kind=kind), warn=quiet)[0]
    assert ds.ScanningSequence == codes
    assert ("InversionTime" in ds) == ("IR" in codes)


@pytest.mark.parametrize(
    ("stamp", "vendor", "moment"),
    [
        (32510348, "GE", ("20190314", "223435.870000")),
        (17, "SIEMENS", ("20190315", "000000.042500")),  # past midnight
        (20_000_000, "GE", ("20190314", "223436.500000")),  # not a time of this day: the series' time
        (0, "SIEMENS", ("20190314", "223436.500000")),
    ],
)
def test_acquisition_time_is_taken_only_when_plausible(stamp: int, vendor: str, moment: tuple[str, str]) -> None:
    header = make_header()
    header.acquisitionSystemInformation.systemVendor = vendor
    ds = dicom_datasets(make_image(acquisition_time_stamp=stamp), header, warn=quiet)[0]
    assert (ds.AcquisitionDate, ds.AcquisitionTime) == moment


def uids(ds: pydicom.Dataset) -> tuple[str, ...]:
    return ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.FrameOfReferenceUID


@pytest.mark.parametrize("full", [True, False])
def test_replay_gives_the_same_uids_and_another_method_another_series(full: bool) -> None:
    def one(**changes: Any) -> pydicom.Dataset:
        return dicom_datasets(make_image(**changes), make_header(full), warn=quiet)[0]

    first = one()
    assert uids(first) == uids(one())
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids(first))
    for other in (one(meta={"GenreconMethod": "hkgm"}), one(meta={"GenreconSettings": "steps=30"})):
        assert other.StudyInstanceUID == first.StudyInstanceUID
        assert other.FrameOfReferenceUID == first.FrameOfReferenceUID
        assert other.SeriesInstanceUID != first.SeriesInstanceUID
        assert other.SOPInstanceUID != first.SOPInstanceUID
    brighter = dicom_datasets(make_image(make_image().data[0, 0] + 1), make_header(full), warn=quiet)[0]
    assert brighter.SeriesInstanceUID == first.SeriesInstanceUID
    assert brighter.SOPInstanceUID != first.SOPInstanceUID
    later = one(repetition=1)
    assert later.SeriesInstanceUID == first.SeriesInstanceUID
    assert later.SOPInstanceUID != first.SOPInstanceUID


def test_without_creation_time_a_replay_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (
        save(make_image(), make_header(), tmp_path / name, creation_time=False)[0].read_bytes() for name in "ab"
    )
    assert first == second


def test_invalid_study_uid_is_replaced() -> None:
    header = make_header()
    header.studyInformation.studyInstanceUID = "not a uid"
    messages: list[str] = []
    ds = dicom_datasets(make_image(), header, warn=messages.append)[0]
    assert pydicom.uid.UID(ds.StudyInstanceUID).is_valid and "studyInstanceUID" in messages[0]


def test_scans_of_one_siemens_examination_share_a_derived_study() -> None:
    studies = set()
    for identifier in ("45387_1_2_349", "45387_1_2_350", "45387_9_9_350"):
        header = make_header()
        header.studyInformation = None
        header.measurementInformation.measurementID = identifier
        studies.add(dicom_datasets(make_image(), header, warn=quiet)[0].StudyInstanceUID)
    assert len(studies) == 2


def test_unknown_patients_do_not_share_an_empty_id() -> None:
    first = dicom_datasets(make_image(), make_header(False), warn=quiet)[0]
    second = dicom_datasets(make_image(), make_header(False, limits={"slice": 3}), warn=quiet)[0]
    assert first.PatientID.startswith("UNKNOWN-") and first.PatientID != second.PatientID


def test_anonymized_file_holds_no_identity(tmp_path: Path) -> None:
    image = make_image(meta={"GADGETRON_ImageComment": "Frau Mustermann"})
    path = save(image, make_header(protocol="Mustermann knee"), tmp_path, anonymize=True)[0]
    content = path.read_bytes() + str(path).encode()
    for secret in (
        *("Mustermann", "P-1", "19800315", "20190314", "2234", "4711", "House", "Secret", "Princeton"),
        *("MRC1", "45387", "1.2.3.4.5", "1.3.12"),
    ):
        assert secret.encode() not in content, secret
    ds = pydicom.dcmread(path)
    assert ds.PatientIdentityRemoved == "YES" and ds.DeidentificationMethod
    assert ds.PatientName == "ANONYMOUS^PATIENT" and ds.PatientID.startswith("ANON-")
    assert ds.PatientBirthDate == ds.StudyDate == ds.StudyTime == ds.PatientSex == ""
    assert ds.RepetitionTime == pytest.approx(219.64) and ds.BodyPartExamined == "KNEE"


def test_anonymized_uids_are_stable_and_depend_on_the_salt() -> None:
    def one(patient: str = "P-1", **settings: Any) -> pydicom.Dataset:
        header = make_header(patient=patient)
        return dicom_datasets(make_image(), header, DicomParameters(**settings), quiet)[0]

    named, first = one(), one(anonymize=True)
    assert uids(first) == uids(one(anonymize=True))
    salted = one(anonymize=True, salt="secret")
    for a, b in ((named, first), (first, salted), (named, salted)):
        assert not set(uids(a)) & set(uids(b))
    assert one("P-2", anonymize=True, salt="secret").PatientID != salted.PatientID != first.PatientID


def test_integers_are_stored_as_they_are() -> None:
    data = rng.integers(0, 65536, (10, 12)).astype(np.uint16)
    ds = dicom_datasets(make_image(data), make_header(), warn=quiet)[0]
    np.testing.assert_array_equal(ds.pixel_array, data)
    assert "RescaleSlope" not in ds
    assert (ds.SmallestImagePixelValue, ds.LargestImagePixelValue) == (data.min(), data.max())


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float32, np.float64])
def test_signed_and_float_values_come_back_through_the_rescale(dtype: Any) -> None:
    data = (rng.normal(size=(10, 12)) * 900).astype(dtype)
    ds = dicom_datasets(make_image(data, image_type=3), make_header(), warn=quiet)[0]
    values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    np.testing.assert_allclose(values, data, atol=0.6 * float(ds.RescaleSlope))
    if np.issubdtype(dtype, np.integer):
        assert float(ds.RescaleSlope) == 1
    assert list(ds.ImageType)[2] == "R" and ds.ComplexImageComponent == "REAL"


def test_phase_has_one_scale_for_the_whole_series() -> None:
    scales = set()
    for top in (1.0, 3.0):
        data = np.linspace(-top, top, 120, dtype=np.float32).reshape(10, 12)
        ds = dicom_datasets(make_image(data, image_type=2), make_header(), warn=quiet)[0]
        scales.add((float(ds.RescaleSlope), float(ds.RescaleIntercept)))
        values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        np.testing.assert_allclose(values, data, atol=1e-4)
        assert ds.SeriesDescription.endswith("phase")
    assert len(scales) == 1


def test_image_scale_and_window_of_the_meta_attributes() -> None:
    meta = {"GADGETRON_ScaleRatio": "4", "WindowCenter": "60", "WindowWidth": "100"}
    ds = dicom_datasets(make_image(meta=meta), make_header(), warn=quiet)[0]
    assert float(ds.RescaleSlope) == 0.25 and float(ds.RescaleIntercept) == 0
    assert (float(ds.WindowCenter), float(ds.WindowWidth)) == (15, 25)
    small = dicom_datasets(make_image(meta={"GADGETRON_ScaleRatio": "1e6"}), make_header(), warn=quiet)[0]
    assert small.VOILUTFunction == "LINEAR_EXACT" and 0 < small.WindowWidth < 1
    bad = dicom_datasets(make_image(meta={"GADGETRON_ScaleRatio": "0"}), make_header(), warn=quiet)[0]
    assert "RescaleSlope" not in bad


def test_window_ignores_a_few_hot_pixels() -> None:
    data = np.full((100, 100), 1000.0, np.float32)
    data[:50] = 0
    data[0, 0] = 1e6
    ds = dicom_datasets(make_image(data), make_header(), warn=quiet)[0]
    assert ds.WindowCenter + ds.WindowWidth / 2 == pytest.approx(1000)


def test_blank_image_is_written() -> None:
    ds = dicom_datasets(make_image(np.zeros((10, 12), np.float32)), make_header(), warn=quiet)[0]
    assert not ds.pixel_array.any() and ds.WindowWidth > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1j])
def test_what_dicom_cannot_hold_is_refused_in_one_line(bad: Any, tmp_path: Path) -> None:
    data = np.ones((10, 12), np.complex64 if bad == 1j else np.float32)
    data[3, 3] = bad
    with pytest.raises(ReconError, match=r"^DicomOutput: image 1 .*;") as error:
        save(make_image(data), make_header(), tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.rglob("*"))


def test_long_and_unicode_text_is_cut_to_its_representation(tmp_path: Path) -> None:
    messages: list[str] = []
    header = make_header(name="Müller^Ağça", patient="ü" * 99, protocol="Käse\\\x85" * 30)
    header.studyInformation.studyID = "x" * 40
    header.subjectInformation.patientName += "é" * 90
    parameters = DicomParameters(folder=str(tmp_path))
    ds = pydicom.dcmread(write_dicom(make_image(), header, parameters, messages.append)[0])
    assert str(ds.PatientName).startswith("Müller^Ağça") and len(str(ds.PatientName).encode()) <= 64
    assert ds.PatientID == "ü" * 32 and ds.StudyID == "x" * 16
    assert len(ds.ProtocolName.encode()) <= 64 and "\\" not in ds.ProtocolName
    assert len(ds.SeriesDescription.encode()) <= 64 and ds.SeriesDescription.endswith(" svd-wkgm")
    assert len(messages) >= 3
    assert not any(text in message for message in messages for text in ("Müller", "üü", "éé", "xx", "Käse"))


@pytest.mark.parametrize("protocol", ["../../../etc/cron.d", "/absolute", "..", "a\\..\\b", "CON", "x" * 300])
def test_header_text_cannot_leave_the_folder(protocol: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    path = save(make_image(meta={"GenreconMethod": "../m"}), make_header(protocol=protocol), folder)[0]
    assert path.parent.parent == folder and path.resolve().is_relative_to(folder.resolve())
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_replay_overwrites_and_scans_do_not_meet(tmp_path: Path) -> None:
    first = save(make_image(), make_header(), tmp_path)
    assert save(make_image(), make_header(), tmp_path) == first
    assert save(make_image(), make_header(patient="P-2"), tmp_path) != first
    assert first[0].name == "IM_00001.dcm" and first[0].parent.name.startswith("4001_t1_knee_svd-wkgm_")
    assert len(list(tmp_path.rglob("*"))) == 4


def test_images_with_one_number_do_not_overwrite_each_other(tmp_path: Path) -> None:
    header = make_header(False)
    images = [
        make_image(slice=1),
        make_image(repetition=1),
    ]  # both are number 2: the header has no slice limit
    paths = {path for image in images for path in save(image, header, tmp_path)}
    assert len(paths) == 2
    assert {path for image in images for path in save(image, header, tmp_path)} == paths


def test_unwritable_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReconError, match=r"^DicomOutput: cannot write to folder '.*file/dicom' \(.*\); .*folder"):
        save(make_image(), make_header(), tmp_path / "file" / "dicom")


def test_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = save(make_image(), make_header(), tmp_path)[0].read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for image in (make_image(), make_image(repetition=1)):
        with pytest.raises(ReconError, match="No space left on device"):
            save(image, make_header(), tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1 and files[0].read_bytes() == before


def test_no_other_user_can_read_the_files(tmp_path: Path, open_umask: None) -> None:
    (path,) = save(make_image(), make_header(), tmp_path / "a" / "b")
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    above = [folder for folder in path.parents if folder.is_relative_to(tmp_path) and folder != tmp_path]
    assert [oct(folder.stat().st_mode & 0o777) for folder in above] == ["0o700"] * 3


def test_where_to_write_must_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReconError, match=r"neither property 'folder' nor 'pacs'; name a folder .* 'none' to write no"):
        DicomOutput().configure(make_header(), {})
    gadget = DicomOutput()
    gadget.configure(make_header(), {"folder": "none"})
    items = [make_image(), make_image(np.full((1, 1, 4, 4), np.nan, np.float32))]
    assert list(gadget.process(iter(items))) == items
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", shipped_chains())
def test_shipped_chains_name_no_folder(name: str) -> None:
    node = read_chain(name).external("gadgets.dicom_output")
    assert node is not None and node.properties["folder"] == "none"


def test_gadget_writes_and_passes_everything_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gadget = DicomOutput()
    gadget.configure(make_header(False), {"folder": str(tmp_path), "anonymize": "true"})
    blank: dict[str, Any] = {"read_dir": (0, 0, 0), "phase_dir": (0, 0, 0)}
    items = [make_image(**blank), ismrmrd.Waveform(), make_image(slice=1, **blank)]
    kept = items[0].data.copy(), items[0].attribute_string
    with caplog.at_level(logging.WARNING, "genrecon"):
        out = list(gadget.process(iter(items)))
    assert all(a is b for a, b in zip(out, items, strict=True))
    np.testing.assert_array_equal(out[0].data, kept[0])
    assert out[0].attribute_string == kept[1]
    assert len(list(tmp_path.rglob("*.dcm"))) == 2
    assert caplog.text.count("orientation is assumed") == 1
    with pytest.raises(ReconError, match="series_number_offset"):
        gadget.configure(make_header(False), {"series_number_offset": "-1"})


def test_import_is_light() -> None:
    heavy = "{'torch', 'sigpy', 'skimage', 'matplotlib'} & {m.split('.')[0] for m in sys.modules}"
    code = f"import sys, gadgets.dicom_output; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
