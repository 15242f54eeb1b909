"""Replays with noise of the scan, of another file, of another measurement of the file, and of a storage server."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest

from gadgets.images import NOISE, NOISE_NAME, meta_of, meta_values
from gadgets.noise.storage import ADDRESS_VARIABLE
from gadgets.stream import ReconError
from pipelines.info import describe
from pipelines.noise.sources import choose_noise
from pipelines.raw import RawScan
from pipelines.replay import read_images
from tests import raw_files
from tests.gadgets.noise.covariances import blob, covariance_blob, storage
from tests.noise_scans import NAMES, header, noise_lines, scan_lines

ID = "1_2_3_1"
FEW = "generative_recon.iterations=3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The scan with its noise before it, after it and in a file of its own."""
    path = tmp_path_factory.mktemp("noise")
    raw_files.write(path / "own.h5", (header(), [*noise_lines(), *scan_lines()]))
    raw_files.write(path / "late.h5", (header(), [*scan_lines(), *noise_lines()]))
    raw_files.write(path / "scan.h5", (header(depends_on=ID), scan_lines()))
    raw_files.write(path / "noise.h5", (header(measurement_id=ID), noise_lines()))
    return path


def image(raw, out, *settings, **options):
    """Result, pixels and meta attributes of the one image."""
    result, _ = raw_files.replay(raw, out, FEW, *settings, **options)
    (found,) = read_images(out, 1)
    return result, found.data, meta_of(found.attribute_string)


@pytest.fixture(scope="module")
def own(folder):
    return image(folder / "own.h5", folder / "own")


def test_own_noise(own):
    result, _, meta = own
    assert result.noise == "own scan" and not result.warnings
    assert meta_values(meta, NOISE) == ["own scan"] and not meta_values(meta, NOISE_NAME)


def test_noise_after_the_lines(folder, own, tmp_path):
    result, pixels, _ = image(folder / "late.h5", tmp_path / "out")
    assert result.noise == "own scan"
    assert np.array_equal(pixels, own[1])


def test_noise_of_another_file(folder, own, tmp_path):
    result, pixels, meta = image(folder / "scan.h5", tmp_path / "out", noise=str(folder / "noise.h5"))
    assert np.array_equal(pixels, own[1])
    assert meta_values(meta, NOISE) == ["another file, 5 min older"]
    assert meta_values(meta, NOISE_NAME) == [f"noise.h5, measurement {ID}"]
    assert json.loads((tmp_path / "out" / "replay.json").read_text())["noise"] == result.noise
    (file,) = (tmp_path / "out" / "dicom").rglob("*.dcm")
    assert pydicom.dcmread(file).DerivationDescription.endswith(
        f"; noise: another file, 5 min older, noise.h5, measurement {ID}"
    )


def test_anonymized_images_do_not_name_it(folder, tmp_path):
    settings = ("dicom_output.anonymize=true",)
    image(folder / "scan.h5", tmp_path / "out", *settings, noise=str(folder / "noise.h5"))
    (file,) = (tmp_path / "out" / "dicom").rglob("*.dcm")
    assert pydicom.dcmread(file).DerivationDescription.endswith("; noise: another file, 5 min older")
    for written in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert ID.encode() not in written.read_bytes() and b"noise.h5" not in written.read_bytes()


@pytest.mark.slow
def test_other_noise_is_another_series(folder, tmp_path):
    raw_files.write(tmp_path / "noise.h5", (header(measurement_id=ID), noise_lines(7)))
    series = []
    for noise in (folder / "noise.h5", tmp_path / "noise.h5", folder / "noise.h5"):
        _, (dataset,) = raw_files.replay(folder / "scan.h5", tmp_path / str(len(series)), FEW, noise=str(noise))
        series.append(dataset.SeriesInstanceUID)
    assert series[0] == series[2] != series[1]


def test_no_noise_is_said(folder, own, tmp_path):
    result, pixels, meta = image(folder / "scan.h5", tmp_path / "out")
    assert not np.array_equal(pixels, own[1])
    assert not meta_values(meta, NOISE) and not result.noise
    assert any("the header names a measurement of it, which is not in this stream" in text for text in result.warnings)


@pytest.mark.slow
def test_processes_and_no_prewhitening(folder, own, tmp_path):
    options = {"noise": str(folder / "noise.h5")}
    _, pixels, meta = image(folder / "scan.h5", tmp_path / "1", processes=True, **options)
    assert np.array_equal(pixels, own[1]) and meta_values(meta, NOISE) == ["another file, 5 min older"]
    off = "NoiseAdjustGadget.perform_noise_adjust=false"
    result, _, meta = image(folder / "scan.h5", tmp_path / "2", off, **options)
    assert not result.noise and not meta_values(meta, NOISE)


# --- which noise it is ----------------------------------------------------------------------------------------------


def chosen(path, given=""):
    with RawScan(path) as scan:
        return choose_noise(scan, str(given))


def covariance(path, given=""):
    return chosen(path, given).scan.covariance


def reference(folder):
    return covariance(folder / "scan.h5", folder / "noise.h5")


def test_the_file_that_is_named_comes_before_own_noise(folder, tmp_path):
    raw_files.write(tmp_path / "other.h5", (header(), noise_lines(5)))
    assert chosen(folder / "own.h5").scan is None
    assert chosen(folder / "own.h5", tmp_path / "other.h5").scan.samples == 5 * 128


