"""The server where two things happen at once: every test holds one of them up until the other has happened."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gadgets.dicom.sender import DELIVERY
from gadgets.stream.logs import collected_warnings, log
from gadgets.stream.stages import StageThread
from pipelines.server import fork_server as nursery_module
from pipelines.server import listener as serve
from pipelines.server import scan_process as scan_worker
from pipelines.server.fork_server import Nursery
from pipelines.server.intake import Intake, ReadAhead
from pipelines.server.listener import Place, Server
from pipelines.server.scan_process import ScanRun
from pipelines.server.settings import Ended, ServeSettings
from tests.pipelines.server.serving import (
    CLOSE,
    LIMITS,
    SCAN,
    answer,
    connected,
    error_of,
    reset,
    serving,
    stream,
    until,
    works,
)


@pytest.fixture
def unfinished(raw: Path) -> bytes:
    """A scan without its CLOSE."""
    return stream(raw)[: -len(CLOSE)]


def ended_well(found: bytes) -> bool:
    return found.endswith(CLOSE) and b"ERROR" not in found


def both_end_well(server: Server, one: socket.socket, other: socket.socket, unfinished: bytes) -> None:
    """Two scans, of which the other waits until the first has ended."""
    one.sendall(unfinished)
    until(lambda: server.running() == 1)
    other.sendall(unfinished + CLOSE)
    until(lambda: server.waiting() == 1)
    one.sendall(CLOSE)
    assert ended_well(answer(one))
    assert ended_well(answer(other))


# --- places, and the scans they are for ------------------------------------------------------------------------------


def test_a_client_that_leaves_at_its_turn_takes_no_place(
    raw: Path, unfinished: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its leaving, which is noticed, and its being forgotten a place becomes free."""
    forget = ReadAhead.__exit__

    def late(ahead: ReadAhead, *about: Any) -> None:
        forget(ahead, *about)
        running.sendall(CLOSE)
        until(lambda: bool(server.totals["scans"]))

    with serving(scans=1, waiting=1) as server, connected(server) as running:
        running.sendall(unfinished)
        until(lambda: server.running() == 1)
        monkeypatch.setattr(ReadAhead, "__exit__", late)
        with connected(server) as waiting:
            waiting.sendall(unfinished)
            until(lambda: server.waiting() == 1)
        until(lambda: server.totals["refused"] == 1)
        assert ended_well(answer(running))
        until(lambda: not server.running())
        assert not server.running() and not server.waiting()
        monkeypatch.undo()
        works(server, raw)


