"""Servers that do not reconstruct."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.bad_input.helpers import change_rows, closed_port, set_head


@contextlib.contextmanager
def server_that(behaves: Callable[[socket.socket], None]) -> Iterator[str]:
    """HOST:PORT of a server that does this with its only connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                conn, _ = server.accept()
                with conn:
                    behaves(conn)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        thread.join(5.0)
        assert not thread.is_alive()


def read_all(conn: socket.socket) -> None:
    """Read until nothing more comes for a while."""
    conn.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while conn.recv(1 << 20):
            pass


def silent(conn: socket.socket) -> None:
    conn.settimeout(20.0)
    while conn.recv(1 << 20):
        pass


def hang_up(conn: socket.socket) -> None:
    conn.recv(10)


def hang_up_at_the_end(conn: socket.socket) -> None:
    read_all(conn)


def reset(conn: socket.socket) -> None:
    conn.recv(10)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def send(data: bytes) -> Callable[[socket.socket], None]:
    def behave(conn: socket.socket) -> None:
        read_all(conn)
        conn.sendall(data)
        silent(conn)

    return behave


CLOSE = struct.pack("<H", 4)


@pytest.mark.parametrize(
    ("behaves", "text"),
    [
        (silent, "no answer for 1 s; see its log or raise --timeout"),
        (hang_up, "; see its log"),
        (hang_up_at_the_end, "it closed the connection before the scan's end; see its log"),
        (reset, "; see its log"),
        (send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "it sent a message of unknown kind 21576; check what listens"),
        (send(struct.pack("<HQ", 8, 11) + b"grappa\nfail" + CLOSE), ": grappa fail"),
        (send(struct.pack("<HI", 5, 12) + b"ERROR: broke" + CLOSE), ": ERROR: broke"),
        (send(struct.pack("<HQQQ", 1023, 1, 1, 2**60)), "no answer for 1 s"),
        (send(struct.pack("<H", 1022) + b"\xff" * 198 + bytes(8) + b"x" * 9000), "message of kind 1022 cannot be read"),
        (send(CLOSE), "no image came back; see the log of the server 127.0.0.1:"),
    ],
    ids=["silent", "hangs up", "hangs up late", "resets", "web", "error", "text", "huge", "garbage", "empty"],
)
def test_server_that_does_not_reconstruct(
    refused: Any, raw: Path, behaves: Callable[[socket.socket], None], text: str
) -> None:
    with server_that(behaves) as address:
        line = refused(raw, "--gadgetron", address, "--timeout", 1)
    assert address in line
    assert text in line


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("localhost", "server localhost: give HOST:PORT"),
        (":9002", "server :9002: give HOST:PORT"),
        ("localhost:many", "server localhost:many: give HOST:PORT"),
        ("localhost:²", "server localhost:²: give HOST:PORT"),
        ("localhost:70000", "server localhost:70000: give HOST:PORT"),
        ("nowhere.invalid:9002", "nowhere.invalid:9002: no server answers there ("),
        (f"{'x' * 80}:9002", f"{'x' * 80}:9002: no server answers there ("),
    ],
)
def test_address_of_no_server(refused: Any, raw: Path, address: str, text: str) -> None:
    assert text in refused(raw, "--gadgetron", address)


def test_nobody_listens(refused: Any, raw: Path) -> None:
    port = closed_port()
    line = refused(raw, "--gadgetron", f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port}: no server answers there (Connection refused); start it or correct HOST:PORT" in line


def test_bad_file_is_found_while_a_server_reconstructs(refused: Any, raw: Path) -> None:
    change_rows(raw, set_head("active_channels", 5, -1))
    with server_that(silent) as address:
        assert f"{raw}: acquisition " in refused(raw, "--gadgetron", address, "--timeout", 5)
