"""Scans that wait: order, limits, and clients that leave meanwhile."""

from __future__ import annotations

import contextlib
import errno
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gadgetron.external import constants

from gadgets.stream import ReconError
from pipelines.replay import read_images
from pipelines.send import send
from pipelines.server.listener import Server
from tests.pipelines.server.serving import (
    CLOSE,
    LIMITS,
    acquisition_of,
    address,
    answer,
    connected,
    finish_scan,
    message,
    serving,
    start_scan,
    stream,
    until,
    works,
)


def test_a_full_queue_says_so(raw: Path, unfinished: bytes) -> None:
    with serving(scans=1, waiting=1) as server:
        held = [connected(server), connected(server)]  # one runs, one waits
        try:
            for sock in held:
                sock.sendall(unfinished)
                until(lambda sock=sock: len(server.queue.scans) > held.index(sock))
            with pytest.raises(ReconError, match="busy: 1 scans wait already; send the scan again later"):
                send(raw, "cg_sense", address(server), timeout=30)
        finally:
            for sock in held:
                sock.close()
        until(lambda: not server.queue.running())
        works(server, raw)


def test_a_client_that_leaves_while_it_waits_is_removed(raw: Path, unfinished: bytes) -> None:
    with serving(scans=1, waiting=1) as server, connected(server) as running:
        start_scan(server, running, unfinished)
        with connected(server) as waiting:
            waiting.sendall(unfinished)
            until(lambda: server.queue.waiting() == 1)
        until(lambda: not server.queue.waiting())
        assert server.queue.waiting() == 0
        assert server.queue.running() == 1
        finish_scan(running)
        works(server, raw)


def test_a_dead_client_with_much_unsent_is_removed(raw: Path, unfinished: bytes) -> None:
    """Its system goes on sending what it had written; the server must take all of that to see its end."""
    much = unfinished + 60 * acquisition_of(2**20)
    with serving(waiting=1) as server, connected(server) as running:
        start_scan(server, running, unfinished)
        client = subprocess.Popen(
            [sys.executable, "-c", DYING_CLIENT, str(server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert client.stdin is not None and client.stdout is not None
        with client, client.stdin:
            client.stdin.write(much)
            client.stdin.close()
            client.stdout.read()
        until(lambda: not server.queue.waiting() and server.queue.totals["refused"])
        assert server.queue.totals["refused"] == 1 and not server.queue.waiting() and server.queue.running() == 1
        finish_scan(running)


DYING_CLIENT = """
import os, socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(sys.stdin.buffer.read())
os._exit(0)
"""


@pytest.mark.parametrize("ahead_gib", [1.0, 2e-5, 0.0], ids=["all", "some", "nothing"])
def test_scans_that_waited_have_the_same_images(ahead_gib: float, raw: Path, unfinished: bytes, tmp_path: Path) -> None:
    direct, waited = tmp_path / "direct", tmp_path / "waited"
    with serving(limits=replace(LIMITS, ahead_gib=ahead_gib)) as server:
        send(raw, "cg_sense", address(server), out=direct, timeout=30)
        with connected(server) as running:
            start_scan(server, running, unfinished)
            client = threading.Thread(target=lambda: send(raw, "cg_sense", address(server), out=waited, timeout=30))
            client.start()
            until(lambda: server.queue.waiting() == 1)
            time.sleep(0.3)
            finish_scan(running)
            client.join()
    for one, other in zip(read_images(direct, 1), read_images(waited, 1), strict=True):
        assert np.array_equal(one.data, other.data)


def test_a_client_that_waits_may_end_its_half_of_the_connection(raw: Path, unfinished: bytes) -> None:
    with serving() as server, connected(server) as running, connected(server) as waiting:
        start_scan(server, running, unfinished)
        waiting.sendall(stream(raw))
        waiting.shutdown(socket.SHUT_WR)
        until(lambda: server.queue.waiting() == 1)
        time.sleep(0.3)
        assert server.queue.waiting() == 1
        finish_scan(running)
        found = answer(waiting)
        assert found[:2] == message(constants.GADGET_MESSAGE_ISMRMRD_IMAGE) and found.endswith(CLOSE)


def test_no_disk_space_to_read_ahead(raw: Path, unfinished: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits with what it has, as it does where reading ahead is off."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with serving() as server, connected(server) as running:
        start_scan(server, running, unfinished)
        with connected(server) as waiting:
            waiting.sendall(stream(raw))
            until(lambda: server.queue.waiting() == 1)
            time.sleep(0.2)
            finish_scan(running)
            assert answer(waiting).endswith(CLOSE)


@pytest.mark.slow
def test_the_queue_is_first_in_first_out(raw: Path, unfinished: bytes, tmp_path: Path) -> None:
    order: list[int] = []

    def client(number: int) -> None:
        own = shutil.copy(raw, tmp_path / f"{number}.h5")  # h5py does not take one file in several threads
        send(own, "cg_sense", address(server), timeout=60)
        order.append(number)

    with serving(waiting=8) as server, connected(server) as running:
        start_scan(server, running, unfinished)
        clients = [threading.Thread(target=client, args=(number,)) for number in range(6)]
        for number, one in enumerate(clients):
            one.start()
            until(lambda number=number: server.queue.waiting() == number + 1)
        running.sendall(CLOSE)
        for one in clients:
            one.join()
    assert order == list(range(6))


@pytest.mark.slow
def test_waiting_does_not_count_as_scan_time(raw: Path, unfinished: bytes) -> None:
    content = stream(raw)
    with serving(limits=replace(LIMITS, scan_s=3.0)) as server, connected(server) as running:
        start_scan(server, running, unfinished)
        with connected(server) as waiting:
            waiting.sendall(content[: len(content) // 2])
            until(lambda: server.queue.waiting() == 1)
            time.sleep(2.0)
            finish_scan(running)
            time.sleep(1.8)
            waiting.sendall(content[len(content) // 2 :])
            assert answer(waiting).endswith(CLOSE) and server.queue.totals["failed"] == 0


def test_connections_beyond_the_limit_are_counted(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.server.listener.SPARE_CONNECTIONS", 2)
    with serving(scans=1, waiting=1) as server, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connected(server)).sendall(message(1))
        with connected(server) as sock:
            assert answer(sock) == b""
        until(lambda: server.queue.totals["refused"] == 1)
        assert server.queue.totals["refused"] == 1
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
        assert server.queue.totals["refused"] == 1
        works(server, raw)
