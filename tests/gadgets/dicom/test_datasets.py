"""MR Image Storage datasets: valid, and with what the header says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom_output import dicom_datasets, write_dicom
from gadgets.images import PARTIAL_FOURIER_DIRECTION, SHADING
from tests.gadgets.dicom.dicom_images import VOLUME, make_header, make_image, quiet, save
from tests.gadgets.dicom.validator import assert_valid

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
    assert_valid(CASES[case](tmp_path))


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


@pytest.mark.parametrize(
    ("directions", "options", "direction"),
    [
        ([], "", None),
        (["PHASE"], "PFP", "PHASE"),
        (["FREQUENCY"], "PFF", "FREQUENCY"),
        (["FREQUENCY", "PHASE", "SLICE_SELECT"], ["PFF", "PFP"], "COMBINATION"),
    ],
)
def test_the_missing_side_of_k_space(
    directions: list[str], options: Any, direction: str | None, tmp_path: Path
) -> None:
    meta = {"GenreconMethod": "cg_sense"} | ({PARTIAL_FOURIER_DIRECTION: directions} if directions else {})
    (path,) = save(make_image(meta=meta), make_header(), tmp_path)
    dataset = pydicom.dcmread(path)
    assert (dataset.ScanOptions or "") == options
    assert dataset.PartialFourier == ("YES" if directions else "NO")
    assert dataset.get("PartialFourierDirection") == direction
    assert_valid([path])


def test_partial_fourier_of_other_images_is_not_known() -> None:
    assert "PartialFourier" not in dicom_datasets(make_image(meta={"GenreconMethod": ""}), make_header())[0]


def test_corrected_intensities_are_said(tmp_path: Path) -> None:
    (path,) = save(make_image(meta={SHADING: "fit, gain 0.61 to 2.30"}), make_header(), tmp_path)
    assert_valid([path])
    corrected, (measured,) = pydicom.dcmread(path), dicom_datasets(make_image(), make_header())
    assert list(corrected.ImageType) == [*measured.ImageType, "NORM"]
    assert "surface-coil shading corrected: fit, gain 0.61 to 2.30" in corrected.DerivationDescription
    assert "shading" not in measured.DerivationDescription