def test_coils_in_another_order_and_more_of_them(folder, tmp_path):
    order = [3, 1, 0, 2]
    names = [NAMES[place] for place in order]
    raw_files.write(tmp_path / "order.h5", (header(names), noise_lines(order=order)))
    np.testing.assert_allclose(
        covariance(folder / "scan.h5", tmp_path / "order.h5"), reference(folder), rtol=1e-12, atol=1e-12
    )
    two = raw_files.lines(raw_files.noise((2, 64, 128)))
    fewer = raw_files.write(tmp_path / "fewer.h5", (header(["H4", "H2"]), two))
    expected = reference(folder)[np.ix_([3, 1], [3, 1])]
    np.testing.assert_array_equal(covariance(fewer, folder / "noise.h5"), expected)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["H1", "H2", "H3", "X"], "has 4 coils, not those of the scan (4)"),
        (["H1", "H2", "H3"], "has 3 coils, not those of the scan (4)"),
    ],
)
def test_other_coils_do_not_prewhiten(folder, tmp_path, caplog, names, text):
    lines = noise_lines(order=range(len(names)))
    raw_files.write(tmp_path / "other.h5", (header(names), lines))
    assert chosen(folder / "scan.h5", tmp_path / "other.h5") is None
    assert text in caplog.text
    assert chosen(folder / "own.h5", tmp_path / "other.h5").scan is None  # its own noise


@pytest.mark.parametrize(
    ("changes", "stamp", "warning"),
    [
        ({"date": "2024-02-27"}, 14_424_000, "is 3 days older than the scan"),
        ({}, 14_600_000, "is 2 min newer than the scan"),
        ({"station": "MR2"}, 14_424_000, "differs from the scan in: station; it is used all the same"),
        ({"bandwidth": 0.5}, 14_424_000, "differs from the scan in: receiver noise bandwidth; it is used all the same"),
    ],
)
def test_doubtful_noise_is_said(folder, tmp_path, caplog, changes, stamp, warning):
    lines = noise_lines(acquisition_time_stamp=stamp)
    raw_files.write(tmp_path / "noise.h5", (header(measurement_id=ID, **changes), lines))
    assert chosen(folder / "scan.h5", tmp_path / "noise.h5").scan is not None
    assert warning in caplog.text


def test_noise_lines_without_the_flag(folder, tmp_path, caplog):
    plain = noise_lines()
    for line in plain:
        line.clear_all_flags()
    raw_files.write(tmp_path / "plain.h5", (header(measurement_id=ID, protocol="AdjCoilSens"), plain))
    np.testing.assert_array_equal(covariance(folder / "scan.h5", tmp_path / "plain.h5"), reference(folder))
    assert "no line is flagged as noise; all 8 are taken for it" in caplog.text
    with pytest.raises(ReconError, match=r"none of its 64 acquisitions is a noise line; give the file of a noise scan"):
        chosen(folder / "scan.h5", folder / "scan.h5")


@pytest.mark.slow
def test_another_measurement_of_the_file(folder, tmp_path):
    adjustment = (header(measurement_id=ID, protocol="AdjCoilSens"), [*noise_lines(), *scan_lines()], "dataset_1")
    later = (header(measurement_id="1_2_3_8", protocol="noise"), noise_lines(3), "dataset_3")
    named = raw_files.write(
        tmp_path / "named.h5", adjustment, (header(depends_on=ID), scan_lines(), "dataset_2"), later
    )
    noise = chosen(named)
    np.testing.assert_array_equal(noise.scan.covariance, reference(folder))
    assert noise.text == "another measurement of the file, 5 min older"
    assert noise.name == f"dataset_1, measurement {ID}"
    alone = raw_files.write(tmp_path / "alone.h5", (header(), scan_lines(), "dataset_2"), later)
    assert chosen(alone).scan.samples == 3 * 128
    assert chosen(folder / "scan.h5", alone).scan.samples == 3 * 128
    assert chosen(folder / "scan.h5", f"{named}:dataset_3").scan.samples == 3 * 128
    assert chosen(folder / "scan.h5", named).scan.samples == 8 * 128


def test_noise_of_another_scanner_in_the_file_is_not_used(tmp_path, caplog):
    other = (header(measurement_id="9", station="MR2"), noise_lines(), "noise")
    raw = raw_files.write(tmp_path / "raw.h5", other, (header(), scan_lines(), "scan"))
    assert chosen(raw) is None
    assert "differs from the scan in: station; it is not used" in caplog.text


def test_a_storage_server(folder, monkeypatch):
    expected = reference(folder)
    order = [1, 0, 3, 2]
    stored = expected[np.ix_(order, order)]
    content = covariance_blob(stored, [NAMES[place] for place in order], dwell=5.0)
    with storage(blob(content)) as (address, _):
        monkeypatch.setenv(ADDRESS_VARIABLE, address)
        noise = chosen(folder / "scan.h5")
        assert chosen(folder / "own.h5").scan is None
    np.testing.assert_allclose(noise.scan.covariance, expected, rtol=1e-6)
    assert noise.text.startswith("another measurement, from the storage server, ")
    assert noise.name == f"measurement {ID}"


def test_an_absent_storage_server_is_a_warning(folder, caplog, monkeypatch):
    monkeypatch.setenv(ADDRESS_VARIABLE, "http://127.0.0.1:1")
    assert chosen(folder / "scan.h5") is None
    assert "storage server 127.0.0.1:1: no answer" in caplog.text
    assert chosen(folder / "own.h5").scan is None
    with pytest.raises(ReconError, match="no answer"):
        chosen(folder / "scan.h5", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("own.h5", [("noise", "8 lines, 4 coils, 128 samples, 5 us")]),
        ("scan.h5", [("noise named", f"measurement {ID}, not in this file")]),
        ("noise.h5", [("noise", "8 lines, 4 coils, 128 samples, 5 us")]),
    ],
)
def test_info(folder, name, expected):
    rows = [row for row in describe(folder / name) if row[0].startswith("noise")]
    assert [row for row in rows if row[0] not in ("noise samples", "noise levels")] == expected
