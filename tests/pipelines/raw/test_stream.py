"""MRD streams in files."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from ismrmrd.serialization import ConfigFile, ConfigText

from gadgets.stream import ReconError
from pipelines.info import describe
from pipelines.raw import RawScan
from tests.pipelines.raw.streams import CLOSE, header_message, text_message, write_items, write_stream
from tests.raw_files import header, kspace, line, lines, noise, replay, write

HEADER = header()
START = header_message(HEADER)


def wave() -> Any:
    return ismrmrd.Waveform.from_array(np.arange(32, dtype=np.uint32).reshape(2, 16))


def image(dtype: Any = np.float32) -> Any:
    return ismrmrd.Image.from_array(np.ones((8, 8), dtype))


def read(path: Path) -> list[Any]:
    with RawScan(path) as scan:
        return list(scan.acquisitions())


def refused(path: Path) -> str:
    with pytest.raises(ReconError) as caught:
        RawScan(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_images_are_those_of_the_file(tmp_path: Path) -> None:
    data = kspace()
    _, (plain,) = replay(write(tmp_path / "plain.h5", (HEADER, lines(data))), tmp_path / "plain")
    path = write_stream(tmp_path / "scan.mrd", (HEADER, lines(data)))
    _, (found,) = replay(path, tmp_path / "out")
    assert np.array_equal(found.pixel_array, plain.pixel_array)
    assert found.ImagePositionPatient == plain.ImagePositionPatient
    with RawScan(path) as scan, RawScan(tmp_path / "plain.h5") as file:
        assert np.array_equal(scan.heads()["idx"], file.heads()["idx"]) and not scan.warnings
    assert describe(path) == describe(tmp_path / "plain.h5")


def test_whatever_stands_between_the_lines(tmp_path: Path) -> None:
    acquisitions = lines(kspace())
    acquisitions[3].resize(128, 4, 2)
    acquisitions[3].traj[:] = 1
    dicom = struct.pack("<HI", 1018, 3) + b"abc" + struct.pack("<Q", 2) + b"de" + struct.pack("<Q", 1) + b"f"
    between = [
        wave(),
        image(),
        image(np.complex64),
        image(np.uint16),
        "a text",
        np.arange(24.0).reshape(2, 3, 4),
        dicom,
        ConfigText("<configuration/>"),
        header_message(HEADER),  # before the first line it says nothing new
    ]
    items = [ConfigFile("default.xml"), START, *between, *acquisitions[:4], *between[:-1], *acquisitions[4:], wave()]
    found = read(write_items(tmp_path / "scan.mrd", b"", items))
    assert [line.idx.kspace_encode_step_1 for line in found] == list(range(64))
    assert all(np.array_equal(one.data, other.data) for one, other in zip(found, acquisitions, strict=True))
    assert np.array_equal(found[3].traj, acquisitions[3].traj)


@pytest.mark.parametrize("begin", [text_message(2, b"<configuration/>"), text_message(5, b"hello"), b""])
def test_how_a_stream_may_begin(tmp_path: Path, begin: bytes) -> None:
    assert len(read(write_items(tmp_path / "scan.mrd", begin + START, lines(kspace())))) == 64


def test_a_stream_without_its_end(tmp_path: Path) -> None:
    path = write_items(tmp_path / "scan.mrd", START, lines(kspace()), b"")
    result, images = replay(path, tmp_path / "out")
    assert len(images) == 1
    assert any("scan.mrd: the stream has no CLOSE message at its end: it is still" in text for text in result.warnings)
    path = write_items(tmp_path / "scan.mrd", START, lines(kspace()), CLOSE + bytes(100))
    with RawScan(path) as scan:
        assert not scan.warnings
    path = write_items(tmp_path / "scan.mrd", START, lines(kspace()), CLOSE + b"something else")
    with RawScan(path) as scan:
        assert ["what follows the stream's CLOSE message" in text for text in scan.warnings] == [True]


@pytest.mark.parametrize("cut", [1, 100, 4000])
def test_a_stream_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = write_items(tmp_path / "scan.mrd", START, lines(kspace()))
    path.write_bytes(path.read_bytes()[:-cut])
    message = refused(path)
    assert "its stream ends in the middle of message" in message and "still being written, or was cut off" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (START[:-40], "its stream ends in the middle of message 0"),
        (START + CLOSE, "it has no acquisitions"),
        (text_message(2, b"<configuration/>") + CLOSE, "its stream has no ISMRMRD header"),
        (START + struct.pack("<H", 4242), "message 1 of its stream is of unknown kind 4242; the file is damaged"),
        (START + struct.pack("<HQ", 8, 2) + b"no" + CLOSE, "error of the program that wrote it"),
        (START + struct.pack("<HHHH", 1030, 77, 0, 0), "values of unknown type"),
        (START + struct.pack("<HHHH", 1030, 5, 0, 3) + b"\xff" * 24, "ends in the middle of message 1"),
        (text_message(3, b"<html/>") + CLOSE, "it has no acquisitions|header cannot be read"),
    ],
)
def test_damaged_streams(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "scan.mrd"
    path.write_bytes(content)
    assert any(part in refused(path) for part in message.split("|"))


@pytest.mark.parametrize("start", [START, b""])
def test_images_alone(start: bytes, tmp_path: Path) -> None:
    path = write_items(tmp_path / "images.mrd", start, [image(), image()])
    said = "it holds 2 images and no raw data; give the raw data that images are made of"
    assert refused(path) == f"{path}: {said}"
    hdf5 = tmp_path / "images.h5"
    with ismrmrd.Dataset(str(hdf5), "images") as dataset:
        for _ in range(2):
            dataset.append_image("image_1", image())
    assert refused(hdf5) == f"{hdf5}: {said}"


def test_acquisitions_before_a_header(tmp_path: Path) -> None:
    path = write_items(tmp_path / "scan.mrd", b"", lines(kspace())[:3])
    assert "acquisitions before the ISMRMRD header" in refused(path)


def test_memory_does_not_grow_with_the_stream(tmp_path: Path) -> None:
    start = header_message(header(encoded=(2048, 64, 1), encoded_extent=(4800, 150, 5)))
    path = write_items(tmp_path / "scan.mrd", start, [line(noise((4, 2048)), 5)] * 400)
    assert path.stat().st_size > 26e6
    with RawScan(path) as scan:
        scan.survey()  # a replay takes it from the headers of all acquisitions, before their data
        tracemalloc.start()
        for _ in scan.acquisitions():
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1e6


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x1f\x8b" + bytes(200), "compressed by gzip: unpack it"),
        (b"PK\x03\x04" + bytes(200), "a zip archive"),
        (bytes(128) + b"DICM" + bytes(100), "a DICOM file"),
        (b'{"yardl":{"version":1,"schema":{}}}', "an MRD 2 stream as text (NDJSON)"),
        (b"", "it is empty"),
    ],
)
def test_files_of_other_formats_are_named(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "scan.h5"
    path.write_bytes(content)
    assert kind in refused(path) and "not an HDF5 file" in refused(path)
