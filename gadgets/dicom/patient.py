"""The patient and study modules."""

from __future__ import annotations

from ismrmrd.xsd import ismrmrdHeader, studyInformationType, subjectInformationType
from pydicom.dataset import Dataset

from gadgets.dicom.identity import Identity
from gadgets.dicom.terms import SEX_TERMS, defined_term
from gadgets.dicom.values import Warn, date_of, date_text, decimal, positive, text_value, time_of, time_text


def add_patient_and_study(ds: Dataset, header: ismrmrdHeader, identity: Identity, warn: Warn) -> None:
    """Add patient, study and frame of reference (PS3.3 C.7.1 to C.7.4)."""
    subject = header.subjectInformation or subjectInformationType()
    study = header.studyInformation or studyInformationType()
    birth = date_of(subject.patientBirthdate, "patientBirthdate", warn)
    day = date_of(study.studyDate, "studyDate", warn)
    ds.PatientName = text_value(subject.patientName, "PN", warn)
    ds.PatientID = text_value(subject.patientID, "LO", warn) or identity.patient_id
    ds.PatientBirthDate = date_text(birth)
    ds.PatientSex = defined_term(subject.patientGender, SEX_TERMS, "patientGender", warn)
    if birth and day and birth <= day:
        years = day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
        months = (day.year - birth.year) * 12 + day.month - birth.month - (day.day < birth.day)
        days = (day - birth).days
        if years < 1000:  # else there is no room for it
            ds.PatientAge = f"{years:03d}Y" if years >= 2 else f"{months:03d}M" if months else f"{days:03d}D"
    if height := positive(subject.patientHeight_m):
        ds.PatientSize = decimal(height)
    if weight := positive(subject.patientWeight_kg):
        ds.PatientWeight = decimal(weight)
    ds.StudyInstanceUID = identity.study
    ds.StudyDate = date_text(day)
    ds.StudyTime = time_text(time_of(study.studyTime, "studyTime", warn))
    ds.StudyID = text_value(study.studyID, "SH", warn)
    ds.AccessionNumber = text_value(study.accessionNumber, "SH", warn)
    ds.ReferringPhysicianName = text_value(study.referringPhysicianName, "PN", warn)
    if study.studyDescription:
        ds.StudyDescription = text_value(study.studyDescription, "LO", warn)
    ds.FrameOfReferenceUID = identity.frame_of_reference
    ds.PositionReferenceIndicator = ""


def add_deidentification(ds: Dataset) -> None:
    """Add that identity was removed, and how (PS3.3 C.12.1, C.7.1.1)."""
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = [
        "gadgetron-genrecon: identity, dates and header texts removed",
        "UIDs and patient ID replaced; pixels unchanged",
    ]
    ds.LongitudinalTemporalInformationModified = "REMOVED"
