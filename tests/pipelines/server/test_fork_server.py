"""The fork server ends, hangs or fails: scans go on, and it is started again."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.server import fork_server as fork_server_module
from pipelines.server import listener, worker_slot
from pipelines.server.fork_server import FORK, MESSAGE, ForkServer
from pipelines.server.listener import Server
from pipelines.server.settings import ServeSettings
from tests.pipelines.server.serving import CLOSE, exchanged, serving, stream, until

STUB = "tests.pipelines.server.stub_scan_process"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    """A fork server that starts within a second, as its forks compute nothing; they are replaced without delay."""
    monkeypatch.setattr(worker_slot, "RESTART_DELAYS_S", (0.0,))
    with ForkServer(STUB) as one:
        yield one


@pytest.mark.slow
def test_without_the_fork_server_scans_go_on_and_it_comes_back(own: ForkServer, raw: Path) -> None:
    with serving(own) as server:
        os.kill(process_of(own), signal.SIGKILL)
        assert exchanged(server, stream(raw)) == CLOSE
        (process,) = server.queue.processes()
        os.kill(process, signal.SIGKILL)
        until(lambda: server.queue.processes() not in ([], [process]), 60)
        assert exchanged(server, stream(raw)) == CLOSE
        assert server.queue.totals["scans"] == 2 and server.queue.totals["replaced"] == 1


@pytest.mark.slow
def test_a_fork_server_that_hangs_does_not_delay_the_end(own: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "THREADS_TIMEOUT_S", 1.0)
    with serving(own) as server:
        (process,) = server.queue.processes()
        os.kill(process_of(own), signal.SIGSTOP)
        os.kill(process, signal.SIGKILL)
        until(lambda: not server.queue.processes())
    assert not own.pid or not psutil.pid_exists(own.pid)


@pytest.mark.slow
def test_no_fork_server_is_started_for_an_exit_code(own: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes are killed after their fork server: one is started for the new processes, none before."""
    started: list[int] = []
    popen = subprocess.Popen

    def counted(*about: Any, **more: Any) -> Any:
        process = popen(*about, **more)
        started.append(process.pid)
        return process

    with serving(own, scans=2) as server:
        first = server.queue.processes()
        os.kill(process_of(own), signal.SIGKILL)
        monkeypatch.setattr(fork_server_module.subprocess, "Popen", counted)
        for process in first:
            os.kill(process, signal.SIGKILL)
        until(lambda: len(server.queue.processes()) == 2 and not set(first) & set(server.queue.processes()), 60)
        assert len(started) == 1 and server.queue.totals["replaced"] == 2


def process_of(fork_server: ForkServer) -> int:
    assert fork_server.pid is not None
    return fork_server.pid


def test_a_killed_fork_server_is_not_started_by_waiting_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stops while its fork server starts, which hangs."""
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 300\n")
    hangs.chmod(0o755)
    started: list[list[str]] = []
    popen = subprocess.Popen

    def counted(command: list[str], **more: Any) -> Any:
        started.append(command)
        return popen([str(hangs)], **more)

    monkeypatch.setattr(listener, "THREADS_TIMEOUT_S", 0.5)
    monkeypatch.setattr(listener, "EXIT_TIMEOUT_S", 0.5)
    monkeypatch.setattr(worker_slot, "EXIT_TIMEOUT_S", 0.5)
    monkeypatch.setattr(fork_server_module.subprocess, "Popen", counted)
    with ForkServer() as hanging:
        hanging.start()
        server = Server(ServeSettings(port=0, scans=4), hanging)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        time.sleep(0.5)  # all slots wait
        begin = time.monotonic()
        server.stop()
    assert time.monotonic() - begin < 10 and len(started) == 1
    thread.join(5)
    assert not thread.is_alive()


FAILING_FORKS = """
import errno, os, sys, types
sys.modules["pipelines.server.scan_process"] = types.SimpleNamespace(work=None)
from pipelines.server import fork_server
def fork():
    raise OSError(errno.EAGAIN, "")
os.fork = fork
fork_server.main(int(sys.argv[1]))
"""


def test_forks_that_fail_leave_no_descriptor() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", FAILING_FORKS, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        ours.settimeout(30)
        used = []
        for _ in range(3):
            socket.send_fds(ours, [MESSAGE.pack(FORK)], [0])
            assert MESSAGE.unpack(ours.recv(100)) == (-errno.EAGAIN,)
            used.append(len(os.listdir(f"/proc/{process.pid}/fd")))
        ours.close()
        assert process.wait(10) == 0
    assert used[0] == used[-1]
