"""Errors and images reach clients that are slow or still send."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gadgetron.external import constants

from gadgets.stream import PeerGone
from pipelines.server.replies import ReplyWriter
from pipelines.simulation import simulate, write_raw
from tests.pipelines.server.serving import (
    SCAN,
    answer,
    connected,
    error_of,
    message,
    named,
    serving,
    stream,
    works,
)


def test_errors_reach_a_client_that_still_sends(raw: Path) -> None:
    with serving() as server, connected(server) as sock:
        sock.sendall(stream(raw, config=named("no_such"))[:20000])
        begun = sock.recv(12)
        sock.sendall(stream(raw, config=named("no_such"))[20000:])
        assert "there is no chain 'no_such'" in error_of(begun + answer(sock))
        works(server, raw)


def test_no_error_is_sent_in_the_middle_of_an_image(tmp_path: Path) -> None:
    """The text of an error would be taken for pixels."""
    raw, matrix = tmp_path / "large.h5", (320, 320, 1)
    write_raw(raw, simulate(replace(SCAN, matrix=matrix, coils=1, slices=1)))
    parameters = {"generative_recon.method": "zero_filled"}
    content = stream(raw, parameters=json.dumps({"parameters": parameters}).encode())
    with serving() as server, socket.socket() as sock:
        # Buffers that hold no whole image; the connection has those of the listening socket.
        server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.settimeout(30)
        sock.sendall(content)
        found = sock.recv(100)
        os.kill(*server.queue.processes(), signal.SIGKILL)
        found += answer(sock)
    assert found[:2] == message(constants.GADGET_MESSAGE_ISMRMRD_IMAGE)
    assert len(found) < 2 * math.prod(matrix) and b"its process ended" not in found


@pytest.mark.slow
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
        ReplyWriter(ours, 0.5).write(bytes(2_000_000))
        assert time.monotonic() - start > 0.8
        ours.shutdown(socket.SHUT_WR)
        reader.join()
    assert sum(taken) == 2_000_000


def test_clients_that_take_nothing_are_disconnected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(PeerGone, match=r"the client took nothing for 0\.2 s"):
        ReplyWriter(ours, 0.2).write(bytes(10_000_000))
