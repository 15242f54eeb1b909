"""The server and all that can go wrong around it: clients, processes, memory, time, the clock."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import ismrmrd
import numpy as np
import psutil
import pytest
from gadgetron.external import constants, writers
from typer.testing import CliRunner

from benchmarks.fuzz import Recorded
from gadgets.stream import PeerGone, ReconError
from pipelines.cli import app
from pipelines.cli.console import JsonLines
from pipelines.raw import RawScan
from pipelines.replay import read_images
from pipelines.send import send
from pipelines.server.fork_server import Nursery
from pipelines.server.intake import Intake, Outlet
from pipelines.server.listener import Server
from pipelines.server.settings import ServeSettings
from pipelines.server.status import page
from pipelines.simulation import simulate, write_raw
from tests.gadgets.dicom.pacs_servers import Scp, free_port
from tests.paths import ROOT
from tests.pipelines.server.serving import (
    CLOSE,
    LIMITS,
    NURSERY,
    SCAN,
    address,
    answer,
    connected,
    error_of,
    exchanged,
    fetched,
    fire_error_of,
    message,
    named,
    reset,
    serving,
    stream,
    text,
    until,
    works,
    write_scan,
)

# --- trouble ---------------------------------------------------------------------------------------------------------


def test_half_open_connections_end(raw: Path) -> None:
    with serving(limits=replace(LIMITS, idle_s=0.3)) as server:
        for begun in (b"", b"\x01", named("cg_sense"), stream(raw)[:5000]):
            with connected(server) as sock:
                sock.sendall(begun)
                found = answer(sock)
                assert not found or "nothing came for 0.3 s" in error_of(found)
        works(server, raw)


@pytest.mark.parametrize("begun", [message(1), named("cg_sense")], ids=["two bytes", "a chain"])
def test_a_client_without_a_header_holds_no_place(begun: bytes, raw: Path) -> None:
    with serving(scans=1, waiting=0) as server, connected(server) as sock:
        sock.sendall(begun)
        works(server, raw)


def test_bytes_now_and_then_do_not_prolong_the_handshake() -> None:
    with serving(limits=replace(LIMITS, handshake_s=0.5)) as server, connected(server) as sock:
        sock.sendall(message(1))
        with contextlib.suppress(OSError):
            for _ in range(20):
                sock.sendall(b"c")
                time.sleep(0.1)
        assert "chain and header did not come within 0.5 s" in error_of(answer(sock))


def test_scans_that_take_too_long_end(raw: Path) -> None:
    with serving(limits=replace(LIMITS, scan_s=1.0)) as server, connected(server) as sock:
        sock.sendall(stream(raw)[:3000])
        sock.settimeout(10)
        stop = time.monotonic() + 5
        with contextlib.suppress(OSError):
            while time.monotonic() < stop:  # a byte now and then keeps it from being idle
                sock.sendall(b"\0")
                time.sleep(0.2)
        assert time.monotonic() < stop


def test_clients_that_die_anywhere_leave_the_server_whole(raw: Path) -> None:
    content = stream(raw)
    generator = random.Random(0)
    with serving(scans=2, waiting=60) as server:
        works(server, raw)
        process = psutil.Process()
        before = process.num_fds()
        for place in sorted(generator.randrange(1, len(content)) for _ in range(50)):
            sock = connected(server)
            sock.sendall(content[:place])
            if place % 2:
                reset(sock)
            sock.close()
        works(server, raw)
        until(lambda: not server.running() and process.num_fds() <= before)
        assert process.num_fds() <= before and server.running() == 0


def test_many_scans_leave_nothing_behind(raw: Path) -> None:
    with serving(scans=2, waiting=8) as server:
        threads = threading.active_count()
        works(server, raw)
        until(lambda: threading.active_count() <= threads)
        process = psutil.Process()
        before = process.num_fds(), threads
        results: list[int] = []

        def client() -> None:
            for _ in range(4):
                results.append(send(raw, "cg_sense", address(server), timeout=60).images)

        clients = [threading.Thread(target=client) for _ in range(4)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        assert results == 16 * [SCAN.slices]
        until(lambda: process.num_fds() <= before[0] and threading.active_count() <= before[1])
        assert process.num_fds() <= before[0] and threading.active_count() <= before[1]
        assert server.totals == {"scans": 17, "failed": 0, "refused": 0, "images": 17 * SCAN.slices, "replaced": 0}


def test_errors_are_told_while_the_client_still_sends(raw: Path) -> None:
    with serving() as server, connected(server) as sock:
        sock.sendall(stream(raw, config=named("no_such"))[:20000])
        told = sock.recv(12)
        sock.sendall(stream(raw, config=named("no_such"))[20000:])
        assert "there is no chain 'no_such'" in error_of(told + answer(sock))
        works(server, raw)


def test_stopping_finishes_what_runs_and_refuses_the_rest(raw: Path) -> None:
    content = stream(raw)
    with serving() as server, connected(server) as running:
        running.sendall(content[:20000])
        until(lambda: server.running() == 1)
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
        Server(ServeSettings(port=server.port), NURSERY)


# --- the queue -------------------------------------------------------------------------------------------------------


def test_a_full_queue_says_so(raw: Path) -> None:
    with serving(scans=1, waiting=1) as server:
        held = [connected(server), connected(server)]  # one runs, one waits
        try:
            for sock in held:
                sock.sendall(stream(raw)[: -len(CLOSE)])
                until(lambda sock=sock: len(server.scans) > held.index(sock))
            with pytest.raises(ReconError, match="busy: 1 scans wait already; send the scan again later"):
                send(raw, "cg_sense", address(server), timeout=30)
        finally:
            for sock in held:
                sock.close()
        until(lambda: not server.running())
        works(server, raw)


def test_a_client_that_leaves_while_it_waits_frees_its_place(raw: Path) -> None:
    unfinished = stream(raw)[: -len(CLOSE)]
    with serving(scans=1, waiting=1) as server, connected(server) as running:
        running.sendall(unfinished)
        until(lambda: server.running() == 1)
        with connected(server) as waiting:
            waiting.sendall(unfinished)
            until(lambda: server.waiting() == 1)
        until(lambda: not server.waiting())
        assert server.waiting() == 0
        assert server.running() == 1
        running.sendall(CLOSE)
        assert answer(running).endswith(CLOSE)
        works(server, raw)


def test_a_dead_client_with_much_unsent_frees_its_place(raw: Path) -> None:
    """Its system goes on sending what it had written; the server must take all of that to see its end."""
    much = stream(raw)[: -len(CLOSE)] + 60 * acquisition_of(2**20)
    with serving(waiting=1) as server, connected(server) as running:
        running.sendall(stream(raw)[: -len(CLOSE)])
        until(lambda: server.running() == 1)
        client = subprocess.Popen(
            [sys.executable, "-c", DYING_CLIENT, str(server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert client.stdin is not None and client.stdout is not None
        with client, client.stdin:
            client.stdin.write(much)
            client.stdin.close()
            client.stdout.read()
        until(lambda: not server.waiting() and server.totals["refused"])
        assert server.totals["refused"] == 1 and not server.waiting() and server.running() == 1
        running.sendall(CLOSE)
        assert answer(running).endswith(CLOSE)


DYING_CLIENT = """
import os, socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(sys.stdin.buffer.read())
os._exit(0)
"""


def acquisition_of(size: int) -> bytes:
    wire = Recorded()
    writers.write_acquisition(wire, ismrmrd.Acquisition.from_array(np.ones((8, size // 64), np.complex64)))
    return wire.data


@pytest.mark.parametrize("ahead_gib", [1.0, 2e-5, 0.0], ids=["all", "some", "nothing"])
def test_scans_that_waited_have_the_same_images(ahead_gib: float, raw: Path, tmp_path: Path) -> None:
    direct, waited = tmp_path / "direct", tmp_path / "waited"
    with serving(limits=replace(LIMITS, ahead_gib=ahead_gib)) as server:
        send(raw, "cg_sense", address(server), out=direct, timeout=30)
        with connected(server) as running:
            running.sendall(stream(raw)[: -len(CLOSE)])
            until(lambda: server.running() == 1)
            client = threading.Thread(target=lambda: send(raw, "cg_sense", address(server), out=waited, timeout=30))
            client.start()
            until(lambda: server.waiting() == 1)
            time.sleep(0.3)
            running.sendall(CLOSE)
            assert answer(running).endswith(CLOSE)
            client.join()
    for one, other in zip(read_images(direct, 1), read_images(waited, 1), strict=True):
        assert np.array_equal(one.data, other.data)


def test_a_client_that_waits_may_end_its_half_of_the_connection(raw: Path) -> None:
    with serving() as server, connected(server) as running, connected(server) as waiting:
        running.sendall(stream(raw)[: -len(CLOSE)])
        until(lambda: server.running() == 1)
        waiting.sendall(stream(raw))
        waiting.shutdown(socket.SHUT_WR)
        until(lambda: server.waiting() == 1)
        time.sleep(0.3)
        assert server.waiting() == 1
        running.sendall(CLOSE)
        assert answer(running).endswith(CLOSE)
        found = answer(waiting)
        assert found[:2] == message(constants.GADGET_MESSAGE_ISMRMRD_IMAGE) and found.endswith(CLOSE)


def test_no_room_to_read_ahead(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits with what it has, as it does where reading ahead is off."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with serving() as server, connected(server) as running:
        running.sendall(stream(raw)[: -len(CLOSE)])
        until(lambda: server.running() == 1)
        with connected(server) as waiting:
            waiting.sendall(stream(raw))
            until(lambda: server.waiting() == 1)
            time.sleep(0.2)
            running.sendall(CLOSE)
            assert answer(running).endswith(CLOSE)
            assert answer(waiting).endswith(CLOSE)


def test_the_queue_is_first_in_first_out(raw: Path) -> None:
    order: list[int] = []

    def client(number: int) -> None:
        send(raw, "cg_sense", address(server), timeout=60)
        order.append(number)

    with serving(waiting=8) as server, connected(server) as running:
        running.sendall(stream(raw)[: -len(CLOSE)])
        until(lambda: server.running() == 1)
        clients = [threading.Thread(target=client, args=(number,)) for number in range(6)]
        for number, one in enumerate(clients):
            one.start()
            until(lambda number=number: server.waiting() == number + 1)
        running.sendall(CLOSE)
        for one in clients:
            one.join()
    assert order == list(range(6))


def test_waiting_is_no_part_of_a_scans_time(raw: Path) -> None:
    content = stream(raw)
    with serving(limits=replace(LIMITS, scan_s=3.0)) as server, connected(server) as running:
        running.sendall(content[: -len(CLOSE)])
        until(lambda: server.running() == 1)
        with connected(server) as waiting:
            waiting.sendall(content[: len(content) // 2])
            until(lambda: server.waiting() == 1)
            time.sleep(2.0)
            running.sendall(CLOSE)
            assert answer(running).endswith(CLOSE)
            time.sleep(1.8)
            waiting.sendall(content[len(content) // 2 :])
            assert answer(waiting).endswith(CLOSE) and server.totals["failed"] == 0


def test_connections_beyond_the_limit_are_counted(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.server.listener.CONNECTIONS", 2)
    with serving(scans=1, waiting=1) as server, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connected(server)).sendall(message(1))
        with connected(server) as sock:
            assert answer(sock) == b""
        until(lambda: server.totals["refused"] == 1)
        assert server.totals["refused"] == 1
        stack.close()
        works_soon(server, raw)


def works_soon(server: Server, raw: Path) -> None:
    """After connections were closed that the server has still to notice."""
    deadline = time.monotonic() + 20
    while True:
        try:
            works(server, raw)
            return
        except ReconError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_no_thread_for_a_connection(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "connection":
            raise RuntimeError("can't start new thread")
        start(thread)

    with serving() as server:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with connected(server) as sock:
                assert answer(sock) == b""
        assert server.totals["refused"] == 1
        works(server, raw)


# --- processes -------------------------------------------------------------------------------------------------------

LONG = {"parameters": {"config": "svd_wkgm", "generative_recon.method": "sake", "generative_recon.iterations": 5000}}
SECONDS = {"parameters": {"config": "svd_wkgm", "generative_recon.method": "sake", "generative_recon.iterations": 150}}


@pytest.fixture(scope="module")
def long_scan(raw: Path) -> bytes:
    """A scan that takes minutes, without CLOSE; no time budget ends its method."""
    return stream(raw, parameters=json.dumps(LONG).encode())[: -len(CLOSE)]


def test_a_scan_that_computes_too_long_frees_its_place(raw: Path, long_scan: bytes) -> None:
    with serving(limits=replace(LIMITS, scan_s=2.0)) as server, connected(server) as sock:
        (process,) = server.processes()
        sock.sendall(long_scan + CLOSE)
        assert fire_error_of(answer(sock)) == "it took longer than 2 s"
        works(server, raw)
        assert not psutil.pid_exists(process) and server.totals["replaced"] == 1


def test_clients_that_leave_take_their_computations_with_them(raw: Path, long_scan: bytes) -> None:
    with serving(scans=2, waiting=8) as server:
        first = set(server.processes())
        with connected(server) as one, connected(server) as other:
            for sock in (one, other):
                sock.sendall(long_scan)
            until(lambda: all(scan.chain for scan in server.scans[-2:]) and server.running() == 2)
            time.sleep(1.0)  # they compute
        until(lambda: server.totals["replaced"] == 2 and len(server.processes()) == 2, 30)
        assert server.totals["replaced"] == 2 and server.running() == 0
        assert not first & set(server.processes()) and not any(map(psutil.pid_exists, first))
        assert sum(psutil.Process(one).cpu_percent(0.5) for one in server.processes()) < 20
        works(server, raw)


def test_a_process_that_is_killed_is_told_of_and_replaced(
    raw: Path, long_scan: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as server:
        (process,) = server.processes()
        os.kill(process, signal.SIGKILL)  # while it has nothing to do
        until(lambda: server.processes() not in ([], [process]), 60)
        assert server.totals == {"scans": 0, "failed": 0, "refused": 0, "images": 0, "replaced": 1}
        works(server, raw)
        with connected(server) as sock:
            sock.sendall(long_scan)
            until(lambda: server.scans[-1].chain == "svd_wkgm")
            os.kill(*server.processes(), signal.SIGKILL)
            assert fire_error_of(answer(sock)) == "its process ended (SIGKILL); send the scan again"
        works(server, raw)
        assert server.totals["failed"] == 1 and server.totals["replaced"] == 2
    assert "a process for scans ended (SIGKILL); another one is started" in caplog.text


def test_nothing_is_told_in_the_middle_of_an_image(tmp_path: Path) -> None:
    """The text of an error would be taken for pixels."""
    raw = tmp_path / "large.h5"
    write_raw(raw, simulate(replace(SCAN, matrix=(1600, 1600, 1), coils=1, slices=1)))
    parameters = {"generative_recon.method": "zero_filled"}
    content = stream(raw, parameters=json.dumps({"parameters": parameters}).encode())
    with serving() as server, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.settimeout(30)
        sock.sendall(content)
        found = sock.recv(100)
        os.kill(*server.processes(), signal.SIGKILL)
        found += answer(sock)
    assert found[:2] == message(constants.GADGET_MESSAGE_ISMRMRD_IMAGE)
    assert len(found) < 2 * 1600 * 1600 and b"its process ended" not in found


def test_memory_that_no_estimate_foresaw(tmp_path: Path) -> None:
    """Lines of a slice that is never complete, while others give images, which the estimate takes for progress."""
    raw = tmp_path / "wide.h5"
    write_raw(raw, simulate(replace(SCAN, matrix=(2048, 32, 1), slices=12, readout_oversampling=1)))
    with serving(limits=replace(LIMITS, memory_gib=0.5)) as server:
        with RawScan(raw) as scan, connected(server) as sock:
            lines = list(scan.acquisitions())
            endless = Recorded()
            writers.write_acquisition(endless, next(line for line in lines if line.idx.slice == 11))
            sock.sendall(named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, scan.header_xml))
            with contextlib.suppress(OSError):  # the server ends it in the middle
                for line in lines:
                    wire = Recorded()
                    writers.write_acquisition(wire, line)
                    sock.sendall(wire.data)
                    if line.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE):
                        until(lambda slices=line.idx.slice: server.totals["images"] > slices or server.totals["scans"])
                        sock.sendall(900 * endless.data)
        until(lambda: bool(server.totals["scans"]))
        assert server.scans[-1].error == "it took more than 0.5 GiB of memory; raise --memory if it may"
        works(server, write_scan(tmp_path))


def test_a_process_above_its_memory_is_ended(raw: Path, long_scan: bytes) -> None:
    with serving(limits=replace(LIMITS, memory_gib=0.45)) as server, connected(server) as sock:
        place = server._places[0]
        sock.sendall(long_scan)
        until(lambda: place.ticket is not None)
        place._idle_bytes -= 2**29  # as if it had had less before
        assert fire_error_of(answer(sock)).startswith("it took more than 0.45 GiB of memory; raise --memory")
        works(server, raw)


def test_methods_that_cannot_be_made_ready() -> None:
    server = Server(ServeSettings(port=0, warm=("magic",)), NURSERY)
    with pytest.raises(ReconError, match="property 'method' is 'magic'"):
        server.run()


def test_a_server_that_stops_before_it_serves() -> None:
    server = Server(ServeSettings(port=0), NURSERY)
    server.stop()
    server.run()
    assert not server.processes()


def test_scans_that_run_beyond_the_grace_end(raw: Path, long_scan: bytes) -> None:
    with serving(grace_s=0.5) as server, connected(server) as sock:
        (process,) = server.processes()
        sock.sendall(long_scan)
        until(lambda: server.running() == 1)
        server.stop()
        assert fire_error_of(answer(sock)) == "the server stopped; send the scan again"
        assert not psutil.pid_exists(process)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_no_process_outlives_the_server(kind: signal.Signals, raw: Path, long_scan: bytes) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0", "--warm", "", "--grace", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().rpartition(" ")[2])
        children = psutil.Process(process.pid).children(recursive=True)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(long_scan)
            assert "chain svd_wkgm" in process.stderr.readline()
            os.kill(process.pid, kind)
            process.stderr.read()
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, 10)
    assert not alive


# --- the process that makes the others -------------------------------------------------------------------------------


def test_without_the_nursery_scans_go_on_and_it_comes_back(raw: Path) -> None:
    with Nursery() as own, serving(own) as server:
        os.kill(process_of(own), signal.SIGKILL)
        works(server, raw)
        (process,) = server.processes()
        os.kill(process, signal.SIGKILL)
        until(lambda: server.processes() not in ([], [process]), 60)
        works(server, raw)
        assert server.totals["replaced"] == 1


def test_a_nursery_that_does_not_answer_does_not_hold_up_the_end(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.server.listener.STOPPING_S", 1.0)
    with Nursery() as own:
        with serving(own) as server:
            works(server, raw)
            (process,) = server.processes()
            os.kill(process_of(own), signal.SIGSTOP)
            os.kill(process, signal.SIGKILL)
            until(lambda: not server.processes())
        assert not own.pid or not psutil.pid_exists(own.pid)


def test_processes_that_cannot_be_made_are_tried_again(
    raw: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipelines.server.listener.PAUSES_S", (0.0, 0.1))

    def fail(*_: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with serving() as server:
        with monkeypatch.context() as patched:
            patched.setattr(Nursery, "make", fail)
            os.kill(*server.processes(), signal.SIGKILL)
            until(lambda: caplog.text.count("it is tried again") >= 3)
        assert "a process for scans cannot be started (Resource temporarily unavailable)" in caplog.text
        works(server, raw)
    with pytest.raises(ReconError, match="a process for scans cannot be started"):
        monkeypatch.setattr(Nursery, "make", fail)
        Server(ServeSettings(port=0), NURSERY).run()


def process_of(nursery: Nursery) -> int:
    assert nursery.pid is not None
    return nursery.pid


# --- clients that leave, and their files -----------------------------------------------------------------------------


def test_a_scan_that_is_complete_goes_to_files_without_its_client(raw: Path, tmp_path: Path) -> None:
    content = stream(raw, parameters=json.dumps(SECONDS).encode())
    with serving(dicom=tmp_path / "dicom") as server:
        sock = connected(server)
        sock.sendall(content)
        until(lambda: server.running() == 1 and server.scans[-1].chain != "")
        time.sleep(0.5)  # all has been read
        reset(sock)
        until(lambda: server.totals["scans"] == 1, 30)
        assert server.scans[-1].error == f"the client is gone; {SCAN.slices} images went to files only"
        works(server, raw)
        assert server.totals["replaced"] == 0
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) == 2 * SCAN.slices


def test_a_scan_without_files_ends_with_its_client(raw: Path) -> None:
    with serving() as server:
        sock = connected(server)
        sock.sendall(stream(raw, parameters=json.dumps(LONG).encode()))
        until(lambda: server.running() == 1 and server.scans[-1].chain != "")
        time.sleep(0.5)
        reset(sock)
        until(lambda: server.totals["scans"] == 1, 20)
        assert server.scans[-1].error == "the client is gone"
        works(server, raw)


def test_a_client_that_ends_its_half_of_the_connection_has_its_images(raw: Path) -> None:
    with serving() as server, connected(server) as sock:
        sock.sendall(stream(raw))
        sock.shutdown(socket.SHUT_WR)
        found = answer(sock)
    assert found[:2] == message(constants.GADGET_MESSAGE_ISMRMRD_IMAGE) and found.endswith(CLOSE)


def test_a_client_that_ends_its_half_before_the_end_is_told(raw: Path) -> None:
    with serving() as server, connected(server) as sock:
        sock.sendall(stream(raw)[: -len(CLOSE)])
        sock.shutdown(socket.SHUT_WR)
        found = answer(sock)
    assert b"ERROR: the client closed the connection before its CLOSE message" in found and found.endswith(CLOSE)


def test_a_client_that_dies_while_its_data_wait_for_room_is_noticed() -> None:
    """Nobody takes the lines, as while a slice is computed; more than the queue holds are sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        with theirs:
            intake = Intake(theirs, LIMITS, constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION)
            intake.start()
            try:
                lines = acquisition_of(2**20)[2:] + 40 * acquisition_of(2**20)
                ours.settimeout(1.0)
                with pytest.raises(TimeoutError):
                    ours.sendall(lines)
                reset(ours)
                until(lambda: intake._failure is not None)
                assert str(intake._failure) == "the client is gone" and isinstance(intake._failure, PeerGone)
            finally:
                intake.stop()


