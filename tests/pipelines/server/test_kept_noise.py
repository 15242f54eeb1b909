"""A server keeps the noise of a measurement for the scans that name it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from gadgetron.external import constants, writers

from benchmarks.fuzz import Recorded
from gadgets.images import NOISE, NOISE_NAME, meta_of, meta_values
from gadgets.noise.scan import NoiseScan
from gadgets.reference_scan import ReferenceBlock, ReferenceScan
from pipelines.cli import entry as cli
from pipelines.noise.streamed import ScanNoise
from pipelines.replay import read_images, replay
from pipelines.send import send
from pipelines.server import noise_store
from pipelines.server.noise_store import NoiseStore
from pipelines.server.request import Request
from tests import raw_files
from tests.noise_scans import NAMES, header, noise_lines, scan_lines
from tests.pipelines.server.serving import CLOSE, address, ended_well, exchanged, named, serving, text, until

ID = "1_2_3_1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("noise")
    raw_files.write(path / "own.h5", (header(depends_on=ID), [*noise_lines(), *scan_lines()]))
    raw_files.write(path / "scan.h5", (header(depends_on=ID), scan_lines()))
    raw_files.write(path / "noise.h5", (header(measurement_id=ID), noise_lines()))
    replay(path / "own.h5", "cg_sense", path / "own")
    return path


def image(folder: Path) -> Any:
    (found,) = read_images(folder, 1)
    return found


def message(lines: list[Any], head: str) -> bytes:
    """A scan as a client sends it."""
    wire = Recorded()
    wire.data = named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, head.encode())
    for line in lines:
        writers.write_acquisition(wire, line)
    return wire.data + CLOSE


def test_a_scan_that_names_a_noise_measurement(folder: Path, tmp_path: Path) -> None:
    with serving() as server:
        before = send(folder / "scan.h5", "cg_sense", address(server), out=tmp_path / "before", timeout=30)
        assert "the data are not prewhitened" in before.texts[0]
        noise = send(folder / "noise.h5", "cg_sense", address(server), timeout=30)
        assert noise.images == 0
        assert noise.texts == (
            "[genrecon] INFO: a noise measurement of 4 coils, it has no image; it is kept for scans that name it in "
            "measurementDependency",
        )
        assert not send(folder / "scan.h5", "cg_sense", address(server), out=tmp_path / "sent", timeout=30).texts
        until(lambda: not server.queue.running())  # the client may be done before the server knows it
        assert [scan.state for scan in server.queue.scans] == ["done"] * 3
    expected, found = image(folder / "own"), image(tmp_path / "sent")
    assert np.array_equal(found.data, expected.data)
    assert not np.array_equal(image(tmp_path / "before").data, expected.data)
    meta = meta_of(found.attribute_string)
    assert meta_values(meta, NOISE) == ["another measurement, 5 min older"]
    assert meta_values(meta, NOISE_NAME) == [f"measurement {ID}"]


def test_noise_of_a_scan_and_another_process(folder: Path, tmp_path: Path) -> None:
    """A scan with noise lines of its own is a noise measurement, too, and its own noise comes first."""
    own = header(measurement_id=ID, depends_on="1_2_3_0")
    with serving(scans=2) as server:
        assert ended_well(exchanged(server, message([*noise_lines(), *scan_lines()], own)))
        assert ended_well(exchanged(server, message(noise_lines(3), header(measurement_id="1_2_3_0"))))
        for name in ("own", "scan"):
            send(folder / f"{name}.h5", "cg_sense", address(server), out=tmp_path / name, timeout=30)
    for name, said in (("own", "own scan"), ("scan", "another measurement, 5 min older")):
        found = image(tmp_path / name)
        assert np.array_equal(found.data, image(folder / "own").data)
        assert meta_values(meta_of(found.attribute_string), NOISE) == [said]


def test_dicom_is_that_of_a_replay(folder: Path, tmp_path: Path) -> None:
    _, (expected,) = raw_files.replay(folder / "scan.h5", tmp_path / "replay", noise=str(folder / "noise.h5"))
    with serving(dicom=tmp_path / "served") as server:
        for name in ("noise", "scan"):
            send(folder / f"{name}.h5", "cg_sense", address(server), timeout=30)
    (file,) = (tmp_path / "served").rglob("*.dcm")
    found = raw_files.pydicom.dcmread(file)
    assert found.SOPInstanceUID == expected.SOPInstanceUID
    assert found.SeriesInstanceUID == expected.SeriesInstanceUID


def test_a_replay_on_a_server_sends_the_noise_ahead(folder: Path, tmp_path: Path) -> None:
    with serving() as server:
        options: dict[str, Any] = {"noise": str(folder / "noise.h5"), "gadgetron": address(server)}
        for name in ("scan", "own"):  # its own noise lines are not sent
            replay(folder / f"{name}.h5", "cg_sense", tmp_path / name, **options)
            found = image(tmp_path / name)
            np.testing.assert_allclose(found.data.astype(float), image(folder / "own").data, atol=1)
            assert meta_values(meta_of(found.attribute_string), NOISE) == ["another file, 5 min older"]


def test_noise_without_an_id_and_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    raw = raw_files.write(tmp_path / "noise.h5", (header(measurement_id=None), noise_lines()))
    with serving() as server:
        monkeypatch.setattr("sys.argv", ["genrecon", "send", str(raw), "--port", str(server.port)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    shown = capsys.readouterr()
    assert end.value.code == 0
    assert "it is not kept: its header has no measurementID by which a scan could name it" in shown.err
    assert "no image is due" in shown.out


# --- which noise it is ----------------------------------------------------------------------------------------------


def parsed(**changes: Any) -> Any:
    return ismrmrd.xsd.CreateFromDocument(header(**changes).encode())


def measured(lines: list[Any] | None = None, **changes: Any) -> NoiseScan:
    """The noise that a server keeps of a measurement."""
    kept: list[NoiseScan] = []
    ScanNoise((), kept.append).choose(parsed(**{"measurement_id": ID} | changes), iter(lines or noise_lines()))
    (noise,) = kept
    return noise


def chosen(*kept: NoiseScan, lines: list[Any] | None = None, **changes: Any) -> Any:
    """The covariance that a scan is prewhitened with; None without."""
    noise, items = ScanNoise(kept, lambda _: None).choose(
        parsed(**{"depends_on": ID} | changes), iter(lines or scan_lines())
    )
    assert len([item for item in items if not item.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]) == 64
    return noise and noise.scan and noise.scan.covariance


def test_coils_are_matched_and_other_coils_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    expected = measured().covariance
    order = [2, 0, 3, 1]
    shuffled = measured(noise_lines(order=order), names=[NAMES[place] for place in order])
    np.testing.assert_allclose(chosen(shuffled), expected)
    assert not caplog.text
    assert chosen(measured(names=["A", "B", "C", "D"])) is None
    assert "has 4 coils, not those of the scan (4); the data are not prewhitened with it" in caplog.text


@pytest.mark.parametrize("other", [{"station": "MR2"}, {"bandwidth": 0.5}, {"identity": False, "station": "MR3"}])
def test_equal_ids_of_two_scanners_do_not_mix(other: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = measured(), measured(noise_lines(3), **other)
    np.testing.assert_array_equal(chosen(theirs, ours), ours.covariance)
    assert not caplog.text
    assert chosen(theirs) is None
    assert "it is not used" in caplog.text


def test_only_noise_that_is_named() -> None:
    assert chosen(measured(measurement_id="1_2_3_7")) is None
    assert chosen(measured(), depends_on="") is None
    np.testing.assert_array_equal(chosen(measured(), depends_on="1"), measured().covariance)


def test_late_noise_does_not_prewhiten_a_part(caplog: pytest.LogCaptureFixture) -> None:
    kept: list[NoiseScan] = []
    lines = scan_lines()
    noise, items = ScanNoise((), kept.append).choose(parsed(), iter([*lines[:30], *noise_lines(), *lines[30:]]))
    assert noise is None
    assert len(list(items)) == 64
    assert len(kept) == 1
    assert "noise lines came after lines for images: the data are not prewhitened with them" in caplog.text


def test_a_navigator_may_come_before_the_noise() -> None:
    navigator = raw_files.line(raw_files.noise(), 0, flags=[ismrmrd.ACQ_IS_NAVIGATION_DATA])
    choice = ScanNoise((), lambda _: None)
    noise, items = choice.choose(parsed(), iter([navigator, *noise_lines(), *scan_lines()]))
    assert noise is not None and noise.scan is None
    assert len(list(items)) == 1 + 8 + 64


# --- the store ------------------------------------------------------------------------------------------------------


def kept_by(store: NoiseStore, head: bytes = b"<measurementDependency>") -> list[int]:
    """Numbers of samples of what a request gets."""
    return [noise.samples for noise in store.with_noise(Request("", None, head, (), 0)).noise]


@pytest.fixture
def noise() -> Callable[..., NoiseScan]:
    one = measured()
    return lambda number, **changes: dataclasses.replace(one, samples=number, **changes)


def test_the_store_keeps_the_newest(noise: Callable[..., NoiseScan], monkeypatch: pytest.MonkeyPatch) -> None:
    store = NoiseStore()
    for number in range(5):
        store.keep(noise(number, measurement=str(number % 3)))
    assert kept_by(store) == [4, 3, 2]
    assert kept_by(store, b"<ismrmrdHeader/>") == []
    store.keep(noise(9, measurement="1", context={"station": "other"}))
    assert kept_by(store) == [9, 4, 3, 2]


@pytest.mark.parametrize(("limit", "value"), [("MOST_SCANS", 3), ("MOST_BYTES", 3 * 16 * 16)])
def test_the_store_has_limits(
    limit: str, value: int, noise: Callable[..., NoiseScan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_store, limit, value)
    store = NoiseStore()
    for number in range(6):
        store.keep(noise(number, measurement=str(number)))
    assert kept_by(store) == [5, 4, 3]


def test_old_noise_is_forgotten(noise: Callable[..., NoiseScan], monkeypatch: pytest.MonkeyPatch) -> None:
    store = NoiseStore()
    store.keep(noise(1))
    monkeypatch.setattr(noise_store, "LONGEST_S", -1.0)
    assert kept_by(store) == []


def test_what_the_status_page_shows_of_kept_scans() -> None:
    store = NoiseStore()
    store.keep(NoiseScan(np.eye(4), measurement="45387_MUSTERMANN_7_349"))
    store.keep(NoiseScan(np.eye(8), measurement="Eva Mustermann"))
    block = ReferenceBlock(np.ones((24, 24, 12, 6), np.complex64), np.ones(3), np.zeros(3), np.eye(3))
    store.keep(ReferenceScan((block,), measurement="45387_1_7_350"))
    store.keep(ReferenceScan(2 * (dataclasses.replace(block, kspace=block.kspace[:, :, :1]),), measurement="351"))
    found = store.kept()
    assert [(one["measurement"], one["coils"]) for one in found["noise"]] == [("", 8), ("349", 4)]
    assert [(one["measurement"], one["blocks"], one["volume"]) for one in found["references"]] == [
        ("351", 2, False),
        ("350", 1, True),
    ]
    assert all(0 <= one["age_s"] < 60 for scans in found.values() for one in scans)
    assert "MUSTERMANN" not in str(found).upper()
