"""Images that are not ready in time come later, whatever ends meanwhile."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gadgets.images import meta_of, meta_values
from gadgets.noise.scan import context_of
from gadgets.stream import ReconError
from pipelines.cli import app
from pipelines.kept import late
from pipelines.kept.late import DONE, FAILED, RUNS, LateState, late_state, owes_images, write_late_state
from pipelines.kept.scan import ARRIVES, WHOLE, About, KeptScan
from pipelines.kept.store import OWES_FILE, KeptScans
from pipelines.raw import RawScan
from pipelines.replay import read_images
from pipelines.send import retrieve, send
from pipelines.server.listener import Server
from pipelines.server.preliminary import SERIES, fast_chain
from pipelines.server.request import Request
from pipelines.server.requested_chain import chain_as_asked
from pipelines.server.retrieval import wanted_late_images
from pipelines.server.scan_queue import ScanQueue
from pipelines.server.settings import ServeSettings
from tests.pipelines.server.serving import (
    CLOSE,
    LIMITS,
    LONG,
    SCAN,
    address,
    answer,
    connected,
    ended_well,
    exchanged,
    named,
    serving,
    start_scan,
    stream,
    until,
)
from tests.pipelines.server.test_kept_raw import assert_same_images, images

SLOW = {"config": "svd_wkgm", "generative_recon.method": "sake", "generative_recon.iterations": "60"}
AT_ONCE = 0.01  # s: no image is ready by then
NO_LIMIT = dataclasses.replace(LIMITS, idle_s=60.0, scan_s=600.0)


def late_scan(server: Server, raw: Path, **changes: str) -> KeptScan:
    """A scan whose client had its answer before an image was ready."""
    result = send(raw, "svd_wkgm", address(server), timeout=60, parameters=SLOW | changes)
    assert result.images == 0
    (line,) = [line for line in result.texts if "retrieve_" in line]
    assert "0 of 3 images are ready; the reconstruction goes on. Fetch the others with configuration" in line
    assert server.settings.keep_raw is not None
    return KeptScan(server.settings.keep_raw / line.rpartition("retrieve_")[2].split(";")[0])


def state_of(kept: KeptScan) -> LateState:
    state = late_state(kept)
    assert state is not None
    return state


@pytest.fixture(scope="module")
def expected(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The images of a server whose client waits."""
    folder = tmp_path_factory.mktemp("expected")
    with serving(limits=NO_LIMIT) as server:
        send(raw, "svd_wkgm", address(server), timeout=60, parameters=SLOW, out=folder / "out")
    return images(folder / "out")


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(keep_raw=tmp_path_factory.mktemp("late"), answer_within_s=AT_ONCE, limits=NO_LIMIT) as server:
        yield server


@pytest.mark.slow
def test_late_images_are_those_that_would_have_come(
    hasty: Server, raw: Path, expected: list[Any], tmp_path: Path
) -> None:
    kept = late_scan(hasty, raw)
    works_in_foreground(hasty, raw)  # a new scan does not wait for it
    retrieve(kept.id, address(hasty), wait_s=60, out=tmp_path / "late")
    assert_same_images(images(tmp_path / "late"), expected)
    until(lambda: kept.about.state == WHOLE and not hasty.queue.late_slots, 20)
    assert hasty.queue.scans[0].state == "done"
    assert len(hasty.queue.slots) == 1
    retrieve(kept.id, address(hasty), out=tmp_path / "again")  # as often as one likes
    assert_same_images(images(tmp_path / "again"), expected)


def works_in_foreground(server: Server, raw: Path) -> None:
    result = send(raw, "cg_sense", address(server), timeout=60, parameters={"answer_within": "0", "config": "cg_sense"})
    assert result.images == SCAN.slices
    assert server.queue.late_slots


