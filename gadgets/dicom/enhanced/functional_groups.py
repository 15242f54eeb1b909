"""The functional groups of Enhanced MR (PS3.3 C.7.6.16.2 and C.8.13.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from gadgets.dicom.enhanced.anatomy import region
from gadgets.dicom.frames import Frame
from gadgets.dicom.values import decimal

# ImageType's last value of images that are computed from several pixels or images (PS3.3 C.8.16.1.4).
DERIVED_CONTRAST = {"standard_deviation": "STD_DEVIATION"}


def image_type(frame: Frame) -> list[str]:
    """FrameType, and ImageType of the file."""
    return [*frame.dataset.ImageType[:2], "VOLUME", DERIVED_CONTRAST.get(frame.output, "NONE")]


def description(item: Dataset, frame: Frame) -> None:
    """The macros of CT/MR and MR image description, for a file or a frame."""
    item.PixelPresentation = "MONOCHROME"
    item.VolumetricProperties = "VOLUME"
    item.VolumeBasedCalculationTechnique = "NONE"
    item.ComplexImageComponent = frame.dataset.ComplexImageComponent
    item.AcquisitionContrast = "UNKNOWN"


def groups_of(frame: Frame, spacing: float | None) -> dict[str, Dataset]:
    """What a frame's dataset says of it, as the item of each functional group by its keyword.

    Timing, field of view, coil and partial Fourier stay outside (see `modules`): their groups have required attributes
    that no raw data tell, such as the specific absorption rate or flow compensation, and are not required of derived
    images.

    Parameters
    ----------
    spacing : mm between the slices of its stack; None of a single slice
    """
    ds = frame.dataset
    groups = {
        "PixelMeasuresSequence": _taken(ds, {"PixelSpacing": "PixelSpacing", "SliceThickness": "SliceThickness"}),
        "PlanePositionSequence": _taken(ds, {"ImagePositionPatient": "ImagePositionPatient"}),
        "PlaneOrientationSequence": _taken(ds, {"ImageOrientationPatient": "ImageOrientationPatient"}),
        "FrameAnatomySequence": Dataset(),
        "PixelValueTransformationSequence": Dataset(),
        "FrameVOILUTSequence": _taken(ds, {name: name for name in ("WindowCenter", "WindowWidth", "VOILUTFunction")}),
        "MRImageFrameTypeSequence": Dataset(),
        "MREchoSequence": _taken(ds, {"EchoTime": "EffectiveEchoTime"}),
        "CardiacSynchronizationSequence": _taken(ds, {"TriggerTime": "NominalCardiacTriggerDelayTime"}),
    }
    if spacing is not None:
        groups["PixelMeasuresSequence"].SpacingBetweenSlices = decimal(round(spacing, 6))
    anatomy = groups["FrameAnatomySequence"]
    anatomy.FrameLaterality = "U"  # an ISMRMRD header does not say which side: no claim of one
    anatomy.AnatomicRegionSequence = DicomSequence([region(str(ds.get("BodyPartExamined", "")))])
    values = groups["PixelValueTransformationSequence"]
    values.RescaleIntercept = ds.get("RescaleIntercept", decimal(0))
    values.RescaleSlope = ds.get("RescaleSlope", decimal(1))
    values.RescaleType = ds.get("RescaleType", "US")
    kind = groups["MRImageFrameTypeSequence"]
    kind.FrameType = image_type(frame)
    description(kind, frame)
    if "RealWorldValueMappingSequence" in ds:
        groups["RealWorldValueMappingSequence"] = ds.RealWorldValueMappingSequence[0]
    return {keyword: item for keyword, item in groups.items() if len(item)}


def _taken(ds: Dataset, names: Mapping[str, str]) -> Dataset:
    """The attributes of a dataset that have a value, under other names."""
    item = Dataset()
    for name, other in names.items():
        if name in ds and ds[name].value not in (None, ""):
            setattr(item, other, ds[name].value)
    return item


def frame_content(stack_id: int, place: int, volume: int, indices: Sequence[int], frame: Frame) -> Dataset:
    """Where a frame is in its stack and in time, and what must be said of it alone.

    Parameters
    ----------
    stack_id, place, volume : from 1
    indices : values of the dimensions
    """
    item = Dataset()
    item.FrameAcquisitionNumber = int(frame.dataset.get("AcquisitionNumber") or 1)
    item.DimensionIndexValues = list(indices)
    item.StackID = str(stack_id)
    item.InStackPositionNumber = place
    item.TemporalPositionIndex = volume
    ds = frame.dataset
    if ds.get("AcquisitionDate") and ds.get("AcquisitionTime"):
        item.FrameAcquisitionDateTime = item.FrameReferenceDateTime = f"{ds.AcquisitionDate}{ds.AcquisitionTime}"
    if ds.get("ImageComments"):
        item.FrameComments = ds.ImageComments
    return item


def add_functional_groups(ds: Dataset, contents: Sequence[Dataset], groups: Sequence[Mapping[str, Dataset]]) -> None:
    """Add the groups that are equal for all frames as shared ones, the others to each frame."""
    keywords = {keyword for group in groups for keyword in group}
    shared = {
        keyword
        for keyword in keywords
        if keyword in groups[0] and all(group.get(keyword) == groups[0][keyword] for group in groups)
    }
    ds.SharedFunctionalGroupsSequence = DicomSequence([_item({name: groups[0][name] for name in shared})])
    ds.PerFrameFunctionalGroupsSequence = DicomSequence(
        _item({"FrameContentSequence": content, **{n: g for n, g in group.items() if n not in shared}})
        for content, group in zip(contents, groups, strict=True)
    )


def _item(groups: Mapping[str, Any]) -> Dataset:
    item = Dataset()
    for keyword, group in groups.items():
        setattr(item, keyword, DicomSequence([group]))
    return item