def test_lines_that_give_no_image_are_an_error(raw: Path) -> None:
    simulation = simulate(SCAN)
    wire = Recorded()
    wire.data = named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, ismrmrd.xsd.ToXML(simulation.header).encode())
    lines = list(simulation.acquisitions())
    for line in lines:
        line.clear_all_flags()
        line.set_flag(ismrmrd.ACQ_IS_NAVIGATION_DATA)
        writers.write_acquisition(wire, line)
    with serving() as server:
        assert error_of(exchanged(server, wire.data + CLOSE)).startswith(f"its {len(lines)} lines gave no image; look")
        works(server, raw)


def test_no_data_after_the_header_holds_no_place(raw: Path) -> None:
    with serving(limits=replace(LIMITS, idle_s=0.5)) as server, connected(server) as sock:
        sock.sendall(stream(raw).partition(struct.pack("<H", 1008))[0])
        assert server.running() == 0
        assert error_of(answer(sock)) == "no data came within 0.5 s after the header"


def test_temporary_files_end_with_their_process(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with serving() as server:
        (folder,) = tmp_path.iterdir()
        (folder / "left behind").touch()
        os.kill(*server.processes(), signal.SIGKILL)
        until(lambda: list(tmp_path.iterdir()) not in ([], [folder]))
        assert not folder.exists()
    assert not list(tmp_path.iterdir())


# --- clients that are slow -------------------------------------------------------------------------------------------


def test_slow_clients_are_not_idle() -> None:
    """Half a second without a byte is; ten seconds for an image are not."""
    ours, theirs = socket.socketpair()
    taken: list[int] = []

    def take() -> None:
        while chunk := theirs.recv(100_000):
            taken.append(len(chunk))
            time.sleep(0.1)

    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        reader = threading.Thread(target=take)
        reader.start()
        start = time.monotonic()
        Outlet(ours, 0.5).write(bytes(2_000_000))
        assert time.monotonic() - start > 0.8
        ours.shutdown(socket.SHUT_WR)
        reader.join()
    assert sum(taken) == 2_000_000


def test_clients_that_take_nothing_are_given_up() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(PeerGone, match=r"the client took nothing for 0\.2 s"):
        Outlet(ours, 0.2).write(bytes(10_000_000))


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_scan_whose_files_reach_no_spool_fails_after_its_images(raw: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with serving(pacs="dicom://PACS@127.0.0.1:1", spool=spool) as server:
        spool.write_text("no folder any more")
        found = exchanged(server, stream(raw))
        assert found[:2] == message(constants.GADGET_MESSAGE_ISMRMRD_IMAGE)
        assert (
            found.count(b"GenreconMethod") == SCAN.slices and b"ERROR: DicomOutput: cannot write to the spool" in found
        )
        assert server.totals["failed"] == 1 and server.totals["images"] == SCAN.slices


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--pacs", "foo://bar"], "property 'pacs' is 'foo://bar'"),
        (["--pacs", "dicom://PACS@host"], "AE title and port"),
        (["--pacs", "dicom://P@h:104", "--spool", "{file}"], "--spool .*: it cannot be written to"),
        (["--dicom", "{file}/dicom"], "--dicom .*: it cannot be written to .*; give another one"),
        (["--bind", "no address"], r"port 0: cannot listen on no address \("),
    ],
)
def test_what_cannot_work_is_told_before_the_first_scan(options: list[str], match: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    options = [option.replace("{file}", str(file)) for option in options]
    result = CliRunner().invoke(app, ["serve", "--port", "0", *options])
    assert isinstance(result.exception, ReconError)
    assert re.search(match, str(result.exception)), result.exception


def test_files_of_scans_that_end_while_the_server_stops_are_delivered(raw: Path, tmp_path: Path) -> None:
    content = stream(raw)
    with Scp() as pacs, serving(pacs=f"dicom://PACS@127.0.0.1:{pacs.port}", spool=tmp_path / "spool") as server:
        with connected(server) as sock:
            sock.sendall(content[: len(content) // 2])
            until(lambda: server.running() == 1)
            stopper = threading.Thread(target=server.stop)
            stopper.start()
            until(lambda: server.stopping)
            sock.sendall(content[len(content) // 2 :])
            assert answer(sock).endswith(CLOSE)
        stopper.join(20)
        assert len(pacs.received) >= 1


# --- what is left in the spool ---------------------------------------------------------------------------------------


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


# --- the log ---------------------------------------------------------------------------------------------------------

CANARY = "Doe^Jane_19700401"


def canaries() -> list[bytes]:
    """Headers in which all texts, and then one field after the other, hold a patient's name."""
    simulation = simulate(replace(SCAN, slices=1))
    measurement = simulation.header.measurementInformation
    reference = ismrmrd.xsd.referencedImageSequenceType(referencedSOPInstanceUID=["1.2.3"])
    measurement.referencedImageSequence = reference
    dependency = ismrmrd.xsd.measurementDependencyType(dependencyType="Noise", measurementID="1")
    measurement.measurementDependency = [dependency]
    root = ElementTree.fromstring(ismrmrd.xsd.ToXML(simulation.header))
    leaves = [leaf for leaf in root.iter() if not len(leaf)]
    texts = [leaf.text for leaf in leaves]
    assert len(leaves) > 80
    variants = []
    for leaf, content in zip(leaves, texts, strict=True):
        leaf.text = CANARY
        variants.append(ElementTree.tostring(root))
        leaf.text = content
    for leaf, content in zip(leaves, texts, strict=True):
        is_text = leaf.tag.endswith(("Name", "ID", "UID", "Description", "Examined", "Model", "Vendor"))
        leaf.text = CANARY if is_text else content
    return [ElementTree.tostring(root), *variants]


def test_logs_and_page_quote_nothing_of_a_header(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = Recorded()
    for line in simulate(replace(SCAN, slices=1)).acquisitions():
        writers.write_acquisition(lines, line)
    with caplog.at_level("INFO", "genrecon"), serving(dicom=tmp_path / "dicom") as server:
        for number, header in enumerate(canaries()):
            content = named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, header) + lines.data + CLOSE
            exchanged(server, content)
            shown = caplog.text + page(server, None)
            assert "Doe" not in shown and "19700401" not in shown, (number, header)
        assert server.totals["scans"] == number + 1 and 10 < server.totals["failed"] < number
    logged = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name == "genrecon"]
    assert all(line["message"] for line in logged)
    assert len({line["scan"] for line in logged if "NoiseAdjustGadget" in line["message"]}) > 10


# --- the clock -------------------------------------------------------------------------------------------------------


JUMPING = """
import sys, time
from pathlib import Path
real, days = time.time, Path(sys.argv.pop(1))
time.time = lambda: real() + 86400 * float(days.read_text())
from pipelines.cli import main
main()
"""


def test_the_wall_clock_jumps(raw: Path, tmp_path: Path) -> None:
    """Ten years on, then twenty back, with a scan running and files waiting: all are delivered once, nothing hangs."""
    clock = tmp_path / "clock"

    def jump(days: int) -> None:
        clock.with_suffix(".new").write_text(str(days))
        clock.with_suffix(".new").replace(clock)

    jump(0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    port, status_port, pacs_port = free_port(), free_port(), free_port()
    command = [sys.executable, "-c", JUMPING, str(clock), "serve", "--port", str(port), "--warm", ""]
    command += ["--status-port", str(status_port), "--spool", str(tmp_path / "spool")]
    command += ["--pacs", f"dicom://PACS@127.0.0.1:{pacs_port}"]
    content = stream(raw)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        until(lambda: answers(port), 60)
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
                sock.sendall(content[: len(content) // 2])
                jump(3650)
                time.sleep(0.3)
                sock.sendall(content[len(content) // 2 :])
                assert answer(sock).endswith(CLOSE)
            jump(-7300)
            assert send(raw, "svd_wkgm", f"127.0.0.1:{port}", timeout=60).images == SCAN.slices
            until(lambda: "In 0.0 h: 2 scans, 0 of them failed" in fetched(status_port, "/")[1].decode())
            assert "In 0.0 h: 2 scans, 0 of them failed" in fetched(status_port, "/")[1].decode()
            with Scp(port=pacs_port) as pacs:
                until(lambda: len(pacs.received) >= 2 * SCAN.slices, 60)
                jump(3650)
                time.sleep(1.5)
                found = list(pacs.received)
        finally:
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
    assert process.returncode == 0
    assert len(found) == len(set(found)) == 2 * SCAN.slices
    assert not list((tmp_path / "spool").glob("*/*.dcm"))


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
