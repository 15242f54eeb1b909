"""What holds for all frames of an Enhanced MR file."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

from gadgets.dicom.enhanced.functional_groups import description, image_type
from gadgets.dicom.equipment import software_version
from gadgets.dicom.frames import Frame
from gadgets.dicom.values import TEXT_LIMITS, cut, date_text, time_text

UNKNOWN = "UNKNOWN"  # of required attributes that the raw data do not have
NO_DATE, NO_TIME = "19000101", "000000"  # likewise, and of anonymized files

# Attributes of MR Image Storage that are in functional groups here, have another name, or are only for original images.
# The others stay as they are, timing and coil among them (a Standard Extended SOP Class, PS3.4 annex B).
MOVED = frozenset(
    {
        "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "InstanceNumber", "ImageType", "ComplexImageComponent",
        "MRAcquisitionType", "EchoTime", "ImagedNucleus", "ImagePositionPatient", "ImageOrientationPatient",
        "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "SliceLocation", "WindowCenter", "WindowWidth",
        "VOILUTFunction", "RescaleIntercept", "RescaleSlope", "RescaleType", "TemporalPositionIdentifier",
        "NumberOfTemporalPositions", "TriggerTime", "ImageComments", "AcquisitionDate", "AcquisitionTime",
        "AcquisitionNumber", "ContentDate", "ContentTime", "Laterality", "RealWorldValueMappingSequence",
    }
)  # fmt: skip
NOT_EMPTY = frozenset({"RepetitionTime", "InversionTime", "EchoTrainLength", "ScanOptions"})  # or not at all


def add_modules(ds: Dataset, frames: Sequence[Frame], warning: str) -> None:
    """Add patient, study, series, equipment and image: what the frames have in common, in Enhanced MR's terms.

    `warning` stands first in ImageComments, where it is not empty.
    """
    first = frames[0].dataset
    for element in first:
        useless = element.keyword in MOVED or (element.keyword in NOT_EMPTY and element.is_empty)
        if not useless and all(frame.dataset.get(element.tag) == element for frame in frames):
            ds[element.tag] = element
    ds.SOPClassUID = EnhancedMRImageStorage
    _add_equipment(ds)
    _add_moment(ds, frames)
    ds.ImageType = image_type(frames[0])
    description(ds, frames[0])
    ds.PresentationLUTShape = "IDENTITY"
    ds.ResonantNucleus = first.get("ImagedNucleus", "1H")
    ds.ApplicableSafetyStandardAgency = UNKNOWN
    ds.AcquisitionContextSequence = []
    comments = [
        f"WARNING: {warning}" if warning else "",
        *(str(frame.dataset.get("ImageComments") or "") for frame in frames),
    ]
    if lines := dict.fromkeys(line for comment in comments for line in comment.split("\r\n") if line):
        ds.ImageComments = cut("\r\n".join(lines), TEXT_LIMITS["LT"])


def _add_equipment(ds: Dataset) -> None:
    """Add the enhanced general equipment module, whose attributes are all required."""
    for keyword in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber"):
        if not ds.get(keyword):
            setattr(ds, keyword, UNKNOWN)
    ds.SoftwareVersions = f"gadgetron-genrecon {software_version()}"[:64]


def _add_moment(ds: Dataset, frames: Sequence[Frame]) -> None:
    """Add when the frames were measured: the earliest moment; without one, when the file was made, or no date."""
    moments = sorted(
        (str(frame.dataset.AcquisitionDate), str(frame.dataset.AcquisitionTime))
        for frame in frames
        if frame.dataset.get("AcquisitionDate") and frame.dataset.get("AcquisitionTime")
    )
    if moments:
        ds.ContentDate, ds.ContentTime = moments[0]
        ds.AcquisitionDateTime = "".join(moments[0])
    elif "InstanceCreationDate" in ds:
        now = datetime.datetime.now()
        ds.ContentDate, ds.ContentTime = date_text(now.date()), time_text(now.time())
    else:
        ds.ContentDate, ds.ContentTime = NO_DATE, NO_TIME
