"""A server keeps the raw data of its scans; a replay of them makes the same images, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
import pytest
from gadgetron.external import constants, writers
from typer.testing import CliRunner

from benchmarks.fuzz import Recorded
from gadgets.images import meta_of
from gadgets.stream import ReconError
from pipelines.chain import shipped_xml
from pipelines.cli import app
from pipelines.kept.conversion import PART_FILE, discard_part, finish
from pipelines.kept.scan import ARRIVES, INCOMPLETE, STREAM_FILE, WHOLE, About, KeptScan
from pipelines.kept.store import KeptScans
from pipelines.raw import RawScan
from pipelines.replay import read_images, replay
from pipelines.send import send, send_again
from pipelines.server import keeper
from pipelines.server.fork_server import ForkServer
from pipelines.server.listener import Server
from tests import raw_files
from tests.noise_scans import header, noise_lines, scan_lines
from tests.pipelines.server.serving import (
    CLOSE,
    FORK_SERVER,
    SCAN,
    address,
    answer,
    connected,
    ended_well,
    error_of,
    exchanged,
    named,
    serving,
    start_scan,
    stream,
    text,
    until,
)

FIRE_ONLY = {"DataRole", "ImageProcessingHistory", "WindowCenter", "WindowWidth", "ImageRowDir", "ImageColumnDir"}


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(keep_raw=tmp_path_factory.mktemp("kept")) as server:
        yield server


def folder_of(server: Server) -> Path:
    assert server.settings.keep_raw is not None
    return server.settings.keep_raw


def ended(folder: Path, count: int) -> list[KeptScan]:
    """The kept scans, once so many have ended."""

    def scans() -> list[KeptScan]:
        return [kept for kept in KeptScans(folder, 1, 1).scans() if kept.about.state != ARRIVES]

    until(lambda: len(scans()) >= count, 30)
    assert len(scans()) == count
    return scans()


def latest(server: Server) -> KeptScan:
    """The scan that was kept last."""
    number = server.queue.scans[-1].number

    def scans() -> list[KeptScan]:
        found = KeptScans(folder_of(server), 1, 1).scans()
        return [kept for kept in found if kept.about.number == number and kept.about.state != ARRIVES]

    until(lambda: bool(scans()), 30)
    return scans()[0]


def images(folder: Path) -> list[Any]:
    return list(read_images(folder, 1))


def assert_same_images(one: list[Any], other: list[Any]) -> None:
    """Pixels, headers and meta attributes, but for those that only FIRE reads."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.data, b.data)
        first, second = meta_of(a.attribute_string), meta_of(b.attribute_string)
        for meta in (first, second):
            for name in FIRE_ONLY | {"Keep_image_geometry"}:
                meta.pop(name, None)
        assert first == second
        heads = [a.getHead(), b.getHead()]
        for head in heads:
            head.attribute_string_len = 0
        assert bytes(heads[0]) == bytes(heads[1])


def sent_and_replayed(server: Server, raw: Path, folder: Path, config: str = "cg_sense", **options: Any) -> KeptScan:
    """Send a scan, replay what was kept of it; the images are the same."""
    send(raw, config, address(server), out=folder / "sent", timeout=60, **options)
    kept = latest(server)
    assert kept.about.state == WHOLE
    replay(kept.raw, "", folder / "replayed", as_served=True)
    assert_same_images(images(folder / "sent"), images(folder / "replayed"))
    return kept


def test_a_replay_makes_the_same_images(keeping: Server, raw: Path, tmp_path: Path) -> None:
    kept = sent_and_replayed(keeping, raw, tmp_path)
    assert kept.raw.name == "scan.h5" and not kept.stream.exists()
    with RawScan(raw) as original, RawScan(kept.raw) as copy:
        assert copy.header_xml == original.header_xml
        assert copy.heads().tobytes() == original.heads().tobytes()
        for a, b in zip(original.acquisitions(), copy.acquisitions(), strict=True):
            assert np.array_equal(a.data, b.data)
    about = kept.about
    assert (about.config, about.images, about.error, about.chain) == ("cg_sense", SCAN.slices, "", "cg_sense")


def test_parameters_of_fire_and_a_chain_that_was_sent(keeping: Server, raw: Path, tmp_path: Path) -> None:
    parameters = {"generative_recon.method": "zero_filled", "espirit.map_sets": "1"}
    kept = sent_and_replayed(keeping, raw, tmp_path / "fire", parameters=parameters)
    assert 'value="zero_filled"' in (kept.folder / "chain.xml").read_text()
    chain = tmp_path / "own.xml"
    chain.write_bytes(shipped_xml("cg_sense").replace(b'"espirit.map_sets" value="2"', b'"espirit.map_sets" value="1"'))
    kept = sent_and_replayed(keeping, raw, tmp_path / "own", str(chain))
    assert kept.about.config is None and (kept.folder / "sent_chain.xml").exists()


