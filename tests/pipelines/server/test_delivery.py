"""DICOM files of scans reach the spool and, from there, the PACS."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from gadgetron.external import constants

from pipelines.send import send
from pipelines.server.overview import overview
from tests.gadgets.dicom.pacs_servers import Scp, free_port
from tests.pipelines.server.serving import (
    CLOSE,
    SCAN,
    address,
    answer,
    connected,
    exchanged,
    message,
    serving,
    stream,
    until,
    works,
)


def test_a_scan_whose_files_reach_no_spool_fails_after_its_images(raw: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with serving(pacs="dicom://PACS@127.0.0.1:1", spool=spool) as server:
        spool.write_text("no folder any more")
        found = exchanged(server, stream(raw))
        assert found[:2] == message(constants.GADGET_MESSAGE_ISMRMRD_IMAGE)
        assert (
            found.count(b"GenreconMethod") == SCAN.slices and b"ERROR: DicomOutput: cannot write to the spool" in found
        )
        assert server.queue.totals["failed"] == 1 and server.queue.totals["images"] == SCAN.slices


def test_what_an_earlier_server_left_in_the_spool_is_delivered(raw: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = {"pacs": f"dicom://PACS@127.0.0.1:{port}", "spool": tmp_path / "spool"}
    with serving(**settings) as server:
        works(server, raw)
    waiting = list((tmp_path / "spool").glob("*/*.dcm"))
    assert len(waiting) == SCAN.slices
    for state in (tmp_path / "spool").glob("*/state.json"):
        state.unlink()  # its next attempt may be seconds away
    with Scp(port=port) as pacs, serving(**settings):  # no scan comes
        until(lambda: len(pacs.received) == SCAN.slices)
        assert len(set(pacs.received)) == len(pacs.received) == SCAN.slices
    assert not list((tmp_path / "spool").glob("*/*.dcm"))


@pytest.mark.slow
def test_the_wall_clock_jumps(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten years on, then twenty back, with a scan running and files waiting: all are delivered once, nothing hangs."""
    wall_clock, days = time.time, 0
    monkeypatch.setattr(time, "time", lambda: wall_clock() + 86400 * days)
    port, spool = free_port(), tmp_path / "spool"
    content = stream(raw)
    with serving(pacs=f"dicom://PACS@127.0.0.1:{port}", spool=spool) as server:
        with connected(server) as sock:
            sock.sendall(content[: len(content) // 2])
            until(lambda: server.queue.running() == 1)
            days = 3650
            time.sleep(0.3)
            sock.sendall(content[len(content) // 2 :])
            assert answer(sock).endswith(CLOSE)
        days = -7300
        assert send(raw, "l1_wavelet", address(server), timeout=30).images == SCAN.slices
        until(lambda: server.queue.totals["scans"] == 2)
        shown = overview(server, spool)
        assert (shown["totals"]["scans"], shown["totals"]["failed"]) == (2, 0) and 0 < shown["uptime_s"] < 3600
        with Scp(port=port) as pacs:
            until(lambda: len(pacs.received) >= 2 * SCAN.slices, 60)
            days = 3650
            time.sleep(1.5)
            assert len(pacs.received) == len(set(pacs.received)) == 2 * SCAN.slices
    assert not list(spool.glob("*/*.dcm"))
