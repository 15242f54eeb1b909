"""Enhanced MR files: which frames share one, and the whole dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import UID

from gadgets.dicom.datasets import new_file
from gadgets.dicom.enhanced.functional_groups import add_functional_groups, frame_content, groups_of
from gadgets.dicom.enhanced.modules import add_modules
from gadgets.dicom.frames import Frames
from gadgets.dicom.identity import stable_uid
from gadgets.dicom.stacks import Stack, stacks_of

MOST_PIXEL_BYTES = 256 * 2**20  # of a file: making and sending it takes three times that in memory

# Dimensions, the slowest first: attribute, functional group that it is in, label.
DIMENSIONS = (
    ("StackID", "FrameContentSequence", "Stack"),
    ("TemporalPositionIndex", "FrameContentSequence", "Volume"),
    ("InStackPositionNumber", "FrameContentSequence", "Slice"),
)


def enhanced_datasets(frames: Frames, warning: str = "") -> Iterator[FileDataset]:
    """The Enhanced MR datasets of a scan, one after the other.

    A series is one instance; it is several where it is more than one stack (see `stacks_of`: echoes, and slices that
    are no regular grid), and where an instance would have more than `MOST_PIXEL_BYTES`: those hold whole volumes.
    InstanceNumbers count from 1 in a series. The SeriesInstanceUID is another one than that of the single-frame files,
    which may be in the same archive; it and the SOPInstanceUID are derived from those of the single frames, so that a
    replay gives the same.

    Parameters
    ----------
    warning : what must be said of all images, for ImageComments
    """
    for series in frames.series():
        number = 0
        for stack_id, stack in enumerate(stacks_of(series), 1):
            columns, rows, slices, count = stack.shape
            most = max(1, MOST_PIXEL_BYTES // (2 * rows * columns * slices))
            for first in range(0, count, most):
                number += 1
                part = replace(stack, volumes=stack.volumes[first : first + most])
                yield _dataset(part, frames, stack_id, first + 1, number, warning)


def _dataset(stack: Stack, frames: Frames, stack_id: int, first_volume: int, number: int, warning: str) -> FileDataset:
    members = stack.frames
    ds = new_file()
    add_modules(ds, members, warning)
    ds.SeriesInstanceUID = stable_uid("enhanced series", members[0].dataset.SeriesInstanceUID)
    ds.SOPInstanceUID = stable_uid("enhanced image", *(str(frame.dataset.SOPInstanceUID) for frame in members))
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.InstanceNumber = number
    ds.NumberOfFrames = len(members)
    _add_dimensions(ds, stable_uid("dimensions", ds.SeriesInstanceUID))
    if stack.shape[2] > 1:
        ds.DimensionOrganizationType = "3D_TEMPORAL" if stack.shape[3] > 1 else "3D"
    spacing = stack.spacing[2] if stack.shape[2] > 1 else None
    places = [
        (volume, place, frame)
        for volume, slices in enumerate(stack.volumes, first_volume)
        for place, frame in enumerate(slices, 1)
    ]
    contents = [
        frame_content(stack_id, place, volume, (stack_id, volume, place), frame) for volume, place, frame in places
    ]
    add_functional_groups(ds, contents, [groups_of(frame, spacing) for frame in members])
    ds.add_new("PixelData", "OW", b"".join(frames.pixels(frame).tobytes() for frame in members))
    return ds


def _add_dimensions(ds: Dataset, organization: UID) -> None:
    """Add the multi-frame dimension module (PS3.3 C.7.6.17)."""
    item = Dataset()
    item.DimensionOrganizationUID = organization
    ds.DimensionOrganizationSequence = DicomSequence([item])
    indices = []
    for attribute, group, label in DIMENSIONS:
        index = Dataset()
        index.DimensionOrganizationUID = organization
        index.DimensionIndexPointer, index.FunctionalGroupPointer = Tag(attribute), Tag(group)
        index.DimensionDescriptionLabel = label
        indices.append(index)
    ds.DimensionIndexSequence = DicomSequence(indices)
