"""A server in the tests' own process, its processes for scans beside it, and clients that send it what they like."""

from __future__ import annotations

import atexit
import contextlib
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.external import constants, writers

from benchmarks.fuzz import Recorded
from pipelines.raw import RawScan
from pipelines.send import send
from pipelines.server.fork_server import ForkServer
from pipelines.server.listener import Server
from pipelines.server.processes import private_memory
from pipelines.server.settings import Limits, ServeSettings
from pipelines.simulation import SimulationSettings, simulate, write_raw

SCAN = SimulationSettings(
    matrix=(32, 32, 1), coils=4, slices=3, sampling="uniform", acceleration=2, calibration_lines=12
)
LIMITS = Limits(idle_s=5.0, scan_s=60.0)
# Parameters with which the scan computes for minutes, and for seconds.
LONG = {"parameters": {"config": "svd_wkgm", "generative_recon.method": "sake", "generative_recon.iterations": 5000}}
SECONDS = {"parameters": {"config": "svd_wkgm", "generative_recon.method": "sake", "generative_recon.iterations": 60}}
FORK_SERVER = ForkServer()  # of all servers of these tests
atexit.register(FORK_SERVER.close)


@contextlib.contextmanager
def serving(fork_server: ForkServer = FORK_SERVER, **changes: Any) -> Iterator[Server]:
    server = Server(ServeSettings(**({"port": 0, "limits": LIMITS, "grace_s": 10.0} | changes)), fork_server)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: len(server.queue.processes()) == server.settings.scans, 60)
        yield server
    finally:
        server.stop()
        thread.join(5)
        assert not thread.is_alive()


def address(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


def connected(server: Server) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def reset(sock: socket.socket) -> None:
    """End the connection as the system of a program that died does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def message(number: int, body: bytes = b"") -> bytes:
    return struct.pack("<H", number) + body


def text(number: int, body: bytes) -> bytes:
    return message(number, struct.pack("<I", len(body)) + body)


def named(name: str) -> bytes:
    return message(constants.GADGET_MESSAGE_FILENAME, name.encode().ljust(1024, b"\0"))


CLOSE = message(constants.GADGET_MESSAGE_CLOSE)


def stream(raw: Path, config: bytes = b"", parameters: bytes = b"") -> bytes:
    """A whole scan as a client sends it."""
    wire = Recorded()
    with RawScan(raw) as scan:
        wire.data = config or named("cg_sense")
        wire.data += text(constants.GADGET_MESSAGE_HEADER, scan.header_xml)
        if parameters:
            wire.data += text(constants.GADGET_MESSAGE_TEXT, parameters)
        for line in scan.acquisitions():
            writers.write_acquisition(wire, line)
    return wire.data + CLOSE


def answer(sock: socket.socket) -> bytes:
    """All that comes until the server closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(1 << 20):
            found += chunk
    return found


def error_of(found: bytes, begin: str = "[genrecon] ERROR: ") -> str:
    """Text of an error as Gadgetron's client takes it."""
    number, size = struct.unpack("<HI", found[:6])
    assert number == constants.GADGET_MESSAGE_TEXT
    assert found[6 + size :] == CLOSE
    error = found[6 : 6 + size].decode()
    assert error.startswith(begin)
    return error.removeprefix(begin)


def fire_error_of(found: bytes) -> str:
    """The same as FIRE's client takes it."""
    error = error_of(found, "ERROR    ")
    assert error.endswith("\0")
    return error[:-1]


def exchanged(server: Server, content: bytes) -> bytes:
    until(lambda: not server.queue.running() and len(server.queue.processes()) == server.settings.scans, 60)
    with connected(server) as sock:
        sock.sendall(content)
        sock.shutdown(socket.SHUT_WR)  # the server need not wait for more
        return answer(sock)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def works(server: Server, raw: Path) -> None:
    assert send(raw, "cg_sense", address(server), timeout=30).images == SCAN.slices


def memory(server: Server) -> int:
    """Bytes that the server's processes for scans have to themselves."""
    return sum(map(private_memory, server.queue.processes()))


def write_scan(folder: Path) -> Path:
    path = folder / "scan.h5"
    write_raw(path, simulate(SCAN))
    return path


def fetched(port: int, path: str, host: str = "localhost") -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as found:
            return found.status, found.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def acquisition_of(size: int) -> bytes:
    """A message with an acquisition of about so many bytes."""
    wire = Recorded()
    writers.write_acquisition(wire, ismrmrd.Acquisition.from_array(np.ones((8, size // 64), np.complex64)))
    return wire.data


def ended_well(found: bytes) -> bool:
    return found.endswith(CLOSE) and b"ERROR" not in found


def start_scan(server: Server, sock: socket.socket, unfinished: bytes) -> None:
    """Send a scan without its CLOSE, and wait until it runs."""
    sock.sendall(unfinished)
    until(lambda: server.queue.running() == 1)


def finish_scan(sock: socket.socket) -> None:
    """Send the CLOSE that the scan lacks; it ends without an error."""
    sock.sendall(CLOSE)
    assert ended_well(answer(sock))


def both_end_well(server: Server, one: socket.socket, other: socket.socket, unfinished: bytes) -> None:
    """Two scans, of which the other waits until the first has ended."""
    start_scan(server, one, unfinished)
    other.sendall(unfinished + CLOSE)
    until(lambda: server.queue.waiting() == 1)
    finish_scan(one)
    assert ended_well(answer(other))
