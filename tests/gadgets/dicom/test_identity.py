"""UIDs and patient IDs: the same at every replay, none of them an identity when anonymized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest

from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom_output import dicom_datasets
from tests.gadgets.dicom.dicom_images import make_header, make_image, quiet, save


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


def test_what_servers_and_clients_change_in_a_header_changes_no_uid() -> None:
    """Numbers in single precision, and the version of the schema."""
    first, second = make_header(False), make_header(False)
    first.version, second.version = 1, None
    first.encoding[0].reconSpace.fieldOfView_mm.x, second.encoding[0].reconSpace.fieldOfView_mm.x = 24.1, 24.100000381
    found = [uids(dicom_datasets(make_image(), header, warn=quiet)[0]) for header in (first, second)]
    assert found[0] == found[1]


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
