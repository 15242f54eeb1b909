"""Enhanced MR files: valid, with the pixels, places and values of the single frames, and which frames share one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pydicom
import pytest
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from gadgets.dicom.datasets import dicom_datasets
from gadgets.dicom.enhanced import instances
from gadgets.dicom.enhanced.instances import enhanced_datasets
from gadgets.dicom.frames import Frames
from gadgets.dicom.parameters import DicomParameters
from gadgets.dicom.writer import encoded
from gadgets.dicom_output import DicomOutput
from gadgets.images import PARTIAL_FOURIER_DIRECTION
from gadgets.outputs import OUTPUT
from gadgets.stream import ReconError
from tests.gadgets.dicom.dicom_images import VOLUME, make_header, make_image, quiet
from tests.gadgets.dicom.stack_images import at, frames_of
from tests.gadgets.dicom.validator import assert_valid


def write(folder: Path, images: list[Any], header: Any = None, **properties: str) -> list[Any]:
    """The enhanced datasets that the gadget writes of images, by name of file."""
    gadget = DicomOutput()
    gadget.configure(header or make_header(), {"folder": str(folder), "frames": "enhanced", **properties})
    assert list(gadget.process(iter(images))) == images
    return [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]


def repetitions(count: int = 2, slices: int = 3) -> list[Any]:
    base = np.arange(120, dtype=np.uint16).reshape(10, 12)
    return [
        at(-6.0 * n, base + 100 * n + 1000 * r, slice=n, repetition=r, acquisition_time_stamp=32510348 + 800 * r + n)
        for n in range(slices)
        for r in range(count)
    ]


def ramp(image_type: int, name: str) -> Any:
    values = np.linspace(-3, 3, 120, dtype=np.float32).reshape(10, 12)
    return make_image(values, {OUTPUT: name}, image_type=image_type)


def partial_fourier(*directions: list[str]) -> list[Any]:
    """Slices of which some sides of k-space did not come."""
    metas = [{PARTIAL_FOURIER_DIRECTION: names} if names else {} for names in directions]
    return [at(6.0 * n, meta={"GenreconMethod": "cg_sense"} | meta, slice=n) for n, meta in enumerate(metas)]


CASES: dict[str, Callable[[Path], list[Any]]] = {
    "single slice": lambda f: write(f, [make_image()]),
    "nothing known": lambda f: write(f, [make_image(acquisition_time_stamp=0)], make_header(False)),
    "not even when": lambda f: write(f, [make_image()], make_header(False), creation_time="false"),
    "slices": lambda f: write(f, repetitions(1)),
    "repetitions": lambda f: write(f, repetitions()),
    "echoes": lambda f: write(f, [at(6.0 * n, slice=n, contrast=c) for c in range(2) for n in range(2)]),
    "unequal distances": lambda f: write(f, [at(float(d), slice=n) for n, d in enumerate((0, 5, 30, 37))]),
    "volume": lambda f: write(f, [make_image(VOLUME)], make_header(kind="Flash", matrix=(12, 9, 4))),
    "inversion": lambda f: write(f, [make_image()], make_header(kind="MPRAGE")),
    "anonymized": lambda f: write(f, repetitions(), anonymize="true"),
    "phase": lambda f: write(f, [ramp(2, "phase")]),
    "real": lambda f: write(f, [ramp(3, "real")]),
    "imaginary": lambda f: write(f, [ramp(4, "imaginary")]),
    "deviations": lambda f: write(f, [make_image(meta={OUTPUT: "standard_deviation"})]),
    "partial Fourier": lambda f: write(f, partial_fourier(["PHASE"], ["PHASE"])),
    "warnings": lambda f: write(f, [at(6.0 * n, None, meta={"GenreconWarning": f"w{n}"}, slice=n) for n in range(2)]),
}


@pytest.mark.parametrize("case", CASES)
def test_validator_finds_no_error(case: str, tmp_path: Path) -> None:
    assert CASES[case](tmp_path)
    assert_valid(tmp_path.rglob("*.dcm"), "EnhancedMRImage")


def frame_value(ds: Any, number: int, group: str, keyword: str) -> Any:
    """An attribute of a frame, from its own or the shared functional groups."""
    own, shared = ds.PerFrameFunctionalGroupsSequence[number], ds.SharedFunctionalGroupsSequence[0]
    return (own if group in own else shared)[group].value[0][keyword].value


def rescaled(ds: Any, number: int, pixels: Any) -> Any:
    slope, intercept = (
        float(frame_value(ds, number, "PixelValueTransformationSequence", name))
        for name in ("RescaleSlope", "RescaleIntercept")
    )
    return pixels * slope + intercept


def test_frames_are_the_single_images_at_their_places(tmp_path: Path) -> None:
    images = repetitions()
    for image in images:  # a rescale of its own for each
        image.meta = ismrmrd.Meta({**image.meta, "GADGETRON_ScaleRatio": 1.0 + image.repetition})
    singles = {
        (ds.TemporalPositionIdentifier, float(ds.SliceLocation)): ds
        for image in images
        for ds in dicom_datasets(image, make_header(limits={"repetition": 1}), None, quiet)
    }
    (ds,) = write(tmp_path, images, make_header(limits={"repetition": 1}))
    assert ds.SOPClassUID == EnhancedMRImageStorage and ds.NumberOfFrames == 6 and ds.pixel_array.shape == (6, 10, 12)
    assert ds.DimensionOrganizationType == "3D_TEMPORAL"
    assert [index.DimensionIndexPointer for index in ds.DimensionIndexSequence] == [
        Tag(name) for name in ("StackID", "TemporalPositionIndex", "InStackPositionNumber")
    ]
    indices = []
    for number, pixels in enumerate(ds.pixel_array):
        content = ds.PerFrameFunctionalGroupsSequence[number].FrameContentSequence[0]
        volume, place = content.TemporalPositionIndex, content.InStackPositionNumber
        assert content.DimensionIndexValues == [1, volume, place] and content.StackID == "1"
        indices.append((volume, place))
        single = sorted((key, ds) for key, ds in singles.items() if key[0] == volume)[place - 1][1]
        assert frame_value(ds, number, "PlanePositionSequence", "ImagePositionPatient") == single.ImagePositionPatient
        np.testing.assert_array_equal(pixels, single.pixel_array)
        expected = single.pixel_array * float(single.RescaleSlope) + float(single.RescaleIntercept)
        np.testing.assert_array_equal(rescaled(ds, number, pixels), expected)
        assert content.FrameAcquisitionDateTime == single.AcquisitionDate + single.AcquisitionTime
    assert indices == [(volume, place) for volume in (1, 2) for place in (1, 2, 3)]
    assert frame_value(ds, 0, "PixelMeasuresSequence", "SpacingBetweenSlices") == pytest.approx(6.0)
    assert frame_value(ds, 0, "MREchoSequence", "EffectiveEchoTime") == pytest.approx(1.62)
    assert ds.RepetitionTime == pytest.approx(219.64) and ds.PatientName == "Mustermann^Eva"
    assert ds.ContentDate == "20190314" and list(ds.ImageType) == ["DERIVED", "PRIMARY", "VOLUME", "NONE"]


def test_echoes_and_irregular_slices_are_instances_of_one_series(tmp_path: Path) -> None:
    echoes = CASES["echoes"](tmp_path / "e")
    assert [ds.InstanceNumber for ds in echoes] == [1, 2] and len({ds.SeriesInstanceUID for ds in echoes}) == 1
    assert [frame_value(ds, 0, "MREchoSequence", "EffectiveEchoTime") for ds in echoes] == [1.62, 4.9]
    parts = CASES["unequal distances"](tmp_path / "u")
    assert [ds.NumberOfFrames for ds in parts] == [2, 2]
    assert [frame_value(ds, 0, "FrameContentSequence", "StackID") for ds in parts] == ["1", "2"]


def test_a_large_series_is_files_of_whole_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "MOST_PIXEL_BYTES", 2 * 3 * 2 * 120)  # two volumes of three slices
    found = write(tmp_path, repetitions(5))
    assert [ds.NumberOfFrames for ds in found] == [6, 6, 3]
    volumes = [
        item.FrameContentSequence[0].TemporalPositionIndex
        for ds in found
        for item in ds.PerFrameFunctionalGroupsSequence
    ]
    assert volumes == [volume for volume in range(1, 6) for _ in range(3)]
    assert len({ds.SOPInstanceUID for ds in found}) == 3


@pytest.mark.parametrize(
    ("name", "component", "contrast"),
    [
        ("phase", "PHASE", "NONE"),
        ("real", "REAL", "NONE"),
        ("imaginary", "IMAGINARY", "NONE"),
        ("deviations", "MAGNITUDE", "STD_DEVIATION"),
    ],
)
def test_kinds_of_images(name: str, component: str, contrast: str, tmp_path: Path) -> None:
    (ds,) = CASES[name](tmp_path)
    kind = ds.SharedFunctionalGroupsSequence[0].MRImageFrameTypeSequence[0]
    for place in (ds, kind):
        assert (place.ComplexImageComponent, place.AcquisitionContrast) == (component, "UNKNOWN")
        assert (place.PixelPresentation, place.VolumetricProperties) == ("MONOCHROME", "VOLUME")
    assert ds.ImageType[3] == kind.FrameType[3] == contrast
    if name != "deviations":
        values = rescaled(ds, 0, ds.pixel_array)
        assert values.min() < 0 < values.max()
    if name == "phase":
        mapping = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "rad"


@pytest.mark.parametrize(
    ("directions", "said"),
    [
        ([[], []], ("NO", None)),
        ([["PHASE"], ["PHASE"]], ("YES", "PHASE")),
        ([["PHASE", "FREQUENCY"]], ("YES", "COMBINATION")),
        ([["PHASE"], []], (None, None)),  # it does not hold for all frames
    ],
)
def test_partial_fourier_of_all_frames(directions: list[list[str]], said: tuple[Any, Any], tmp_path: Path) -> None:
    (ds,) = write(tmp_path, partial_fourier(*directions))
    assert (ds.get("PartialFourier"), ds.get("PartialFourierDirection")) == said


def test_a_replay_gives_the_same_bytes_and_uids_are_not_those_of_single_frames() -> None:
    parameters = DicomParameters(creation_time=False)
    first, second = (
        [encoded(ds) for ds in enhanced_datasets(frames_of(*order, parameters=parameters))]
        for order in (repetitions(), repetitions()[::-1])
    )
    assert first == second
    (ds,) = enhanced_datasets(frames_of(*repetitions()))
    single = dicom_datasets(make_image(), make_header(), None, quiet, "scan")[0]
    assert single.SOPClassUID == MRImageStorage
    assert ds.StudyInstanceUID == single.StudyInstanceUID and ds.FrameOfReferenceUID == single.FrameOfReferenceUID
    assert ds.SeriesInstanceUID != single.SeriesInstanceUID
    (other,) = enhanced_datasets(frames_of(*repetitions(3)))
    assert other.SOPInstanceUID != ds.SOPInstanceUID


def test_what_came_is_written_when_the_scan_ends_early(tmp_path: Path) -> None:
    def failing() -> Any:
        yield from repetitions()
        raise ValueError("the scanner is gone")

    gadget = DicomOutput()
    for name in ("error", "reader"):
        gadget.configure(make_header(), {"folder": str(tmp_path / name), "frames": "enhanced"})
        stream = gadget.process(failing())
        if name == "error":
            with pytest.raises(ValueError, match="gone"):
                list(stream)
        else:
            for _ in range(6):
                next(stream)
            stream.close()
        (path,) = (tmp_path / name).rglob("*.dcm")
        ds = pydicom.dcmread(path)
        assert ds.NumberOfFrames == 6
        assert ds.ImageComments == "WARNING: the scan ended early: images are missing"
        assert_valid([path], "EnhancedMRImage")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("no memory")])
def test_what_came_cannot_be_written_does_not_hide_why_the_scan_ended(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise error

    def failing() -> Any:
        yield from repetitions()
        raise ValueError("the scanner is gone")

    monkeypatch.setattr(Frames, "pixels", fail)
    gadget = DicomOutput()
    gadget.configure(make_header(), {"folder": str(tmp_path), "frames": "enhanced"})
    with pytest.raises(ValueError, match="the scanner is gone"):
        list(gadget.process(failing()))
    assert (error.strerror if isinstance(error, OSError) else "no memory") in caplog.text
    if isinstance(error, OSError):
        with pytest.raises(ReconError, match=r"images cannot be kept .* \(Input/output error\); free disk space"):
            list(gadget.process(iter(repetitions())))


def test_warnings_are_told_for_the_file_and_for_their_frames(tmp_path: Path) -> None:
    (ds,) = CASES["warnings"](tmp_path)
    assert ds.ImageComments.split("\r\n") == ["WARNING: w0", "WARNING: w1"]
    comments = [item.FrameContentSequence[0].FrameComments for item in ds.PerFrameFunctionalGroupsSequence]
    assert comments == ["WARNING: w0", "WARNING: w1"]
