"""Scan processes that end, hang or cannot be started are replaced."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from gadgets.stream import ReconError
from pipelines.server.fork_server import FORK, ForkServer
from pipelines.server.listener import Server
from pipelines.server.settings import ServeSettings
from tests.pipelines.server.serving import (
    CLOSE,
    FORK_SERVER,
    LIMITS,
    answer,
    connected,
    error_of,
    fire_error_of,
    serving,
    stream,
    until,
    works,
)


@pytest.mark.slow
def test_a_scan_that_computes_too_long_is_ended(raw: Path, long_scan: bytes) -> None:
    with serving(limits=replace(LIMITS, scan_s=2.0)) as server, connected(server) as sock:
        (process,) = server.queue.processes()
        sock.sendall(long_scan + CLOSE)
        assert fire_error_of(answer(sock)) == "it took longer than 2 s"
        works(server, raw)
        assert not psutil.pid_exists(process) and server.queue.totals["replaced"] == 1


@pytest.mark.slow
def test_a_process_that_is_killed_is_replaced(raw: Path, long_scan: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        (process,) = server.queue.processes()
        os.kill(process, signal.SIGKILL)  # while it has nothing to do
        until(lambda: server.queue.processes() not in ([], [process]), 60)
        assert server.queue.totals == {"scans": 0, "failed": 0, "refused": 0, "images": 0, "replaced": 1}
        works(server, raw)
        with connected(server) as sock:
            sock.sendall(long_scan)
            until(lambda: server.queue.scans[-1].chain == "svd_wkgm")
            os.kill(*server.queue.processes(), signal.SIGKILL)
            assert fire_error_of(answer(sock)) == "its process ended (SIGKILL); send the scan again"
        works(server, raw)
        assert server.queue.totals["failed"] == 1 and server.queue.totals["replaced"] == 2
    assert "a scan process ended (SIGKILL); another one is started" in caplog.text


def test_methods_that_cannot_be_made_ready() -> None:
    server = Server(ServeSettings(port=0, warm=("magic",)), FORK_SERVER)
    with pytest.raises(ReconError, match="property 'method' is 'magic'"):
        server.run()


def test_processes_that_cannot_be_made_are_tried_again(
    raw: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipelines.server.worker_slot.RESTART_DELAYS_S", (0.0, 0.1))

    def fail(*_: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with serving() as server:
        with monkeypatch.context() as patched:
            patched.setattr(ForkServer, "fork", fail)
            os.kill(*server.queue.processes(), signal.SIGKILL)
            until(lambda: caplog.text.count("it is tried again") >= 3)
        assert "a scan process cannot be started (Resource temporarily unavailable)" in caplog.text
        works(server, raw)
    with pytest.raises(ReconError, match="a scan process cannot be started"):
        monkeypatch.setattr(ForkServer, "fork", fail)
        Server(ServeSettings(port=0), FORK_SERVER).run()


def test_temporary_files_end_with_their_process(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with serving() as server:
        (folder,) = tmp_path.iterdir()
        (folder / "left behind").touch()
        os.kill(*server.queue.processes(), signal.SIGKILL)
        until(lambda: list(tmp_path.iterdir()) not in ([], [folder]))
        assert not folder.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_process_whose_exit_code_is_unknown_ends_its_scan(
    raw: Path, unfinished: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ForkServer._request

    def fail(fork_server: ForkServer, sock: socket.socket, number: int, *about: Any, **more: Any) -> int:
        if number != FORK:
            raise MemoryError
        return ask(fork_server, sock, number, *about, **more)

    monkeypatch.setattr(ForkServer, "_request", fail)
    with serving() as server, connected(server) as sock:
        sock.sendall(unfinished)
        until(lambda: server.queue.running() == 1 and server.queue.scans[-1].chain != "")
        os.kill(*server.queue.processes(), signal.SIGKILL)
        assert error_of(answer(sock)) == "its process ended; send the scan again"
        works(server, raw)


def test_a_process_that_cannot_take_a_scan_ends(raw: Path) -> None:
    with serving() as server, connected(server) as sock:
        (process,) = server.queue.processes()
        used = set(map(int, os.listdir(f"/proc/{process}/fd")))
        most = resource.prlimit(process, resource.RLIMIT_NOFILE)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (min(set(range(100)) - used) + 1, most[1]))
        sock.sendall(stream(raw))
        assert error_of(answer(sock)).startswith("its process ended")
        works(server, raw)
