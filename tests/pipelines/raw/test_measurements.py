"""Several measurements in one file: groups of HDF5, headers of a stream."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pytest
from typer.testing import CliRunner

from gadgets.stream import ReconError
from pipelines.cli import app
from pipelines.evaluation.arrays import scan_bits
from pipelines.info import describe
from pipelines.raw import RawScan, measurements
from pipelines.raw.standard_input import raw_file
from tests.pipelines.raw.streams import write_stream
from tests.raw_files import MARKER, header, kspace, lines, marker, noise, replay, write

ADJUSTMENT = (header(protocol="AdjCoilSens"), lines(kspace(objects=[((0, 0, 0), 45, 1.0)])))
SCAN = (header(protocol="t1_scan"), lines(kspace()))
OTHER = (header(protocol="t2_scan"), lines(kspace()))


def noise_lines(count: int = 4) -> list[Any]:
    result = lines(noise((4, count, 128)))
    for line in result:
        line.clearAllFlags()
        line.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    return result


NOISE = (header(protocol="noise"), noise_lines())


def calibration_lines() -> list[Any]:
    result = lines(kspace()[:, 24:40])
    for line in result:
        line.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
    return result


def test_the_only_scan_is_taken_and_a_line_says_so(tmp_path: Path) -> None:
    path = write(
        tmp_path / "scan.h5",
        (*ADJUSTMENT, "dataset_1"),
        (*NOISE, "dataset_2"),
        (header(protocol="refscan"), calibration_lines(), "dataset_3"),
        (*SCAN, "deep/er/dataset_4"),
        (header(protocol="empty"), [], "dataset_5"),
    )
    kinds = {one.name: (one.protocol, one.lines, one.kind) for one in measurements(path)}
    assert kinds == {
        "dataset_1": ("AdjCoilSens", 64, "adjustment"),
        "dataset_2": ("noise", 4, "noise"),
        "dataset_3": ("refscan", 16, "calibration"),
        "dataset_5": ("empty", 0, "no acquisitions"),
        "deep/er/dataset_4": ("t1_scan", 64, "images"),
    }
    result, (image,) = replay(path, tmp_path / "out")
    assert image.SeriesDescription.startswith("t1_scan")
    assert marker(image) == pytest.approx(MARKER, abs=0.25)
    (note,) = [text for text in result.warnings if "is taken" in text]
    assert "measurement deep/er/dataset_4 (t1_scan, 64 lines, images) of the file is taken" in note
    assert "dataset_1 (AdjCoilSens, 64 lines, adjustment), dataset_2 (noise, 4 lines, noise)" in note
    rows = describe(path)
    assert [text for name, text in rows if name == "measurement"] == [str(one) for one in measurements(path)]
    assert ("protocol", "t1_scan") in rows


def test_between_scans_nobody_guesses(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.h5", (*SCAN, "dataset"), (*NOISE, "noise"), (*OTHER, "second"))
    with pytest.raises(ReconError) as caught:
        RawScan(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: it has 3 measurements, dataset (t1_scan, 64 lines, images), noise (noise, 4 ")
    assert message.endswith("more than one may be the scan; choose one with --group NAME, or as FILE:NAME")
    assert describe(path)[-1][0] == "scan"  # lists them, and is no error
    for chosen in (RawScan(path, "second"), RawScan(path, "/second"), RawScan(f"{path}:second")):
        with chosen as scan:
            assert scan.header.measurementInformation.protocolName == "t2_scan" and not scan.warnings
    with pytest.raises(ReconError, match="not one called third; correct --group"):
        RawScan(path, "third")
    assert len(list(scan_bits(Path(f"{path}:second"), ()))) == 1  # as benchmark and train read it


def test_without_any_scan(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.h5", (*ADJUSTMENT, "a"), (*NOISE, "b"))
    with pytest.raises(ReconError, match="none seems to be the scan; choose one with --group"):
        RawScan(path)
    with RawScan(path, "a") as scan:
        assert len(list(scan.acquisitions())) == 64


def test_one_measurement_is_taken_whatever_its_name(tmp_path: Path) -> None:
    with RawScan(write(tmp_path / "scan.h5", (*ADJUSTMENT, "x/y"))) as scan:
        assert len(list(scan.acquisitions())) == 64 and not scan.warnings
    with h5py.File(tmp_path / "root.h5", "w") as file, h5py.File(tmp_path / "scan.h5") as source:
        for name in ("xml", "data"):
            file[name] = source["x/y"][name][...]
    with RawScan(tmp_path / "root.h5") as scan:
        assert scan.acquisition_count == 64


def test_images_of_a_scanner_are_no_measurement(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.h5", (*SCAN, "deep/dataset"))
    with ismrmrd.Dataset(str(path), "deep/dataset") as dataset:
        dataset.append_image("image_0", ismrmrd.Image.from_array(np.ones((8, 8), np.float32)))
    assert measurements(path) == []


def test_damaged_measurements_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.h5", (*SCAN, "good"), ("no XML", SCAN[1], "unreadable"))
    with h5py.File(path, "a") as file:
        file["table/xml"] = "x"
        file["table/data"] = np.zeros(3)
        file["bare/data"] = file["good/data"][...]
    assert {one.name: one.kind for one in measurements(path)} == {
        "bare": "no header",
        "good": "images",
        "table": "no table of acquisitions",
        "unreadable": "images",
    }
    with pytest.raises(ReconError, match="no ISMRMRD header"):
        RawScan(path, "bare")


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "scan.h5", (*SCAN, "first"), (*OTHER, "second"))
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    listed = run(app, ["info", str(path)])
    assert listed.exit_code == 0 and re.search(r"second \(t2_scan, 64 lines, images\)", listed.stdout)
    assert "t2_scan" in run(app, ["info", str(path), "--group", "second"]).stdout
    assert run(app, ["replay", str(path), "--group", "second"]).exit_code == 0
    assert run(app, ["replay", f"{path}:first", str(path) + ":second"]).exit_code == 0
    assert sorted(folder.name for folder in (tmp_path / "genrecon-out").iterdir()) == ["scan-first", "scan-second"]
    assert isinstance(run(app, ["replay", str(path)]).exception, ReconError)


def test_measurements_of_a_stream(tmp_path: Path) -> None:
    path = write_stream(tmp_path / "scan.mrd", ADJUSTMENT, SCAN)
    assert [(one.name, one.kind) for one in measurements(path)] == [("1", "adjustment"), ("2", "images")]
    result, (image,) = replay(path, tmp_path / "out")
    assert image.SeriesDescription.startswith("t1_scan") and any("is taken" in text for text in result.warnings)
    with RawScan(path, "1") as scan:
        assert scan.header.measurementInformation.protocolName == "AdjCoilSens"
    with pytest.raises(ReconError, match="more than one may be the scan"):
        RawScan(write_stream(tmp_path / "scan.mrd", OTHER, SCAN))


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (write_stream(tmp_path / "scan.mrd", SCAN), write(tmp_path / "scan.h5", SCAN)):
        stdin = io.TextIOWrapper(io.BytesIO(path.read_bytes()))
        monkeypatch.setattr("sys.stdin", stdin)
        from pipelines.cli.replay import replay as command

        command([Path("-")])
        assert len(list((tmp_path / "genrecon-out" / "stdin").rglob("*.dcm"))) == 1


def test_errors_name_standard_input_and_no_temporary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"no raw data")))
    with pytest.raises(ReconError, match=r"^standard input: not an HDF5 file"), raw_file(Path("-")) as path:
        RawScan(path)
