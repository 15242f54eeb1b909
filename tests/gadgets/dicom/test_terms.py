"""Header texts that DICOM has terms or forms for: one of them, or nothing, and one warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from ismrmrd.xsd import patientPositionType
from xsdata.models.datatype import XmlDate, XmlTime

from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom_output import DicomOutput, dicom_datasets
from pipelines.raw import read_header
from tests.gadgets.dicom.dicom_images import make_header, make_image
from tests.gadgets.dicom.filled_headers import filled, with_texts
from tests.gadgets.dicom.validator import assert_valid


def dataset(**changes: Any) -> tuple[pydicom.Dataset, list[str]]:
    """Dataset and warnings; `changes` are section__field=value."""
    header = make_header()
    for path, value in changes.items():
        section, _, field = path.partition("__")
        setattr(getattr(header, section), field, value)
    warnings: list[str] = []
    (ds,) = dicom_datasets(make_image(), header, DicomParameters(), warnings.append)
    return ds, warnings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "keyword", "value", "expected"),
    [
        ("measurementInformation__patientPosition", "PatientPosition", patientPositionType.FFDR, "FFDR"),
        ("measurementInformation__patientPosition", "PatientPosition", "hfs ", "HFS"),
        ("measurementInformation__patientPosition", "PatientPosition", "Head First Supine", "HFS"),
        ("measurementInformation__patientPosition", "PatientPosition", "feet-first, decubitus left", "FFDL"),
        ("measurementInformation__patientPosition", "PatientPosition", "Head First Supine, free text", None),
        ("measurementInformation__patientPosition", "PatientPosition", "0", None),
        ("subjectInformation__patientGender", "PatientSex", "male", "M"),
        ("subjectInformation__patientGender", "PatientSex", "o", "O"),
        ("subjectInformation__patientGender", "PatientSex", "X", None),
        ("studyInformation__bodyPartExamined", "BodyPartExamined", "Whole Body", "WHOLEBODY"),
        ("studyInformation__bodyPartExamined", "BodyPartExamined", "Lumbar spine", "LSPINE"),
        ("studyInformation__bodyPartExamined", "BodyPartExamined", "left knee of Mrs X", None),
        ("subjectInformation__patientBirthdate", "PatientBirthDate", XmlDate(800, 1, 2), "08000102"),
        ("subjectInformation__patientBirthdate", "PatientBirthDate", "19800315", "19800315"),
        ("subjectInformation__patientBirthdate", "PatientBirthDate", "1980-03-15T00:00:00", "19800315"),
        ("subjectInformation__patientBirthdate", "PatientBirthDate", "15.03.1980", None),
        ("subjectInformation__patientBirthdate", "PatientBirthDate", "1980-13-15", None),
        ("subjectInformation__patientBirthdate", "PatientBirthDate", XmlDate(12025, 1, 2), None),
        ("studyInformation__studyTime", "StudyTime", "10:05:07.25", "100507.250000"),
        ("studyInformation__studyTime", "StudyTime", "100507", "100507"),
        ("studyInformation__studyTime", "StudyTime", XmlTime(24, 0, 0), None),
        ("studyInformation__studyTime", "StudyTime", "ten past nine", None),
        ("studyInformation__studyDate", "StudyDate", "yesterday", None),
        ("measurementInformation__seriesDate", "SeriesDate", "yesterday", None),
        ("measurementInformation__seriesTime", "SeriesTime", "noon", None),
        ("studyInformation__studyInstanceUID", "StudyInstanceUID", "1.2.3.4.05", None),
        ("measurementInformation__frameOfReferenceUID", "FrameOfReferenceUID", "1." * 33 + "1", None),
        ("studyInformation__accessionNumber", "AccessionNumber", "A-17", "A-17"),
        ("subjectInformation__patientWeight_kg", "PatientWeight", 1e-300, "1e-300"),
        ("acquisitionSystemInformation__stationName", "StationName", "MR\\C1\n", "MR/C1"),
    ],
)
def test_a_valid_value_or_none_and_one_warning(field: str, keyword: str, value: Any, expected: str | None) -> None:
    ds, warnings = dataset(**{field: value})
    found = str(ds.get(keyword, ""))
    if expected is None:
        derived = "UID" in keyword
        assert (found != value and pydicom.uid.UID(found).is_valid) if derived else found == ""
        assert len([text for text in warnings if field.partition("__")[2] in text]) == 1
        assert not any(str(value) in text for text in warnings)
    else:
        assert (found, warnings) == (expected, [])


def test_an_unknown_position_does_not_turn_the_image() -> None:
    known, unknown = (dataset(measurementInformation__patientPosition=text)[0] for text in ("FFP", "Feet first?"))
    assert known.ImageOrientationPatient == unknown.ImageOrientationPatient
    assert known.ImagePositionPatient == unknown.ImagePositionPatient


def test_an_age_without_room_is_left_out() -> None:
    assert "PatientAge" not in dataset(subjectInformation__patientBirthdate=XmlDate(1, 1, 1))[0]


def test_small_and_large_numbers_are_valid() -> None:
    for value in (-1.234567891234e-300, 1.234567891234e300, -123456789.123456789):
        text = str(dataset(subjectInformation__patientHeight_m=abs(value))[0].PatientSize)
        assert len(text) <= 16 and float(text) == pytest.approx(abs(value), rel=1e-7)


def test_texts_where_the_schema_has_numbers_lose_no_image() -> None:
    text = make_header().toXML().replace("4711", "A-4711").replace("71.5", "unknown")
    assert "A-4711" in text and "unknown" in text
    (ds,) = dicom_datasets(make_image(), read_header("scan", text.encode()).fields, DicomParameters())
    assert ds.AccessionNumber == "A-4711" and "PatientWeight" not in ds


HOSTILE = {
    "long": "Ä" * 400,
    "control": "a\x07b\\c\x85\n\r\t d\u2028",
    "names": "^^^^^^=^=^=^^A^B^C^D^E^F",
    "emoji": "\U0001f9e0\u202eabc\ufffe",
    "spaces": "   \t ",
    "lower": "not a code",
    "surrogate": "a\ud800b",
}


@pytest.mark.slow
@pytest.mark.parametrize("anonymize", ["false", "true"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_any_text_in_every_field_gives_a_valid_file(kind: str, anonymize: str, tmp_path: Path, caplog: Any) -> None:
    text = HOSTILE[kind]
    gadget = DicomOutput()
    header = with_texts(filled(make_header()), text)
    gadget.configure(header, {"folder": str(tmp_path), "anonymize": anonymize})
    in_xml = "".join(character for character in text if character.isprintable())
    meta = {"GADGETRON_ImageComment": [in_xml], "GADGETRON_TE": "x"}
    list(gadget.process(iter([make_image(np.ones((10, 12), np.float32), meta)])))
    (path,) = tmp_path.rglob("*.dcm")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(set(messages))
    ds = pydicom.dcmread(path)
    with pydicom.config.strict_reading():
        assert len(list(pydicom.dcmread(path).iterall())) > 50
    assert ds.PatientPosition == "" and "BodyPartExamined" not in ds
    assert_valid([path])