def test_noise_of_another_measurement_is_kept(keeping: Server, tmp_path: Path) -> None:
    noise = raw_files.write(tmp_path / "noise.h5", (header(measurement_id="1_2_3_1"), noise_lines()))
    scan = raw_files.write(tmp_path / "scan.h5", (header(depends_on="1_2_3_1"), scan_lines()))
    send(noise, "cg_sense", address(keeping), timeout=30)
    kept = sent_and_replayed(keeping, scan, tmp_path)
    assert kept.about.noise == "another measurement, 5 min older"
    result = replay(kept.raw, "cg_sense", tmp_path / "without")  # as any raw file
    assert any("not prewhitened" in text for text in result.warnings)


def test_waveforms_trajectories_and_all_fields_of_headers(keeping: Server, tmp_path: Path) -> None:
    lines = scan_lines(measurement_uid=77, discard_pre=3)
    wire = Recorded()
    wire.data = named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, header().encode())
    wave = ismrmrd.Waveform.from_array(np.arange(6, dtype=np.uint32).reshape(2, 3))
    wave.waveform_id = 7
    writers.write_waveform(wire, wave)
    for line in lines:
        writers.write_acquisition(wire, line)
    assert ended_well(exchanged(keeping, wire.data + CLOSE))
    kept = latest(keeping)
    with ismrmrd.Dataset(str(kept.raw), create_if_needed=False) as file:
        assert file.number_of_acquisitions() == len(lines)
        found = file.read_acquisition(3)
        assert bytes(found.getHead()) == bytes(lines[3].getHead())
        assert np.array_equal(found.data, lines[3].data)
    with h5py.File(kept.raw) as file:
        (row,) = file["dataset/waveforms"]
        assert row["head"]["waveform_id"] == 7 and row["data"].tolist() == [*range(6)]


def test_it_is_sent_again(keeping: Server, raw: Path, tmp_path: Path) -> None:
    send(raw, "cg_sense", address(keeping), out=tmp_path / "one", timeout=30, parameters={"espirit.map_sets": "1"})
    kept = latest(keeping)
    send_again(kept, address(keeping), out=tmp_path / "two", timeout=30)
    assert_same_images(images(tmp_path / "one"), images(tmp_path / "two"))
    assert latest(keeping).about.texts == kept.about.texts
    assert KeptScans(folder_of(keeping), 1, 1).find(kept.id[:20]).id == kept.id
    shown = CliRunner().invoke(
        app, ["send", "--again", str(kept.about.number), "--kept", str(folder_of(keeping)), "--port", str(keeping.port)]
    )
    assert shown.exit_code == 0 and f"{SCAN.slices} images" in shown.output
    shown = CliRunner().invoke(app, ["send", "--list", "--kept", str(folder_of(keeping))])
    assert f"{kept.about.number} ({kept.id}): cg_sense, {SCAN.slices} images, whole" in shown.output


def test_only_its_user_reads_it(keeping: Server, raw: Path) -> None:
    send(raw, "cg_sense", address(keeping), timeout=30)
    kept = latest(keeping)
    until(lambda: not (kept.folder / STREAM_FILE).exists(), 30)  # the ISMRMRD file was made of it
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept.folder.iterdir()} == {0o600}


def test_a_wrong_parameter_loses_no_data(keeping: Server, raw: Path, tmp_path: Path) -> None:
    wrong = json.dumps({"parameters": {"espirit.map_sets": "many"}}).encode()
    assert "map_sets" in error_of(exchanged(keeping, stream(raw, parameters=wrong)), "ERROR    ")
    kept = latest(keeping)
    assert kept.about.state == WHOLE and "map_sets" in kept.about.error
    assert replay(kept.raw, "cg_sense", tmp_path / "out").images == SCAN.slices
    assert "there is no chain" in error_of(exchanged(keeping, stream(raw, named("nothing"))))
    assert latest(keeping).about.state == WHOLE


def test_a_scan_whose_client_leaves_is_not_whole(keeping: Server, unfinished: bytes, tmp_path: Path) -> None:
    with connected(keeping) as sock:
        start_scan(keeping, sock, unfinished)
    until(lambda: not keeping.queue.running())
    kept = latest(keeping)
    assert kept.about.state == INCOMPLETE and "closed the connection" in kept.about.error
    with RawScan(kept.raw) as scan:
        assert scan.acquisition_count > 0


def test_a_scan_whose_process_is_killed_is_not_whole(keeping: Server, unfinished: bytes) -> None:
    with connected(keeping) as sock:
        start_scan(keeping, sock, unfinished)
        stream_file = KeptScan(folder_of(keeping) / keeping.queue.scans[-1].kept_id).stream
        until(lambda: stream_file.exists() and stream_file.stat().st_size > 0)
        keeping.queue.slots[0].kill("it was killed")
        answer(sock)
    kept = latest(keeping)
    assert (kept.about.state, kept.about.error) == (INCOMPLETE, "it was killed")
    with pytest.raises(ReconError, match="no acquisitions"):
        RawScan(kept.raw)


