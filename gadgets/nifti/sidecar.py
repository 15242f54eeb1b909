"""What is known of a NIfTI file's images, in the words of BIDS and dcm2niix."""

from __future__ import annotations

import math
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from gadgets.dicom.equipment import software_version
from gadgets.dicom.frames import common_value
from gadgets.dicom.stacks import Stack
from gadgets.nifti.timing import slice_times, volume_interval, volume_starts

WARNING = "WARNING: "  # begins the lines of ImageComments that are warnings
DERIVATION = {
    "method": "ReconMethod",
    "settings": "ReconSettings",
    "noise": "PrewhiteningNoise",
    "calibration": "CoilMapCalibration",
}
MS = 1e-3  # DICOM's times are in ms, those of BIDS in s

# Key of the sidecar, DICOM attribute, factor. Nothing of a patient, a study or a date.
ATTRIBUTES: tuple[tuple[str, str, float | None], ...] = (
    ("Modality", "Modality", None),
    ("MagneticFieldStrength", "MagneticFieldStrength", 1.0),
    ("ImagingFrequency", "ImagingFrequency", 1.0),
    ("Manufacturer", "Manufacturer", None),
    ("ManufacturersModelName", "ManufacturerModelName", None),
    ("InstitutionName", "InstitutionName", None),
    ("DeviceSerialNumber", "DeviceSerialNumber", None),
    ("StationName", "StationName", None),
    ("BodyPartExamined", "BodyPartExamined", None),
    ("PatientPosition", "PatientPosition", None),
    ("MRAcquisitionType", "MRAcquisitionType", None),
    ("SeriesDescription", "SeriesDescription", None),
    ("ProtocolName", "ProtocolName", None),
    ("ScanningSequence", "ScanningSequence", None),
    ("SequenceVariant", "SequenceVariant", None),
    ("ScanOptions", "ScanOptions", None),
    ("SequenceName", "SequenceName", None),
    ("ImageType", "ImageType", None),
    ("ComplexImageComponent", "ComplexImageComponent", None),
    ("SeriesNumber", "SeriesNumber", 1),
    ("SliceThickness", "SliceThickness", 1.0),
    ("SpacingBetweenSlices", "SpacingBetweenSlices", 1.0),
    ("EchoTime", "EchoTime", MS),
    ("RepetitionTime", "RepetitionTime", MS),
    ("InversionTime", "InversionTime", MS),
    ("FlipAngle", "FlipAngle", 1.0),
    ("EchoTrainLength", "EchoTrainLength", 1),
    ("PercentPhaseFOV", "PercentPhaseFieldOfView", 1.0),
    ("ParallelReductionFactorInPlane", "ParallelReductionFactorInPlane", 1.0),
    ("ParallelReductionFactorOutOfPlane", "ParallelReductionFactorOutOfPlane", 1.0),
    ("ReceiveCoilName", "ReceiveCoilName", None),
    ("InPlanePhaseEncodingDirectionDICOM", "InPlanePhaseEncodingDirection", None),
    ("ContentQualification", "ContentQualification", None),
)


def sidecar(stack: Stack) -> dict[str, Any]:
    """Contents of the JSON file that goes with the NIfTI file of a stack; what is not known or not common is left out.

    Of an anonymized scan the datasets hold nothing of who, where and when, nor does this.
    """
    found: dict[str, Any] = {}
    for key, keyword, factor in ATTRIBUTES:
        value = _plain(common_value(stack.frames, keyword))
        if value in (None, "", []):
            continue
        if factor is not None:
            value = int(value) if isinstance(factor, int) else float(f"{float(value) * factor:.7g}")
        found[key] = value
    if stack.shape[2] > 1:
        found["SpacingBetweenSlices"] = round(stack.spacing[2], 6)
    if common_value(stack.frames, "EchoNumbers") is not None:
        found["EchoNumber"] = stack.first.contrast + 1
    found["Units"] = _units(stack.first.dataset)
    found |= _reconstruction(stack)
    found["ImageOrientationPatientDICOM"] = [round(float(value), 6) for value in (*stack.row, *stack.column)]
    if "InPlanePhaseEncodingDirectionDICOM" in found:
        found["PhaseEncodingAxis"] = "j"
    if starts := volume_starts(stack):  # BIDS: RepetitionTime is from volume to volume
        if "RepetitionTime" in found:
            found["RepetitionTimeExcitation"] = found.pop("RepetitionTime")
        if interval := volume_interval(stack):
            found["RepetitionTime"] = round(interval, 6)
        else:
            found["VolumeTiming"] = [round(value, 6) for value in starts]
    if times := slice_times(stack):
        found["SliceTiming"] = [round(value, 6) for value in times]
    found["ConversionSoftware"], found["ConversionSoftwareVersion"] = "gadgetron-genrecon", software_version()
    return found


def _reconstruction(stack: Stack) -> dict[str, Any]:
    """Method, settings, noise and calibration, as DerivationDescription has them, and the warnings of all images."""
    text = str(common_value(stack.frames, "DerivationDescription") or "")
    parts = dict(part.partition(": ")[::2] for part in text.split("; "))
    found: dict[str, Any] = {key: parts[name] for name, key in DERIVATION.items() if parts.get(name)}
    comments = (str(frame.dataset.get("ImageComments") or "") for frame in stack.frames)
    lines = dict.fromkeys(line for comment in comments for line in comment.split("\r\n"))
    warnings = [line.removeprefix(WARNING) for line in lines if line.startswith(WARNING)]
    return found | ({"Warnings": warnings} if warnings else {})


def _units(dataset: Dataset) -> str:
    """The unit of the rescaled values, of UCUM as BIDS wants it; "arbitrary" without one."""
    for mapping in dataset.get("RealWorldValueMappingSequence", []):
        if math.isclose(mapping.RealWorldValueSlope, float(dataset.get("RescaleSlope", 1)), rel_tol=1e-6):
            return str(mapping.MeasurementUnitsCodeSequence[0].CodeValue)
    return "arbitrary"


def _plain(value: Any) -> Any:
    """A DICOM value as JSON has it."""
    return [str(entry) for entry in value] if isinstance(value, MultiValue) else value
