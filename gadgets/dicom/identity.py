"""Who and what an image belongs to: UIDs and patient IDs that survive a replay, anonymisation."""

from __future__ import annotations

import hashlib
import logging
import re
import uuid
from dataclasses import dataclass, replace

from ismrmrd.xsd import (
    acquisitionSystemInformationType,
    ismrmrdHeader,
    measurementInformationType,
    studyInformationType,
    subjectInformationType,
)
from pydicom.config import IGNORE
from pydicom.uid import UID

from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom.terms import vendor
from gadgets.dicom.values import Warn

log = logging.getLogger("genrecon")


def stable_uid(*parts: str) -> UID:
    """UID below 2.25 (ITU-T X.667: a UUID as a number) that depends on nothing but `parts`."""
    name = chr(31).join(("gadgetron-genrecon", *parts)).encode("utf-8", "replace").decode()
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}")


@dataclass(frozen=True)
class Identity:
    """Who and what an image belongs to.

    `scan` is a digest of the whole header and of the data, the entropy of all derived UIDs. `patient_id` stands in for
    one that is missing or hidden: archives merge all patients that have an empty one.
    """

    salt: str
    scan: str
    study: UID
    frame_of_reference: UID
    patient_id: str


def _study_key(header: ismrmrdHeader, scan: str) -> str:
    """What the scans of one examination have in common when the header names no study UID.

    Siemens' converter writes measurementID as device_patient_study_measurement; without that or a study ID of
    a known patient each scan is a study of its own: two studies of one examination are better than one of two
    patients. Some converters write one measurementID into every file: the patient counts with it.
    """
    study, subject, measurement = (
        header.studyInformation,
        header.subjectInformation,
        header.measurementInformation,
    )
    if study and study.studyID and subject and subject.patientID:
        return f"study {subject.patientID}|{study.studyID}|{study.studyDate}|{study.accessionNumber}"
    match = re.fullmatch(r"(\d+_\d+_\d+)_\d+", (measurement and measurement.measurementID) or "")
    if not match:
        return f"scan {scan}"
    patient = (subject.patientID, subject.patientName, subject.patientBirthdate) if subject else ()
    return "|".join([f"measurement {match[1]}", *(str(part) for part in patient if part)])


def identity_of(header: ismrmrdHeader, parameters: DicomParameters, warn: Warn, data: str = "") -> Identity:
    """UIDs and patient ID of a scan: the header's own, derived where they are missing or to be anonymized.

    Parameters
    ----------
    data : digest of the scan's raw data; without it scans with equal headers have the same UIDs
    """
    study, subject, measurement = (
        header.studyInformation,
        header.subjectInformation,
        header.measurementInformation,
    )
    salt = f"anonymized {parameters.salt}" if parameters.anonymize else ""
    # A real Gadgetron rounds the header's numbers to single precision: with six digits the UIDs are the same. Clients
    # leave out the version of the schema (see pipelines/wire.py).
    whole = replace(header, version=None).toXML("utf-8")
    text = re.sub(r"(?<=>)-?\d+\.\d+(?=<)", lambda number: f"{float(number[0]):.6g}", whole)
    scan = hashlib.sha256(f"{text}{data}".encode("utf-8", "replace")).hexdigest()

    def given(name: str, value: str | None) -> str:
        value = (value or "").strip()
        if value and not UID(value, validation_mode=IGNORE).is_valid:
            warn(f"the header's {name} is not a valid UID; one is derived")
            return ""
        return value

    study_uid = given("studyInstanceUID", study.studyInstanceUID if study else None)
    frame_uid = given("frameOfReferenceUID", measurement.frameOfReferenceUID if measurement else None)
    key = study_uid or _study_key(header, scan)
    if parameters.anonymize or not study_uid:
        study_uid = stable_uid("study", salt, key)
    if parameters.anonymize or not frame_uid:
        frame_uid = stable_uid("frame of reference", salt, frame_uid or scan)
    patient = (subject.patientID if subject and parameters.anonymize and parameters.salt else None) or key
    digest = hashlib.sha256(f"patient {salt} {patient}".encode("utf-8", "replace")).hexdigest()[:12].upper()
    patient_id = f"{'ANON' if parameters.anonymize else 'UNKNOWN'}-{digest}"
    return Identity(salt, scan, UID(study_uid), UID(frame_uid), patient_id)


def without_identity(header: ismrmrdHeader, patient_id: str) -> ismrmrdHeader:
    """A copy of the header without anything about who, where and when, and without any free text.

    What is left is how the scan was measured: numbers, texts that DICOM has terms for, and the scanner's maker.
    """
    study, measurement, system = (
        header.studyInformation,
        header.measurementInformation,
        header.acquisitionSystemInformation,
    )
    return replace(
        header,
        subjectInformation=subjectInformationType(patientName="ANONYMOUS^PATIENT", patientID=patient_id),
        studyInformation=studyInformationType(bodyPartExamined=study.bodyPartExamined if study else None),
        measurementInformation=measurement
        and measurementInformationType(
            patientPosition=measurement.patientPosition,
            initialSeriesNumber=measurement.initialSeriesNumber,
        ),
        acquisitionSystemInformation=system
        and acquisitionSystemInformationType(
            systemVendor=vendor(system.systemVendor), systemFieldStrength_T=system.systemFieldStrength_T
        ),
    )