def test_anonymized_scans_are_kept_without_who_and_when(tmp_path: Path) -> None:
    chains = tmp_path / "chains"
    chains.mkdir()
    (chains / "anonymous.xml").write_bytes(
        shipped_xml("cg_sense").replace(b'"anonymize" value="false"', b'"anonymize" value="true"')
    )
    scan = raw_files.write(tmp_path / "scan.h5", (header(), scan_lines()))
    with serving(keep_raw=tmp_path / "kept", chains=chains, dicom=tmp_path / "dicom") as server:
        kept = sent_and_replayed(server, scan, tmp_path, "anonymous")
    content = b"".join(path.read_bytes() for path in kept.folder.iterdir())
    assert b"TEST^CASE" in scan.read_bytes()
    for text_of_header in (b"TEST^CASE", b"P1<", b"2024-03-01", b"MR1", b"1_2_3_4"):
        assert text_of_header not in content


# --- a server that ends --------------------------------------------------------------------------------------------


def test_the_next_server_takes_care_of_what_was_left(raw: Path, unfinished: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with serving(keep_raw=folder, grace_s=0.0) as server, connected(server) as sock:
        send(raw, "cg_sense", address(server), timeout=30)
        (whole,) = ended(folder, 1)
        start_scan(server, sock, unfinished)
        until(lambda: len(KeptScans(folder, 1, 1).scans()) == 2)
        with pytest.raises(ReconError, match="another server keeps its scans there"), serving(keep_raw=folder):
            pass
    # as if the server had been killed while it made the file
    cut = next(kept for kept in KeptScans(folder, 1, 1).scans() if kept.id != whole.id)
    if not cut.stream.exists():
        cut.stream.write_bytes(unfinished[len(named("cg_sense")) :])
        (cut.folder / "scan.h5").unlink()
    cut.change(state=ARRIVES)
    half_made = folder / "20240101T000000-0123456789abcdef"
    half_made.mkdir()
    with serving(keep_raw=folder):
        states = {kept.id: kept.about.state for kept in ended(folder, 2)}
        assert states == {whole.id: WHOLE, cut.id: INCOMPLETE}
    assert not half_made.exists()


# --- limits --------------------------------------------------------------------------------------------------------


def kept_scan(folder: Path, name: str, size: int, state: str = WHOLE) -> KeptScan:
    kept = KeptScan(folder / f"{name}-0123456789abcdef")
    kept.folder.mkdir(parents=True)
    kept.write("about.json", json.dumps({"state": state}).encode())
    (kept.folder / "scan.h5").write_bytes(os.urandom(size))
    return kept


def test_the_oldest_go_but_none_that_arrives_or_owes_images(tmp_path: Path) -> None:
    names = [f"2999010{day}T000000" for day in range(1, 6)]
    arriving, owing, old, newer, newest = (
        kept_scan(tmp_path, name, 2**20, ARRIVES if place == 0 else WHOLE) for place, name in enumerate(names)
    )
    (owing.folder / "owes_images").touch()
    store = KeptScans(tmp_path, 5.5 / 1024, 1)
    assert store.make_room()
    assert len(store.scans()) == 5
    assert store.make_room(2**20)
    assert not old.folder.exists() and len(store.scans()) == 4
    assert not store.make_room(5 * 2**20, spare=(newest.id,))
    assert {kept.id for kept in store.scans()} == {arriving.id, owing.id, newest.id}
    assert not newer.folder.exists() and not list(tmp_path.glob(".removed*"))


def test_a_full_disk_leaves_the_stream_and_no_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptScan(tmp_path / "29990101T000000-0123456789abcdef")
    kept.folder.mkdir()
    kept.write("about.json", json.dumps({"state": ARRIVES}).encode())
    kept.stream.write_bytes(text(constants.GADGET_MESSAGE_HEADER, b"header") + CLOSE)
    (kept.folder / PART_FILE).write_bytes(b"of a process that was ended")
    discard_part(kept)
    full = type(shutil.disk_usage(tmp_path))(2**40, 2**40, 0)
    with monkeypatch.context() as changed:
        changed.setattr(shutil, "disk_usage", lambda _: full)
        finish(KeptScans(tmp_path, 1, 1), kept)
    assert sorted(path.name for path in kept.folder.iterdir()) == ["about.json", "scan.mrd"]
    assert kept.about.state == WHOLE
    finish(KeptScans(tmp_path, 1, 1), kept)
    assert sorted(path.name for path in kept.folder.iterdir()) == ["about.json", "scan.h5"]
    assert kept.about.state == WHOLE


def arrived(folder: Path) -> KeptScan:
    """A scan whose lines have all come, and of which no file is made yet."""
    kept = KeptScan(folder / "29990101T000000-0123456789abcdef")
    kept.write_about(About(number=5))
    kept.stream.write_bytes(text(constants.GADGET_MESSAGE_HEADER, b"header") + CLOSE)
    return kept


def test_an_unexpected_error_leaves_no_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = arrived(tmp_path)

    def fail(*_: Any) -> None:
        raise ValueError

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ValueError):
        finish(KeptScans(tmp_path, 1, 1), kept)
    assert sorted(path.name for path in kept.folder.iterdir()) == ["about.json", "scan.mrd"]


