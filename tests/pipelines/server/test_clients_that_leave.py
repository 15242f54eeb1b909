"""Clients that leave or die: nothing is left behind, and files are written where the scan is complete."""

from __future__ import annotations

import fcntl
import json
import random
import shutil
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from gadgets.stream.stages import StageThread
from pipelines.send import send
from pipelines.server import scan_run
from pipelines.server.intake import ScanReader
from pipelines.server.scan import ScanResult
from pipelines.server.scan_run import ScanRun
from pipelines.server.settings import ServeSettings
from tests.pipelines.server.serving import (
    LIMITS,
    LONG,
    SCAN,
    SECONDS,
    address,
    connected,
    reset,
    serving,
    stream,
    until,
    works,
)


@pytest.mark.slow
def test_clients_that_die_anywhere_leave_the_server_whole(raw: Path) -> None:
    content = stream(raw)
    generator = random.Random(0)
    with serving(scans=2, waiting=60) as server:
        works(server, raw)
        process = psutil.Process()
        before = process.num_fds()
        for end in sorted(generator.randrange(1, len(content)) for _ in range(50)):
            sock = connected(server)
            sock.sendall(content[:end])
            if end % 2:
                reset(sock)
            sock.close()
        works(server, raw)
        until(lambda: not server.queue.running() and process.num_fds() <= before)
        assert process.num_fds() <= before and server.queue.running() == 0


@pytest.mark.slow
def test_many_scans_leave_nothing_behind(raw: Path, tmp_path: Path) -> None:
    with serving(scans=2, waiting=8) as server:
        threads = threading.active_count()
        works(server, raw)
        until(lambda: threading.active_count() <= threads)
        process = psutil.Process()
        before = process.num_fds(), threads
        results: list[int] = []

        def client(number: int) -> None:
            # h5py crashes where threads of one process read and close a file that each of them opened.
            own = shutil.copy(raw, tmp_path / f"{number}.h5")
            for _ in range(4):
                results.append(send(own, "cg_sense", address(server), timeout=60).images)

        clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        assert results == 16 * [SCAN.slices]
        until(lambda: process.num_fds() <= before[0] and threading.active_count() <= before[1])
        assert process.num_fds() <= before[0] and threading.active_count() <= before[1]
        assert server.queue.totals == {
            "scans": 17,
            "failed": 0,
            "refused": 0,
            "images": 17 * SCAN.slices,
            "replaced": 0,
        }


def computed_s(process: int) -> float:
    """Processor time that a process has used."""
    return psutil.Process(process).cpu_times().user


@pytest.mark.slow
def test_computations_end_when_their_clients_leave(raw: Path, long_scan: bytes) -> None:
    with serving(scans=2, waiting=8) as server:
        first = set(server.queue.processes())
        before = {process: computed_s(process) for process in first}
        with connected(server) as one, connected(server) as other:
            for sock in (one, other):
                sock.sendall(long_scan)
            until(lambda: all(computed_s(process) > before[process] + 1.0 for process in first), 60)
        until(lambda: server.queue.totals["replaced"] == 2 and len(server.queue.processes()) == 2, 30)
        assert server.queue.totals["replaced"] == 2 and server.queue.running() == 0
        assert not first & set(server.queue.processes()) and not any(map(psutil.pid_exists, first))
        assert sum(psutil.Process(one).cpu_percent(0.5) for one in server.queue.processes()) < 20
        works(server, raw)


@pytest.mark.slow
def test_a_scan_that_is_complete_goes_to_files_without_its_client(raw: Path, tmp_path: Path) -> None:
    content = stream(raw, parameters=json.dumps(SECONDS).encode())
    with serving(dicom=tmp_path / "dicom") as server:
        sock = connected(server)
        sock.sendall(content)
        until(lambda: bool(server.queue.scans) and server.queue.scans[-1].complete, 30)
        reset(sock)
        until(lambda: server.queue.totals["scans"] == 1, 30)
        assert server.queue.scans[-1].error == f"the client is gone; {SCAN.slices} images went to files only"
        works(server, raw)
        assert server.queue.totals["replaced"] == 0
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) == 2 * SCAN.slices


@pytest.mark.slow
def test_a_scan_without_files_ends_with_its_client(raw: Path) -> None:
    with serving() as server:
        sock = connected(server)
        sock.sendall(stream(raw, parameters=json.dumps(LONG).encode()))
        until(lambda: server.queue.running() == 1 and server.queue.scans[-1].chain != "")
        time.sleep(0.5)
        reset(sock)
        until(lambda: server.queue.totals["scans"] == 1, 20)
        assert server.queue.scans[-1].error == "the client is gone"
        works(server, raw)


def unsent(sock: socket.socket) -> int:
    """Bytes that the other side's system has not taken."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)


def client_that_resets(raw: Path, before_reset: Callable[[ScanRun], None], settings: ServeSettings) -> ScanResult:
    """How a scan ends whose client sends all of it, and resets the connection after that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)  # there is room for all of it
        client = socket.create_connection(listener.getsockname())
        conn, _ = listener.accept()
    with conn:
        sender = threading.Thread(target=client.sendall, args=(stream(raw),))
        sender.start()
        reader = ScanReader(conn, LIMITS)
        reader.first_message()
        request = reader.request()
        assert request is not None
        run = ScanRun(conn, request, None, settings, lambda *_: None)

        def leave() -> None:
            sender.join()
            until(lambda: not unsent(client))
            before_reset(run)
            reset(client)

        leaving = threading.Thread(target=leave)
        leaving.start()
        try:
            return run.run()
        finally:
            leaving.join()


@pytest.mark.slow
def test_a_scan_that_ends_while_its_threads_start(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading._start_new_thread  # type: ignore[attr-defined]
    starting = threading.Event()

    def slow(function: Any, arguments: Any) -> Any:
        if isinstance(function.__self__, StageThread):
            starting.set()
            time.sleep(0.1)
        return start(function, arguments)

    monkeypatch.setattr(threading, "_start_new_thread", slow)
    ended = client_that_resets(
        raw, lambda run: until(lambda: starting.is_set() and run._reader.complete), ServeSettings(limits=LIMITS)
    )
    assert ended == ScanResult("the client is gone", "", reusable=True)


@pytest.mark.slow
def test_a_client_that_leaves_before_its_chain_is_known_has_its_files(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested_chain = scan_run.requested_chain

    def slow(*about: Any) -> Any:
        time.sleep(0.5)
        return requested_chain(*about)

    monkeypatch.setattr(scan_run, "requested_chain", slow)
    ended = client_that_resets(raw, lambda _: None, ServeSettings(limits=LIMITS, dicom=tmp_path))
    assert ended.error == f"the client is gone; {SCAN.slices} images went to files only"
    assert len(list(tmp_path.rglob("*.dcm"))) == SCAN.slices