def test_a_process_that_is_killed_at_the_end_of_a_scan_takes_no_other(
    unfinished: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_of, heard = serve.memory_of, Place._heard
    above = threading.Event()

    def late(place: Place, what: str, about: Any) -> None:
        heard(place, what, about)
        if (
            what == "image"
            and place.ticket is not None
            and place.ticket.scan.images == SCAN.slices
            and not above.is_set()
        ):
            time.sleep(0.3)  # meanwhile the scan ends
            above.set()

    def memory(process: int) -> int:
        scan = server.scans[0] if server.scans else None
        return 2**50 if above.is_set() and scan is not None and scan.state == "runs" else memory_of(process)

    with serving(waiting=1) as server, connected(server) as one, connected(server) as other:
        monkeypatch.setattr(Place, "_heard", late)
        monkeypatch.setattr(serve, "memory_of", memory)
        both_end_well(server, one, other, unfinished)
        assert above.is_set()
        assert server.totals["replaced"] == 1 and not server.totals["failed"]


def test_memory_of_the_scan_before_is_no_fault_of_the_next_one(
    unfinished: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process gives it back once it has told of the end."""
    memory_of = serve.memory_of
    looked = threading.Event()

    def memory(process: int) -> int:
        scan = server.scans[1] if len(server.scans) == 2 else None
        if scan is None or scan.state != "runs" or scan.chain:
            return memory_of(process)
        looked.set()
        return 2**50

    with serving(waiting=1) as server, connected(server) as one, connected(server) as other:
        monkeypatch.setattr(serve, "memory_of", memory)
        both_end_well(server, one, other, unfinished)
        assert looked.is_set()


@pytest.mark.parametrize("error", [OSError(errno.EDQUOT, "Disk quota exceeded"), MemoryError()], ids=["disk", "memory"])
def test_a_file_that_cannot_be_closed_ends_no_other_scan(
    error: Exception, raw: Path, unfinished: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was handed over; its scan has ended, and another one has its place, when closing it fails."""
    forget = ReadAhead.__exit__
    handed_over, failed = threading.Event(), threading.Event()

    class File(SimpleNamespace):
        def close(self) -> None:
            self.file.close()
            until(lambda: server.waiting() == 1)
            running.sendall(CLOSE)
            until(lambda: [scan.state for scan in server.scans] == ["done", "runs"])
            failed.set()
            raise error

    def late(ahead: ReadAhead, *about: Any) -> None:
        if not handed_over.is_set():  # the first scan
            handed_over.set()
            ahead.file = File(file=ahead.file or io.BytesIO())  # type: ignore[assignment]
        forget(ahead, *about)

    monkeypatch.setattr(ReadAhead, "__exit__", late)
    with serving(waiting=1) as server, connected(server) as running, connected(server) as other:
        running.sendall(unfinished)
        until(lambda: server.running() == 1)
        other.sendall(unfinished)
        assert running.recv(1) and failed.wait(20)
        other.sendall(CLOSE)
        assert ended_well(answer(other))


def test_an_end_that_nobody_can_tell_of_ends_the_scan(
    raw: Path, unfinished: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Nursery._ask

    def fail(nursery: Nursery, sock: socket.socket, number: int, *about: Any, **more: Any) -> int:
        if number != nursery_module.MAKE:
            raise MemoryError
        return ask(nursery, sock, number, *about, **more)

    monkeypatch.setattr(Nursery, "_ask", fail)
    with serving() as server, connected(server) as sock:
        sock.sendall(unfinished)
        until(lambda: server.running() == 1 and server.scans[-1].chain != "")
        os.kill(*server.processes(), signal.SIGKILL)
        assert error_of(answer(sock)) == "its process ended; send the scan again"
        works(server, raw)


def test_a_process_that_cannot_take_a_scan_ends(raw: Path) -> None:
    with serving() as server, connected(server) as sock:
        (process,) = server.processes()
        used = set(map(int, os.listdir(f"/proc/{process}/fd")))
        most = resource.prlimit(process, resource.RLIMIT_NOFILE)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (min(set(range(100)) - used) + 1, most[1]))
        sock.sendall(stream(raw))
        assert error_of(answer(sock)).startswith("its process ended")
        works(server, raw)


# --- a scan's threads ------------------------------------------------------------------------------------------------


def unsent(sock: socket.socket) -> int:
    """Bytes that the other side's system has not taken."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)


def scan_run(raw: Path, before_reset: Callable[[ScanRun], None], settings: ServeSettings) -> Ended:
    """How a scan ends whose client sends all of it, and resets the connection after that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)  # there is room for all of it
        client = socket.create_connection(listener.getsockname())
        conn, _ = listener.accept()
    with conn:
        sender = threading.Thread(target=client.sendall, args=(stream(raw),))
        sender.start()
        intake = Intake(conn, LIMITS)
        intake.first_message()
        request = intake.request()
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


def test_a_scan_that_ends_while_its_threads_start(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading._start_new_thread  # type: ignore[attr-defined]
    starting = threading.Event()

    def slow(function: Any, arguments: Any) -> Any:
        if isinstance(function.__self__, StageThread):
            starting.set()
            time.sleep(0.1)
        return start(function, arguments)

    monkeypatch.setattr(threading, "_start_new_thread", slow)
    ended = scan_run(
        raw, lambda run: until(lambda: starting.is_set() and run._intake.complete), ServeSettings(limits=LIMITS)
    )
    assert ended == Ended("the client is gone", "", goes_on=True)


def test_a_client_that_leaves_before_its_chain_is_known_has_its_files(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain_of = scan_worker.chain_of

    def slow(*about: Any) -> Any:
        time.sleep(0.5)
        return chain_of(*about)

    monkeypatch.setattr(scan_worker, "chain_of", slow)
    ended = scan_run(raw, lambda _: None, ServeSettings(limits=LIMITS, dicom=tmp_path))
    assert ended.error == f"the client is gone; {SCAN.slices} images went to files only"
    assert len(list(tmp_path.rglob("*.dcm"))) == SCAN.slices


def test_lines_of_a_delivery_are_of_no_scan() -> None:
    """It goes on beside later scans, and the client need not know about the PACS."""
    heard: list[tuple[str, Any]] = []
    link: Any = SimpleNamespace(send=heard.append)
    handler = scan_worker._ToServer(link, None)
    handler.in_scan = True
    warned: list[str] = []
    log.addHandler(handler)
    try:
        with collected_warnings(warned, leave_out=DELIVERY):
            log.warning("of the scan")
            thread = threading.Thread(target=log.warning, args=("of the PACS",), name=DELIVERY)
            thread.start()
            thread.join()
    finally:
        log.removeHandler(handler)
    assert [(about[0]["msg"], about[1]) for _, about in heard] == [("of the scan", True), ("of the PACS", False)]
    assert warned == ["of the scan"]


# --- the process that makes the others -------------------------------------------------------------------------------


def test_how_a_process_ended_is_not_asked_of_a_new_nursery(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    popen = subprocess.Popen

    def counted(*about: Any, **more: Any) -> Any:
        process = popen(*about, **more)
        started.append(process.pid)
        return process

    with Nursery() as own, serving(own, scans=2) as server:
        first = server.processes()
        assert own.pid is not None
        os.kill(own.pid, signal.SIGKILL)
        monkeypatch.setattr(nursery_module.subprocess, "Popen", counted)
        for process in first:
            os.kill(process, signal.SIGKILL)
        until(lambda: len(server.processes()) == 2 and not set(first) & set(server.processes()), 60)
        assert len(started) == 1 and server.totals["replaced"] == 2


def test_a_nursery_that_is_killed_is_not_started_by_those_who_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stops while it loads, which hangs."""
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 300\n")
    hangs.chmod(0o755)
    started: list[list[str]] = []
    popen = subprocess.Popen

    def counted(command: list[str], **more: Any) -> Any:
        started.append(command)
        return popen([str(hangs)], **more)

    monkeypatch.setattr(serve, "STOPPING_S", 0.5)
    monkeypatch.setattr(serve, "DEATH_S", 0.5)
    monkeypatch.setattr(nursery_module.subprocess, "Popen", counted)
    with Nursery() as own:
        own.start()
        server = Server(ServeSettings(port=0, scans=4), own)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        time.sleep(0.5)  # all places wait
        begin = time.monotonic()
        server.stop()
    assert time.monotonic() - begin < 10 and len(started) == 1
    thread.join(5)
    assert not thread.is_alive()


FAILING_FORKS = """
import errno, os, sys, types
sys.modules["pipelines.server.scan_process"] = types.SimpleNamespace(work=None)
from pipelines.server import fork_server as nursery
def fork():
    raise OSError(errno.EAGAIN, "")
os.fork = fork
nursery.main(int(sys.argv[1]))
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
            socket.send_fds(ours, [nursery_module.NUMBER.pack(nursery_module.MAKE)], [0])
            assert nursery_module.NUMBER.unpack(ours.recv(100)) == (-errno.EAGAIN,)
            used.append(len(os.listdir(f"/proc/{process.pid}/fd")))
        ours.close()
        assert process.wait(10) == 0
    assert used[0] == used[-1]