def test_a_scan_whose_end_cannot_be_written_ends_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, say: without that, it would arrive for ever, and never make room."""
    monkeypatch.setattr(keeper, "PRUNE_INTERVAL_S", 0.0)
    kept = arrived(tmp_path)
    write_about, tries = KeptScan.write_about, []

    def write(self: KeptScan, about: About) -> None:
        tries.append(about)
        if len(tries) < 3:
            raise OSError(28, "No space left on device")
        write_about(self, about)

    monkeypatch.setattr(KeptScan, "write_about", write)
    monkeypatch.setattr(ForkServer, "fork", lambda *_: EndedProcess())
    keeps = keeper.Keeper(tmp_path, 1, 1, FORK_SERVER)
    keeps.thread.start()
    until(lambda: kept.about.state == INCOMPLETE)
    keeps.stop(5)
    assert len(tries) == 3 and tries[-1].error == keeper.LEFT_BY_SERVER


def test_the_log_has_no_whole_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who knows it gets late images."""
    damaged = kept_scan(tmp_path, "29990101T000000", 10)
    damaged.write("about.json", b"{")
    with pytest.raises(ReconError) as caught:
        damaged.change(images=1)
    keeper._log_failure(caught.value)
    assert "29990101T000000-.../about.json: this is no record" in caplog.text
    assert damaged.id in str(caught.value) and damaged.id not in caplog.text


class EndedProcess:
    """A process that ended before it could do anything."""

    def wait(self, _: float) -> bool:
        return True

    def close(self) -> None:
        pass


def test_records_that_are_damaged_are_left_out(tmp_path: Path) -> None:
    for number, name in enumerate(("20990101T000000", "20990102T000000", "20990103T000000"), 1):
        kept_scan(tmp_path, name, 10).write_about(About(number=number, chain="cg_sense", state=WHOLE))
    damaged = tmp_path / "20990103T000000-0123456789abcdef" / "about.json"
    damaged.write_bytes(b'{"number": 3, "cha')
    shown = CliRunner().invoke(app, ["send", "--list", "--kept", str(tmp_path)])
    assert shown.exit_code == 0
    warning, *rest = shown.output.splitlines()
    assert warning == f"warning: {damaged}: this is no record of a kept scan (it is damaged)"
    assert [line[0] for line in rest] == ["1", "2"]
    assert KeptScans(tmp_path, 1, 1).find("").about.number == 2
    assert KeptScans(tmp_path, 1, 1).find("1").about.number == 1


def test_a_kept_reference_that_cannot_be_read(tmp_path: Path) -> None:
    kept = arrived(tmp_path)
    assert kept.reference() is None
    (kept.folder / "reference.npz").mkdir()
    with pytest.raises(ReconError, match=r"reference\.npz: this is no kept reference scan \(Is a directory\)"):
        kept.reference()


def test_scans_that_are_too_old_go(tmp_path: Path) -> None:
    old, new = kept_scan(tmp_path, "20240101T000000", 100), kept_scan(tmp_path, "29990101T000000", 100)
    KeptScans(tmp_path, 1, 1).make_room()
    assert not old.folder.exists() and new.folder.exists()


def test_a_scan_above_the_limit_goes_on_and_is_not_kept(raw: Path, tmp_path: Path) -> None:
    with serving(keep_raw=tmp_path / "kept", keep_raw_gib=0.0) as server:
        result = send(raw, "cg_sense", address(server), timeout=30)
        assert result.images == SCAN.slices
        said = "the raw data of this scan are not kept: with it the folder would be above its limit"
        assert any(said in line for line in result.texts)
        assert KeptScans(tmp_path / "kept", 1, 1).scans() == []


@pytest.mark.slow
def test_a_folder_that_is_gone_ends_no_scan(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with serving(keep_raw=folder) as server:
        folder.rename(tmp_path / "elsewhere")
        folder.write_text("")
        result = send(raw, "cg_sense", address(server), timeout=30)
        assert result.images == SCAN.slices
        assert any("the raw data of this scan are not kept: Not a directory" in one for one in result.texts)
