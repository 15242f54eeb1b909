"""The end of a server: scans that run are finished, others refused."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest

from gadgets.stream import ReconError
from pipelines.send import send
from pipelines.server.listener import Server
from pipelines.server.settings import ServeSettings
from tests.gadgets.dicom.pacs_servers import Scp
from tests.pipelines.server.serving import (
    CLOSE,
    FORK_SERVER,
    address,
    answer,
    connected,
    fire_error_of,
    serving,
    stream,
    until,
)


def test_stopping_finishes_what_runs_and_refuses_the_rest(raw: Path) -> None:
    content = stream(raw)
    with serving() as server, connected(server) as running:
        running.sendall(content[:20000])
        until(lambda: server.queue.running() == 1)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        while not server.stopping:
            time.sleep(0.01)
        time.sleep(0.1)
        with pytest.raises(ReconError, match="no server answers there"):
            send(raw, "cg_sense", address(server), timeout=5)
        running.sendall(content[20000:])
        assert answer(running).endswith(CLOSE)
        stopper.join(10)
        assert not stopper.is_alive()


def test_ports_that_are_taken() -> None:
    with serving() as server, pytest.raises(ReconError, match=r"cannot listen on 127\.0\.0\.1"):
        Server(ServeSettings(port=server.port), FORK_SERVER)


def test_a_server_that_stops_before_it_serves() -> None:
    server = Server(ServeSettings(port=0), FORK_SERVER)
    server.stop()
    server.run()
    assert not server.queue.processes()


def test_scans_that_run_beyond_the_grace_time_end(raw: Path, long_scan: bytes) -> None:
    with serving(grace_s=0.5) as server, connected(server) as sock:
        (process,) = server.queue.processes()
        sock.sendall(long_scan)
        until(lambda: server.queue.running() == 1)
        server.stop()
        assert fire_error_of(answer(sock)) == "the server stopped; send the scan again"
        assert not psutil.pid_exists(process)


def test_files_of_scans_that_end_while_the_server_stops_are_delivered(raw: Path, tmp_path: Path) -> None:
    content = stream(raw)
    with Scp() as pacs, serving(pacs=f"dicom://PACS@127.0.0.1:{pacs.port}", spool=tmp_path / "spool") as server:
        with connected(server) as sock:
            sock.sendall(content[: len(content) // 2])
            until(lambda: server.queue.running() == 1)
            stopper = threading.Thread(target=server.stop)
            stopper.start()
            until(lambda: server.stopping)
            sock.sendall(content[len(content) // 2 :])
            assert answer(sock).endswith(CLOSE)
        stopper.join(20)
        assert len(pacs.received) >= 1
