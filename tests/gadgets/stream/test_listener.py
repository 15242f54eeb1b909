"""A warm process behind Gadgetron's <connect>, and processes that end with their parent."""

from __future__ import annotations

import contextlib
import errno
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from gadgets.stream import ReconError, run_stages
from gadgets.stream.listener import listen
from pipelines.chain import Chain, read_chain
from pipelines.external_stages import external_connection
from pipelines.raw import RawScan
from tests.gadgets.stream import socket_gadgets
from tests.gadgets.stream.gadgetron_side import (
    ACQUISITION,
    CLOSE,
    ERROR,
    MODULE,
    Gadgetron,
    configuration,
    line,
    pixels,
)
from tests.paths import ROOT

# numpy warns when gadgetron-python makes an object array of ctypes headers.
pytestmark = pytest.mark.filterwarnings("ignore:.*PEP3118:RuntimeWarning:gadgetron.external.readers")


class Listener:
    """`genrecon listen` in a process."""

    def __init__(self, gadget: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = int(server.getsockname()[1])
        command = [sys.executable, "-c", "from pipelines.cli import main; main()", "listen", str(self.port), gadget]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.log = [self.process.stderr.readline()]  # type: ignore[union-attr]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        self.log.append(self.process.communicate(timeout=15.0)[1])
        return self.process.returncode, "".join(self.log)

    def connect(self) -> Gadgetron:
        return Gadgetron(socket.create_connection(("127.0.0.1", self.port)))


@contextlib.contextmanager
def listener(gadget: str) -> Iterator[Listener]:
    found = Listener(gadget)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.communicate()


def with_connect(port: int) -> Chain:
    """cg_sense whose reconstruction is reached by <connect>."""
    execute = b'<execute name="gadgets.reconstruction" target="Reconstruction" type="python"/>'
    text = read_chain("cg_sense").to_xml().replace(execute.replace(b"/>", b" />"), execute)
    assert execute in text
    return Chain(text.replace(execute, f'<connect address="127.0.0.1" port="{port}"/>'.encode()), "connect")


@pytest.mark.slow
def test_warm_listener_serves_scan_after_scan_and_two_at_once(raw: Path) -> None:
    with RawScan(raw) as scan:
        header, lines = scan.header, list(scan.acquisitions())
    in_this_process = read_chain("cg_sense").without("gadgets.dicom_output")
    expected = pixels(list(in_this_process.run(header, lines)))
    assert expected.shape == (2, 1, 1, 32, 32) and expected.max() > 1000
    with listener("gadgets.reconstruction:Reconstruction") as warm:
        assert f"listening on 127.0.0.1 port {warm.port}" in warm.log[0]

        def one(results: list[Any]) -> None:
            chain = with_connect(warm.port).without("gadgets.dicom_output")
            results.append(pixels(list(chain.run(header, lines))))

        results: list[Any] = []
        one(results)
        one(results)
        threads = [threading.Thread(target=one, args=(results,), daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20.0)
        assert len(results) == 4
        for result in results:
            assert np.abs(result - expected).max() <= 1
        code, log = warm.stop()
    assert (code, log.count("\n")) == (0, 1), log


@pytest.mark.slow
def test_listener_survives_peers_of_all_kinds_and_stops_cleanly(header: bytes) -> None:
    with listener(f"{MODULE}:Echo") as warm:
        for content in (b"", b"\x02", b"HTTP/1.1 GET /\r\n\r\n", struct.pack("<HI", 2, 1000)):
            with socket.create_connection(("127.0.0.1", warm.port)) as sock:
                sock.sendall(content)
        peer = warm.connect()
        peer.begin(header)
        peer.send(line(7))
        with peer.socket:
            assert peer.mrd.read(2) == struct.pack("<H", ACQUISITION)
            assert peer.mrd._item(ACQUISITION).scan_counter == 7
        time.sleep(0.3)
        process = psutil.Process(warm.process.pid)
        before = process.cpu_times()
        time.sleep(0.5)
        after = process.cpu_times()
        assert after.user + after.system - before.user - before.system < 0.2  # none of them left a thread that spins
        bad = warm.connect()
        with bad.socket:
            bad.begin(header, speed=1)
            bad.close()
            assert bad.answers() == [(ERROR, "gadget Echo: unknown property 'speed'; it has: none"), (CLOSE, None)]
        stage = external_connection("127.0.0.1", warm.port, configuration(), header)
        echo = list(run_stages(map(line, range(10)), [("listener", stage)]))
        assert [item.scan_counter for item in echo] == list(range(10))
        stage = external_connection("127.0.0.1", warm.port, configuration(speed=1), header)
        with pytest.raises(ReconError, match=f"listener 127.0.0.1:{warm.port}: gadget Echo: unknown property"):
            list(run_stages(map(line, range(10)), [("listener", stage)]))
        start = time.monotonic()
        code, log = warm.stop(signal.SIGINT)
        assert time.monotonic() - start < 3.0
    assert code == 0
    assert "Traceback" not in log


@pytest.mark.slow
def test_listener_that_is_stopped_finishes_its_scan(header: bytes) -> None:
    with listener(f"{MODULE}:Echo") as warm:
        peer = warm.connect()
        with peer.socket:
            peer.begin(header)
            peer.send(line(1))
            assert peer.mrd.read(2) == struct.pack("<H", ACQUISITION)
            peer.mrd._item(ACQUISITION)
            warm.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(ConnectionRefusedError) as caught:
                socket.create_connection(("127.0.0.1", warm.port))
            assert caught.value.errno == errno.ECONNREFUSED
            peer.send(line(2))
            peer.close()
            assert [message for message, _ in peer.answers()] == [ACQUISITION, CLOSE]
        start = time.monotonic()
        assert warm.process.wait(5.0) == 0
        assert time.monotonic() - start < 3.0


def test_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ReconError) as caught:
            listen(port, socket_gadgets.Echo)
    assert str(caught.value) == (
        f"port {port}: cannot listen on 127.0.0.1 (Address already in use); choose another port or address"
    )


@pytest.mark.slow
@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_a_process_started_ends_with_it(end: str) -> None:
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv (util-linux): install it to run this test")
    code = (
        "import os, signal, subprocess; from gadgets.stream.processes import killed_with_parent\n"
        f"print(subprocess.Popen(killed_with_parent(['sleep', '600'])).pid, flush=True); {end}"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    child = int(done.stdout)
    deadline = time.monotonic() + 10
    while running(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