@pytest.mark.slow
def test_the_next_scan_of_the_study_brings_them(hasty: Server, raw: Path, expected: list[Any], tmp_path: Path) -> None:
    kept = late_scan(hasty, raw)
    parameters = {"answer_within": "0", "config": "cg_sense", "late_images": "all"}
    result = send(raw, "cg_sense", address(hasty), timeout=60, parameters=parameters)
    assert result.images == SCAN.slices
    assert any(f"scan {kept.id} is not ready: " in line for line in result.texts)
    until(lambda: state_of(kept).state == DONE, 60)
    result = send(raw, "cg_sense", address(hasty), timeout=60, parameters=parameters, out=tmp_path / "next")
    assert result.images == 2 * SCAN.slices
    assert_same_images(images(tmp_path / "next")[SCAN.slices :], expected)
    result = send(raw, "cg_sense", address(hasty), timeout=60, parameters=parameters)
    assert result.images == SCAN.slices
    assert any("no late images of this patient and study" in line for line in result.texts)


@pytest.mark.slow
def test_the_configuration_with_header_and_data_and_the_command(hasty: Server, raw: Path, tmp_path: Path) -> None:
    kept = late_scan(hasty, raw)
    retrieve(kept.id, address(hasty), wait_s=60)
    with connected(hasty) as sock:
        sock.sendall(stream(raw, named(f"retrieve_{kept.id}")))
        assert ended_well(answer(sock))
    result = send(raw, f"retrieve_{kept.id}", address(hasty), timeout=60)
    assert result.images == SCAN.slices
    command = ["send", "--retrieve", kept.id, "--port", str(hasty.port), "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0 and f"{SCAN.slices} images" in shown.output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["20240101T000000-0123456789abcdef", "../../etc", "x"])
def test_an_id_that_nobody_was_given(hasty: Server, name: str) -> None:
    with pytest.raises(ReconError, match="there are no late images of a scan with this id"):
        retrieve(name, address(hasty))
    with connected(hasty) as sock:
        sock.sendall(named("retrieve") + CLOSE)
        assert b"no late images of this patient and study" in answer(sock)


def test_a_client_that_cancels_ends_its_scan(hasty: Server, raw: Path) -> None:
    unfinished = stream(raw, parameters=json.dumps(LONG).encode())[: -len(CLOSE)]
    with connected(hasty) as sock:
        start_scan(hasty, sock, unfinished)
    until(lambda: not hasty.queue.running())
    assert hasty.queue.scans[-1].state == "failed" and not hasty.queue.late_slots


@pytest.mark.slow
def test_more_late_scans_than_places_begin_anew(hasty: Server, raw: Path, expected: list[Any], tmp_path: Path) -> None:
    kept = [late_scan(hasty, raw) for _ in range(2)]
    assert len(hasty.queue.late_slots) <= 1
    for number, one in enumerate(kept):
        retrieve(one.id, address(hasty), wait_s=100, out=tmp_path / str(number))
        assert_same_images(images(tmp_path / str(number)), expected)


@pytest.mark.slow
def test_they_survive_a_restart(raw: Path, expected: list[Any], tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    options: dict[str, Any] = {"keep_raw": folder, "answer_within_s": AT_ONCE, "limits": NO_LIMIT, "grace_s": 0.0}
    with serving(**options) as server:
        kept = late_scan(server, raw)
    assert state_of(kept).state == RUNS and kept.about.state == ARRIVES
    write_late_state(kept, dataclasses.replace(state_of(kept), sent=1))  # as if the client had had the first one
    with serving(**options) as server:
        retrieve(kept.id, address(server), wait_s=100, out=tmp_path / "late")
        assert_same_images(images(tmp_path / "late"), expected[1:])
        until(lambda: kept.about.state == WHOLE, 20)


def test_a_server_that_stops_before_it_hears_that_they_are_late(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScanQueue, "scan_is_late", lambda *_: None)
    options: dict[str, Any] = {"keep_raw": tmp_path / "kept", "answer_within_s": AT_ONCE, "limits": NO_LIMIT}
    with serving(**options, grace_s=0.0) as server:
        kept = late_scan(server, raw)
    assert state_of(kept).state == RUNS and owes_images(kept)


def test_one_that_never_ends_is_given_up(raw: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"keep_raw": tmp_path / "kept", "answer_within_s": AT_ONCE, "limits": NO_LIMIT}
    with serving(**options, grace_s=0.0) as server:
        kept = late_scan(server, raw)
    write_late_state(kept, dataclasses.replace(state_of(kept), attempts=late.MOST_ATTEMPTS))
    with serving(**options) as server:
        until(lambda: state_of(kept).state == FAILED, 30)
        with pytest.raises(ReconError, match="was begun 3 times and never ended"):
            retrieve(kept.id, address(server))


def test_a_late_scan_whose_process_is_killed(hasty: Server, raw: Path) -> None:
    kept = late_scan(hasty, raw, **{"generative_recon.iterations": "5000"})
    until(lambda: bool(hasty.queue.late_slots), 20)
    hasty.queue.late_slots[0].kill("it took more than 1 GiB of memory")
    until(lambda: state_of(kept).state == FAILED, 20)
    with pytest.raises(ReconError, match="has no images: it took more than 1 GiB"):
        retrieve(kept.id, address(hasty))
    until(lambda: kept.about.state == WHOLE, 20)


@pytest.mark.slow
def test_preliminary_images(raw: Path, tmp_path: Path) -> None:
    with serving(keep_raw=tmp_path / "kept", answer_within_s=12.0, limits=NO_LIMIT) as server:
        parameters = SLOW | {"generative_recon.iterations": "5000"}
        result = send(raw, "x", address(server), timeout=60, parameters=parameters, out=tmp_path / "out")
        assert result.images == SCAN.slices
        assert any(f"{SCAN.slices} PRELIMINARY images by cg_sense are sent instead" in line for line in result.texts)
    for image in read_images(tmp_path / "out", SERIES + 1):
        meta = meta_of(image.attribute_string)
        assert "PRELIMINARY" in meta_values(meta, "GenreconWarning")[0]
        assert meta_values(meta, "Keep_image_geometry") == ["1"]


def finished(folder: Path, content: bytes, **state: Any) -> KeptScan:
    """A scan whose late image is ready."""
    kept = KeptScan(folder / "29990101T000000-0123456789abcdef")
    kept.folder.mkdir()
    kept.write_about(About(state=WHOLE))
    write_late_state(kept, LateState(state=DONE, images=1, **state))
    kept.write(late.IMAGES_FILE, content)
    kept.write(OWES_FILE, b"")
    return kept


@pytest.mark.slow
def test_the_next_scan_whose_client_leaves_takes_none(raw: Path, tmp_path: Path) -> None:
    with RawScan(raw) as scan:
        context = context_of(scan.header)
    content = bytes(range(256)) * 400
    kept = finished(tmp_path, content, peer="127.0.0.1", context=context)
    whole = stream(raw, parameters=json.dumps({"parameters": {"config": "cg_sense", "late_images": "all"}}).encode())
    with serving(keep_raw=tmp_path) as server:
        with connected(server) as sock:
            sock.sendall(whole)
            assert sock.recv(100)
            until(lambda: server.queue.scans[-1].images == SCAN.slices)
            time.sleep(0.2)  # the late image is on its way
        until(lambda: not server.queue.running())
        assert owes_images(kept)
        found = exchanged(server, whole)
        assert content in found and ended_well(found)
        until(lambda: not owes_images(kept))


@pytest.mark.parametrize("size", [10, 100_000, 20_000_000])
def test_images_that_a_client_did_not_take_stay_due(tmp_path: Path, size: int) -> None:
    """A connection that breaks before the CLOSE is read, whatever of it is in buffers, loses no image."""
    content = bytes(size)
    kept = finished(tmp_path, content)
    with serving(keep_raw=tmp_path) as server:
        with connected(server) as sock:
            sock.sendall(named(f"retrieve_{kept.id}") + CLOSE)
            assert sock.recv(5)
            time.sleep(0.2)  # the rest comes
        until(lambda: not server._connections)
        assert owes_images(kept)
        with connected(server) as sock:
            sock.sendall(named(f"retrieve_{kept.id}") + CLOSE)
            assert answer(sock) == content + CLOSE
        until(lambda: not owes_images(kept))


# --- parts ----------------------------------------------------------------------------------------------------------


def test_the_answer_needs_the_raw_data(raw: Path) -> None:
    shown = CliRunner().invoke(app, ["serve", "--answer-within", "5"])
    assert shown.exit_code == 1 and "--keep-raw" in str(shown.exception)
    with serving() as server:
        result = send(raw, "x", address(server), timeout=60, parameters={"config": "cg_sense", "answer_within": "0.01"})
        assert result.images == SCAN.slices
        with pytest.raises(ReconError, match="this server has no late images") as caught:
            retrieve("x", address(server))
        assert str(caught.value).count(address(server)) == 1


def test_only_scans_of_the_study_and_host() -> None:
    own = {"patient": "a", "study": "b", "device": "c"}
    state = LateState(peer="host", context=own)
    assert state.of_study(own, "host")
    assert state.of_study({"patient": "a", "study": "b"}, "host")
    assert not state.of_study(own, "other")
    for other in ({}, {"patient": "a"}, {"study": "b"}, own | {"device": "d"}, own | {"patient": "d"}):
        assert not state.of_study(other, "host")
    assert not LateState(peer="host").of_study({}, "host")


def test_progress_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 100.0)
    assert LateState(sent=1, images=1, expected=4, began=60.0).progress() == "2 of 4 images, about 40 s to go"
    assert LateState(expected=4).progress() == "0 of 4 images"
    assert LateState(sent=2).progress() == "2 images"


def test_what_a_client_wants() -> None:
    assert wanted_late_images({}) is None
    assert wanted_late_images({"late_images": "no"}) is None
    assert wanted_late_images({"lateimages": True}) == ""
    assert wanted_late_images({"late_images": "20240101T000000-0123456789abcdef"}).startswith("2024")  # type: ignore[union-attr]


def test_the_fast_chain() -> None:
    def chain(name: str, **parameters: str) -> Any:
        texts = (json.dumps({"parameters": parameters}).encode(),)
        return chain_as_asked(Request(name, None, b"", texts, 0), ServeSettings())

    assert fast_chain(chain("cg_sense")) is None
    slow = {"samples": "4", "steps": "50", "output": "snr", "replicas": "8"}
    for name, own in (("svd_wkgm", slow), ("l1_wavelet", {"regularisation": "0.1", "iterations": "500"})):
        fast = fast_chain(chain(name, **{f"generative_recon.{key}": text for key, text in own.items()}))
        assert fast is not None
        (node,) = [node for node in fast.nodes if node.module]
        assert node.properties["generative_recon.method"] == "cg_sense"
        assert not [key for key in own if f"generative_recon.{key}" in node.properties]


def test_scans_that_owe_images_stay_until_they_are_too_old(tmp_path: Path) -> None:
    for name, stays in (("29990101T000000", True), ("20240101T000000", False)):
        kept = KeptScan(tmp_path / f"{name}-0123456789abcdef")
        kept.folder.mkdir()
        kept.write("about.json", json.dumps({"state": WHOLE}).encode())
        write_late_state(kept, LateState(state=DONE))
        (kept.folder / "owes_images").touch()
        KeptScans(tmp_path, 1e-9, 1).make_room()
        assert kept.folder.exists() == stays


@pytest.mark.parametrize("empty", ["", "  "])
def test_no_id_is_said(empty: str) -> None:
    shown = CliRunner().invoke(app, ["send", "--retrieve", empty])
    assert shown.exit_code == 1 and "--retrieve: the id is empty" in str(shown.exception)
