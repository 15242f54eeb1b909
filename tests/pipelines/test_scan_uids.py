"""Scans without IDs in their headers: UIDs come from the data too, and are the same wherever a scan is replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest

from gadgets.dicom_output import DicomOutput
from pipelines.chain import CHAIN_PROPERTY
from pipelines.raw import RawScan
from pipelines.replay import DICOM_MODULE, configured_chain, read_images, replay
from tests import raw_files

# A replay takes the pixel scale from the whole file, a server cannot: with other scales, series differ.
SETTINGS = ["generative_recon.iterations=2", "generative_recon.pixel_scale=20"]
SLICES = [raw_files.kspace(position=(0, 0, z)) for z in (0, 10)]
ORDER = (1, 0)  # the upper slice is measured first


def scan(path: Path, level: float, seed: int, **header: Any) -> Path:
    """A scan of two slices; only its noise tells it from others."""
    lines = []
    for number in ORDER:
        noise = raw_files.noise(SLICES[number].shape, level, seed + number)
        lines += raw_files.lines(SLICES[number] + noise, position=(0, 0, 10.0 * number), slice=number)
    limits = {"slice": (0, 1, 0)}
    return raw_files.write(path, (raw_files.header(limits=limits, **{"identity": False, **header}), lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scans")


@pytest.fixture(scope="module")
def first(folder: Path) -> Path:
    return scan(folder / "first.h5", 0.01, 1, measurement_id=None)


@pytest.fixture(scope="module")
def second(folder: Path) -> Path:
    return scan(folder / "second.h5", 0.01, 7, measurement_id=None)


def uids(folder: Path) -> dict[str, set[str]]:
    """UIDs of all DICOM files below a folder."""
    found: dict[str, set[str]] = {"Study": set(), "FrameOfReference": set(), "Series": set(), "SOP": set()}
    keywords = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID", "SOPInstanceUID")
    for path in folder.rglob("*.dcm"):
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        for kind, keyword in zip(found, keywords, strict=True):
            found[kind].add(ds[keyword].value)
    return found


def replayed(raw: Path, out: Path, *settings: str, **options: Any) -> dict[str, set[str]]:
    replay(raw, "cg_sense", out, settings=[*SETTINGS, *settings], **options)
    return uids(out)


@pytest.fixture(scope="module")
def own(first: Path, folder: Path) -> dict[str, set[str]]:
    return replayed(first, folder / "own")


def test_scans_with_equal_headers_share_nothing(own: Any, second: Path, tmp_path: Path) -> None:
    assert {kind: len(found) for kind, found in own.items()} == {
        "Study": 1,
        "FrameOfReference": 1,
        "Series": 1,
        "SOP": 2,
    }
    other = replayed(second, tmp_path / "second")
    assert not any(own[kind] & other[kind] for kind in own)
    anonymous = replayed(second, tmp_path / "anonymous", "dicom_output.anonymize=true")
    assert not any(anonymous[kind] & other[kind] for kind in own)


def test_one_measurement_id_in_every_file(tmp_path: Path) -> None:
    """As of a converter that knows no other: the examination may be one, the series are not."""
    found = []
    for seed in (1, 7):
        raw = scan(tmp_path / f"{seed}.h5", 0.01, seed)
        found.append(replayed(raw, tmp_path / str(seed)))
    assert not any(found[0][kind] & found[1][kind] for kind in ("FrameOfReference", "Series", "SOP"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "options"), [([], {"processes": True}), (["generative_recon.slices_at_once=2"], {})]
)
def test_a_scan_has_the_same_uids_again(own: Any, first: Path, tmp_path: Path, settings: Any, options: Any) -> None:
    assert replayed(first, tmp_path / "again", *settings, **options) == own


@pytest.mark.parametrize(
    "setting",
    ["generative_recon.iterations=3", "AcquisitionAccumulateTriggerGadget.release_complete_slices=false"],
)
def test_other_settings_make_another_series_of_the_study(own: Any, first: Path, tmp_path: Path, setting: str) -> None:
    other = replayed(first, tmp_path / "other", setting)
    assert other["Study"] == own["Study"] and other["FrameOfReference"] == own["FrameOfReference"]
    assert not other["Series"] & own["Series"] and not other["SOP"] & own["SOP"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [False, True])
def test_a_chain_that_writes_dicom_itself(own: Any, first: Path, tmp_path: Path, processes: bool) -> None:
    """As `genrecon serve` runs it, and with gadgets in processes of their own."""
    chain = configured_chain("cg_sense", SETTINGS)
    chain.external(DICOM_MODULE).properties["folder"] = str(tmp_path)
    with RawScan(first) as raw:
        list(chain.run(raw.header, raw.acquisitions(), processes=processes))
    assert uids(tmp_path) == own


def test_the_order_of_images_does_not_matter(own: Any, first: Path, folder: Path, tmp_path: Path) -> None:
    images = list(read_images(folder / "own", 1))
    gadget = DicomOutput()
    with RawScan(first) as raw:
        digest = configured_chain("cg_sense", SETTINGS).digest()
        gadget.configure(raw.header, {"folder": str(tmp_path), CHAIN_PROPERTY: digest})
    assert len(list(gadget.process(iter(images[::-1])))) == 2
    assert uids(tmp_path) == own


def test_images_of_other_gadgets_do_not_merge_either(first: Path, folder: Path, own: Any, tmp_path: Path) -> None:
    """Images without a digest, as from a C++ reconstruction: the first one's pixels stand for the data."""
    found = []
    for number, factor in enumerate((1, 2, 1)):
        gadget = DicomOutput()
        with RawScan(first) as raw:
            gadget.configure(raw.header, {"folder": str(tmp_path / str(number))})
        images = list(read_images(folder / "own", 1))
        for image in images:
            image.attribute_string = ""
            image.data[:] = factor * (image.data // 2)
        list(gadget.process(iter(images)))
        found.append(uids(tmp_path / str(number)))
    assert found[0] == found[2] and all(len(found[0][kind]) == 1 for kind in ("Study", "Series"))
    assert not any(found[0][kind] & found[1][kind] for kind in found[0])
