"""External gadgets of a chain: foreign ones, peers that stop, processes and threads that give the same images."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from gadgetron.external import constants

from gadgets.stream import ReconError, Stage, run_stages
from pipelines import wire
from pipelines.chain import Chain, read_chain
from pipelines.external_stages import external_process
from pipelines.raw import RawScan
from pipelines.replay import read_images, replay
from pipelines.wire import exchange
from tests.gadgets.stream.gadgetron_side import MODULE, configuration, line, pixels

# numpy warns when gadgetron-python makes an object array of ctypes headers.
pytestmark = pytest.mark.filterwarnings("ignore:.*PEP3118:RuntimeWarning:gadgetron.external.readers")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "text", "logged"),
    [
        ("returns_early", "(it ended before|it closed the connection before|connection lost) .*", ""),
        ("raises", "its process failed after the last item", "ValueError: not ours"),
        ("missing", ".*", "Unable to initialize suitable target using symbol 'missing'"),
    ],
)
def test_foreign_gadget_that_fails_is_noticed(
    header: bytes, capfd: pytest.CaptureFixture[str], target: str, text: str, logged: str
) -> None:
    """They end with CLOSE like one that is done."""
    stage = external_process(MODULE, target, configuration(), header)
    lines = (line(number, 64, 512) for number in range(200 if target == "returns_early" else 3))
    with pytest.raises(ReconError, match=f"^external {MODULE}: {text}; see its log$"):
        list(run_stages(lines, [("foreign", stage)]))
    assert logged in capfd.readouterr().err


def test_peer_that_neither_reads_nor_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        lines = itertools.repeat(line(coils=128, samples=1024), 1000)
        start = time.monotonic()
        with pytest.raises(ReconError, match=f"server {address}: no answer for 1 s"):
            list(wire.reconstruct_remotely(address, b"<configuration/>", b"<header/>", lines, 1.0))
        assert time.monotonic() - start < 5.0


def test_error_of_the_source_wins_over_the_closed_connection(header: bytes) -> None:
    def lines() -> Iterator[ismrmrd.Acquisition]:
        yield line()
        raise ReconError("file: broken")

    with socket.create_server(("127.0.0.1", 0)) as server:

        def connect() -> socket.socket:
            return socket.create_connection(server.getsockname())

        with pytest.raises(ReconError, match="file: broken"):
            list(exchange(connect, "peer", b"<configuration/>", header, lines()))


def test_leaving_an_exchange_early_wakes_its_sender(header: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def connect() -> socket.socket:
            return socket.create_connection(server.getsockname())

        def peer() -> None:
            conn, _ = server.accept()
            conn.sendall(struct.pack("<HI", constants.GADGET_MESSAGE_TEXT, 2) + b"hi")
            connections.append(conn)

        connections: list[socket.socket] = []
        threading.Thread(target=peer, daemon=True).start()
        lines = itertools.repeat(line(coils=128, samples=1024))
        results = exchange(connect, "never reads", b"<configuration/>", header, lines)
        assert next(results) == (constants.GADGET_MESSAGE_TEXT, "hi")
        time.sleep(0.2)
        results.close()  # type: ignore[attr-defined]
        for sender in [thread for thread in threading.enumerate() if thread.name == "to never reads"]:
            sender.join(2.0)
            assert not sender.is_alive()
        connections[0].close()


@pytest.mark.slow
def test_three_processes_give_the_images_of_one(raw: Path, tmp_path: Path) -> None:
    replay(raw, "l1_wavelet", tmp_path / "one")
    result = replay(raw, "l1_wavelet_separate", tmp_path / "three", processes=True)
    assert result.images == 2
    one, three = (pixels(list(read_images(tmp_path / name, 1))) for name in ("one", "three"))
    assert one.max() > 1000
    assert np.abs(one - three).max() <= 1
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.dcm")) for folder in tmp_path.iterdir()]
    assert files[0] == files[1]


def stages_of(chain: Chain, header: Any) -> list[tuple[str, Stage]]:
    stages: list[tuple[str, Stage]] = []
    for node in chain.nodes:
        kind = node.load()
        assert kind is not None
        gadget = kind()
        gadget.configure(header, node.properties)
        stages.append((node.names[0], gadget.process))
    return stages


def test_gadgets_in_threads_give_the_images_of_gadgets_one_after_another(raw: Path) -> None:
    with RawScan(raw) as scan:
        header, lines = scan.header, list(scan.acquisitions())
    chain = read_chain("l1_wavelet").without("gadgets.dicom_output")
    in_threads = pixels(list(run_stages(lines, stages_of(chain, header))))
    items: Any = iter(lines)
    for _, stage in stages_of(chain, header):
        items = iter(list(stage(items)))
    np.testing.assert_array_equal(in_threads, pixels(list(items)))
