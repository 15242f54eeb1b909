"""Headers that cannot be read or used."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pytest

from pipelines.raw import RawScan
from tests.pipelines.bad_input.helpers import BOMB, EXTERNAL, change_header, set_header

IN_HEADER = '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><version>&e11;</version></ismrmrdHeader>'


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no XML at all",
        b"<ismrmrdHeader>",
        b"<html><body/></html>",
        b"\xff\xfe",
        (BOMB + IN_HEADER).encode(),
        (EXTERNAL + IN_HEADER).encode(),
    ],
    ids=["empty", "text", "open", "html", "binary", "bomb", "external"],
)
def test_header_that_is_no_ismrmrd_xml(refused: Any, raw: Path, text: bytes) -> None:
    secret = raw.with_name("secret.txt")
    secret.write_text("top secret")
    set_header(raw, text.replace(b"/etc/hostname", str(secret).encode()))
    start = time.monotonic()
    line = refused(raw)
    assert "top secret" not in line
    assert "scan.h5: its ISMRMRD header cannot be read" in line
    assert "convert the raw data again" in line
    assert time.monotonic() - start < 5.0


def test_header_with_texts_for_numbers(refused: Any, raw: Path) -> None:
    with h5py.File(raw) as file:
        text = bytes(np.ravel(file["dataset/xml"][()])[0])
    for name, old, new in (("x", b"<x>", b"<x>3B"), ("H1resonanceFrequency_Hz", b"Frequency_Hz>1", b"Frequency_Hz>B")):
        assert old in text
        set_header(raw, text.replace(old, new, 1))
        line = refused(raw)
        assert f"{name} in its ISMRMRD header is not a number; correct the header" in line and "3B" not in line


def test_header_is_missing(refused: Any, raw: Path) -> None:
    set_header(raw, None)
    assert "scan.h5: no ISMRMRD header (xml) in group /dataset" in refused(raw)


def test_header_is_an_empty_table(refused: Any, raw: Path) -> None:
    with h5py.File(raw, "r+") as file:
        del file["dataset/xml"]
        file.create_dataset("dataset/xml", (0,), dtype=h5py.special_dtype(vlen=bytes))
    assert "scan.h5: the file cannot be read" in refused(raw)


def test_header_as_a_scalar_is_read(raw: Path) -> None:
    with h5py.File(raw, "r+") as file:
        text = file["dataset/xml"][0]
        del file["dataset/xml"]
        file["dataset/xml"] = text
    with RawScan(raw) as scan:
        assert scan.header_xml == text


ENCODING = "encoding.0"
ENCODED = f"{ENCODING}.encodedSpace"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"encoding": []}, "header has no encoding section"),
        (
            {f"{ENCODING}.trajectory": ismrmrd.xsd.trajectoryType.RADIAL},
            "the trajectory of encoding 0 is radial; only cartesian ones",
        ),
        (
            {f"{ENCODING}.trajectory": ismrmrd.xsd.trajectoryType.EPI},
            "the trajectory of encoding 0 is epi (lines read on both ramps of an oscillating gradient need regridding",
        ),
        ({f"{ENCODING}.reconSpace.matrixSize.y": 0}, "reconSpace of encoding 0 has matrix [32, 0, 1]"),
        (
            {f"{ENCODED}.fieldOfView_mm.x": -220.0},
            "encodedSpace of encoding 0 has matrix [64, 32, 1] and field of view [-220.0",
        ),
        ({f"{ENCODED}.matrixSize.x": 96}, "acquisition 7 has 64 samples, the header's encoded matrix is 96"),
        ({f"{ENCODED}.matrixSize.x": 48}, "acquisition 7 has 64 samples, the header's encoded matrix is 48"),
    ],
)
def test_header_that_cannot_be_used(refused: Any, raw: Path, changes: dict[str, Any], text: str) -> None:
    change_header(raw, changes)
    line = refused(raw)
    assert line.startswith(f"error: {raw}: ")
    assert text in line


def test_reconstructed_field_of_view_larger_than_the_encoded(refused: Any, raw: Path) -> None:
    change_header(raw, {f"{ENCODING}.reconSpace.fieldOfView_mm.x": 1000.0})
    assert "header: encoded field of view is smaller than the reconstructed one along the readout" in refused(raw)
