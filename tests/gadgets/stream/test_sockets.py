"""Gadgets on real sockets, with Gadgetron's side of the wire played here."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
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
from typing import Any, ClassVar
from xml.sax.saxutils import quoteattr

import ismrmrd
import numpy as np
import psutil
import pytest
from gadgetron.external import Connection, constants
from gadgetron.types import ImageArray, ReconData
from gadgetron.types.recon_data import ReconBit, ReconBuffer, SamplingDescription

from gadgets.espirit import Espirit
from gadgets.stream import Gadget, PeerGone, ReconError, Stage, run_stages
from gadgets.stream.listener import listen
from gadgets.stream.wire import for_wire
from pipelines import wire
from pipelines.chain import Chain, read_chain
from pipelines.raw import RawScan
from pipelines.replay import read_images, replay
from pipelines.simulation import SimulationSettings, simulate, write_raw
from pipelines.wire import MrdSocket, exchange, external_connection, external_process
from tests.gadgets.stream import socket_gadgets
from tests.paths import ROOT

# numpy warns when gadgetron-python makes an object array of ctypes headers.
pytestmark = pytest.mark.filterwarnings("ignore:.*PEP3118:RuntimeWarning:gadgetron.external.readers")

MODULE = socket_gadgets.__name__
ACQUISITION, CLOSE, ERROR = (
    constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION,
    constants.GADGET_MESSAGE_CLOSE,
    constants.GADGET_MESSAGE_ERROR,
)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, as the kernel does for a killed process

SCAN = SimulationSettings(
    matrix=(32, 32, 1),
    coils=4,
    slices=2,
    sampling="uniform",
    acceleration=2,
    calibration_lines=12,
    noise_scan=True,
    noise_level=0.01,
)


@pytest.fixture(autouse=True)
def in_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the processes that tests start find the gadgets."""
    path = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("GADGETRON_EXTERNAL_LOG_LEVEL", "WARNING")


@pytest.fixture(scope="module")
def header() -> bytes:
    return ismrmrd.xsd.ToXML(simulate(SCAN).header).encode()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "scan.h5"
    write_raw(path, simulate(SCAN))
    return path


def line(number: int = 0, coils: int = 4, samples: int = 32) -> ismrmrd.Acquisition:
    data = np.full((coils, samples), number + 1j, np.complex64)
    return ismrmrd.Acquisition.from_array(data, scan_counter=number)


def configuration(**properties: object) -> bytes:
    inner = "".join(f"<property name={quoteattr(k)} value={quoteattr(str(v))}/>" for k, v in properties.items())
    return f"<configuration>{inner}</configuration>".encode()


class Gadgetron:
    """The server's side of one external gadget."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.socket.settimeout(20.0)
        self.mrd = MrdSocket(sock, "gadget")

    def begin(self, header: bytes, **properties: object) -> None:
        self.mrd.send_text(constants.GADGET_MESSAGE_CONFIG, configuration(**properties))
        self.mrd.send_text(constants.GADGET_MESSAGE_HEADER, header)

    def send(self, *items: Any) -> None:
        for item in items:
            wire._WRITERS[type(item)](self.mrd, for_wire(item))

    def close(self) -> None:
        self.mrd.write(struct.pack("<H", CLOSE))

    def answers(self) -> list[tuple[int, Any]]:
        """Everything that comes up to the end of the connection, message by message."""
        found: list[tuple[int, Any]] = []
        while start := self.socket.recv(1):
            (message,) = struct.unpack("<H", start + self.mrd.read(1))
            if message == CLOSE:
                found.append((message, None))
            elif message == ERROR:
                (length,) = struct.unpack("<Q", self.mrd.read(8))
                found.append((message, self.mrd.read(length).decode("utf-8")))
            else:
                found.append((message, self.mrd._item(message)))
        return found

    def says_nothing_for(self, seconds: float) -> bool:
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(20.0)
        return False


@contextlib.contextmanager
def in_process(gadget: Gadget) -> Iterator[tuple[Gadgetron, list[BaseException]]]:
    """A gadget that serves the other end of a loopback connection in a thread; what it raises is collected."""
    raised: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()

    def serve() -> None:
        try:
            with far, Connection(far) as connection:
                gadget.handle(connection)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with near:
        yield Gadgetron(near), raised
    thread.join(5.0)
    assert not thread.is_alive()


@contextlib.contextmanager
def own_process(target: str, module: str = MODULE) -> Iterator[tuple[Gadgetron, subprocess.Popen[str]]]:
    """`python -m gadgetron PORT MODULE TARGET`, as the server starts it."""
    with socket.create_server(("localhost", 0)) as server:
        server.settimeout(30.0)
        command = [sys.executable, "-m", "gadgetron", str(server.getsockname()[1]), module, target]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            with server.accept()[0] as sock:
                yield Gadgetron(sock), process
        finally:
            process.kill()
            process.communicate()


# --- failing -------------------------------------------------------------------------------------------------------

TEXT = "Größe: it does not fit"


def test_failure_in_mid_stream_waits_for_the_end_of_the_input(header: bytes) -> None:
    with in_process(socket_gadgets.Failing()) as (gadgetron, raised):
        gadgetron.begin(header, after=2)
        gadgetron.send(*map(line, range(5)))
        for number in range(2):
            assert gadgetron.mrd.read(2) == struct.pack("<H", ACQUISITION)
            assert gadgetron.mrd._item(ACQUISITION).scan_counter == number
        assert gadgetron.says_nothing_for(0.4)
        gadgetron.send(*map(line, range(5, 10)))
        assert gadgetron.says_nothing_for(0.2)
        gadgetron.close()
        assert gadgetron.answers() == [(ERROR, TEXT), (CLOSE, None)]
    assert not raised


def test_error_on_the_wire_is_id_length_and_utf_8(header: bytes) -> None:
    with in_process(socket_gadgets.Failing()) as (gadgetron, _):
        gadgetron.begin(header, after=0)
        gadgetron.close()
        expected = TEXT.encode("utf-8")
        assert gadgetron.mrd.read(2 + 8 + len(expected) + 2) == (
            b"\x08\x00" + len(expected).to_bytes(8, "little") + expected + b"\x04\x00"
        )
        assert gadgetron.socket.recv(1) == b""


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({"after": 0}, TEXT),
        ({"after": 0, "kind": "ValueError"}, "Failing: ValueError: Größe: it does not fit"),
        ({"after": 1, "seconds": 0.2}, TEXT),
        ({"after": -1}, "gadget Failing: property 'after' is '-1'; it must be a whole number of at least 0"),
        ({"befor": 1}, "gadget Failing: unknown property 'befor'; it has: after, seconds, kind"),
    ],
)
def test_failure_with_much_input_unread(header: bytes, properties: dict[str, object], text: str) -> None:
    """More than any queue or socket holds is sent after the gadget has failed; nobody waits for ever."""
    large = line(coils=128, samples=1024)  # 1 MiB
    with in_process(socket_gadgets.Failing()) as (gadgetron, raised):
        gadgetron.begin(header, **properties)
        for _ in range(48):
            gadgetron.send(large)
        gadgetron.close()
        answers = gadgetron.answers()
    assert [message for message, _ in answers] == [ACQUISITION] * int(properties.get("after") == 1) + [ERROR, CLOSE]
    assert answers[-2][1] == text
    assert not raised


def test_failure_of_a_process(header: bytes) -> None:
    with own_process("Failing") as (gadgetron, process):
        gadgetron.begin(header, after=2, kind="ValueError")
        gadgetron.send(*map(line, range(4)))
        gadgetron.close()
        answers = gadgetron.answers()
        assert process.wait(5.0) == 0
        assert "Traceback" in process.stderr.read()  # type: ignore[union-attr]  # in the server's log only
    assert [message for message, _ in answers] == [ACQUISITION, ACQUISITION, ERROR, CLOSE]
    assert answers[2][1] == "Failing: ValueError: Größe: it does not fit"


def test_bad_property_of_a_real_gadget_in_a_process(header: bytes) -> None:
    with own_process("DicomOutput", "gadgets.dicom_output") as (gadgetron, process):
        gadgetron.begin(header, anonymize="perhaps")
        gadgetron.send(*map(line, range(50)))
        gadgetron.close()
        answers = gadgetron.answers()
        assert process.wait(5.0) == 0
    text = "gadget DicomOutput: property 'anonymize' is 'perhaps'; it must be true or false"
    assert answers == [(ERROR, text), (CLOSE, None)]


class Unsendable(Gadget):
    """Yields what no message exists for."""

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        yield from items
        yield {"an": "item"}


def test_item_that_cannot_be_sent_is_an_error(header: bytes) -> None:
    with in_process(Unsendable()) as (gadgetron, raised):
        gadgetron.begin(header)
        gadgetron.send(line())
        gadgetron.close()
        answers = gadgetron.answers()
    assert [message for message, _ in answers] == [ACQUISITION, ERROR, CLOSE]
    assert "Unsendable: TypeError: No appropriate writer found" in answers[1][1]
    assert not raised


def test_gadget_that_stops_reading_early_reads_the_rest(header: bytes) -> None:
    """Unread input would reset the connection, and the peer would lose what was sent before."""
    with in_process(socket_gadgets.Early()) as (gadgetron, raised):
        gadgetron.begin(header)
        for number in range(100):
            gadgetron.send(line(number, coils=64, samples=512))
        gadgetron.close()
        assert [message for message, _ in gadgetron.answers()] == [ACQUISITION, CLOSE]
    assert not raised


@pytest.mark.parametrize(
    ("garbage", "text"),
    [
        (struct.pack("<H", 4711) + b"garbage", "connection: the stream cannot be read (a message of unknown kind)"),
        (struct.pack("<HQ", constants.GADGET_MESSAGE_RECON_DATA, 1) + struct.pack("<QQQ", 2, 2**40, 2**40), ""),
        (
            struct.pack("<H", constants.GADGET_MESSAGE_ISMRMRD_IMAGE) + b"\xff" * 198 + bytes(8),
            "connection: the stream cannot be read (TypeError: Unknown image data type",
        ),
    ],
    ids=["unknown", "huge", "image"],
)
def test_input_that_cannot_be_read_is_an_error_and_no_end(header: bytes, garbage: bytes, text: str) -> None:
    """gadgetron-python takes an unknown message for the end: an image of half a scan would look whole."""
    with in_process(socket_gadgets.Echo()) as (gadgetron, raised):
        gadgetron.begin(header)
        gadgetron.send(line(1))
        gadgetron.mrd.write(garbage)
        if not text:  # it waits for what was announced
            assert [gadgetron.mrd.read(2), gadgetron.mrd._item(ACQUISITION).scan_counter] == [
                struct.pack("<H", ACQUISITION),
                1,
            ]
            assert gadgetron.says_nothing_for(0.2)
            return
        answers = gadgetron.answers()
    assert [message for message, _ in answers] == [ACQUISITION, ERROR, CLOSE]
    assert text in answers[1][1]
    assert not raised


# --- the peer vanishes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("when", ["waits", "computes", "computes with a full queue", "has got everything"])
def test_process_ends_when_the_peer_vanishes(header: bytes, when: str, reset: bool) -> None:
    """gadgetron-python spins at end-of-file for ever.

    Behind a full queue the end of a peer that closes cannot be seen before the gadget reads again.
    """
    with own_process("Echo" if when == "waits" else "Sleepy") as (gadgetron, process):
        first = {"has got everything": 0.0, "computes with a full queue": 30.0 if reset else 1.0}.get(when, 30.0)
        gadgetron.begin(header, **({} if when == "waits" else {"first": first}))
        gadgetron.send(line())
        assert gadgetron.mrd.read(2) == struct.pack("<H", ACQUISITION)
        gadgetron.mrd._item(ACQUISITION)
        if when == "computes with a full queue":
            gadgetron.socket.settimeout(0.3)
            with contextlib.suppress(ReconError):
                gadgetron.send(*itertools.repeat(line(coils=128, samples=1024), 500))
        if when == "has got everything":
            gadgetron.close()
        time.sleep(0.2)
        assert process.poll() is None
        if reset:
            gadgetron.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        gadgetron.socket.close()
        start = time.monotonic()
        code = process.wait(10.0)
        assert time.monotonic() - start < 3.0 + (first if first < 30.0 else 0.0)
        assert code != 0
        assert "Traceback" not in process.stderr.read()  # type: ignore[union-attr]


@pytest.mark.parametrize("place", ["in the stream", "in a message"])
def test_gadget_in_a_thread_ends_when_the_peer_vanishes(header: bytes, place: str) -> None:
    seen: list[BaseException] = []

    class Watching(Gadget):
        def process(self, items: Iterator[Any]) -> Iterator[Any]:
            try:
                yield from items
            except BaseException as error:
                seen.append(error)
                raise

    with in_process(Watching()) as (gadgetron, _):
        gadgetron.begin(header)
        gadgetron.send(line())
        assert gadgetron.mrd.read(2) == struct.pack("<H", ACQUISITION)
        gadgetron.mrd._item(ACQUISITION)
        if place == "in a message":
            gadgetron.mrd.write(struct.pack("<H", ACQUISITION) + bytes(100))
    assert [type(error) for error in seen] == [PeerGone]


# --- what the wire can carry ---------------------------------------------------------------------------------------


class Sends(Gadget):
    """Sends these items at the end of its input."""

    items: ClassVar[list[Any]] = []

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for _ in items:
            pass
        yield from self.items


def sent_and_received(header: bytes, monkeypatch: pytest.MonkeyPatch, item: Any) -> Any:
    monkeypatch.setattr(Sends, "items", [item])
    with in_process(Sends()) as (gadgetron, raised):
        gadgetron.begin(header)
        gadgetron.close()
        answers = gadgetron.answers()
    assert not raised
    assert len(answers) == 2 and answers[1] == (CLOSE, None), answers
    return answers[0][1]


def headers(*shape: int, kind: type = ismrmrd.AcquisitionHeader) -> Any:
    array = np.empty(shape, object)
    for place in np.ndindex(*shape):
        array[place] = kind()
    return array


def recon_buffer(kspace: Any, trajectory: Any = None, density: Any = None) -> ReconBuffer:
    _, e1, e2, _, *rest = kspace.shape
    sampling = SamplingDescription()
    sampling.encoded_matrix[:] = (kspace.shape[0], e1, e2)
    return ReconBuffer(kspace, trajectory, density, headers(e1, e2, *rest), sampling)


def random_complex(*shape: int) -> Any:
    generator = np.random.default_rng(0)
    return generator.standard_normal(shape) + 1j * generator.standard_normal(shape)


def test_recon_data_of_other_precision_is_sent(header: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    kspace = random_complex(8, 6, 1, 3, 1, 1, 1)
    trajectory, density = np.arange(2 * 8 * 6.0).reshape(2, 8, 6, 1, 1, 1), np.ones((8, 6, 1, 1, 1), np.int64)
    bit = ReconBit(recon_buffer(kspace, trajectory, density), recon_buffer(kspace[:, :2].real))
    got = sent_and_received(header, monkeypatch, ReconData([bit])).bits[0]
    for array, expected, kind in (
        (got.data.data, kspace, np.complex64),
        (got.data.trajectory, trajectory, np.float32),
        (got.data.density, density, np.float32),
        (got.ref.data, kspace[:, :2].real, np.complex64),
    ):
        assert array.dtype == kind
        np.testing.assert_allclose(array, expected, rtol=1e-6)
        assert array.flags.writeable
    assert list(got.data.sampling.encoded_matrix) == [8, 6, 1]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.complex128, np.complex64])
def test_image_array_of_any_type_and_text_is_sent(
    header: bytes, monkeypatch: pytest.MonkeyPatch, kind: type[np.generic]
) -> None:
    pixels = (100 * random_complex(8, 6, 1, 1, 2, 1, 1).real).astype(kind)
    meta = [str(ismrmrd.Meta({"comment": f"Prüfkörper β {n}", "number": str(n)}).serialize()) for n in range(2)]
    array = ImageArray(pixels, headers(2, 1, 1, kind=ismrmrd.ImageHeader), meta, None, None)
    got = sent_and_received(header, monkeypatch, array)
    assert got.data.dtype == np.complex64
    np.testing.assert_allclose(got.data, pixels, rtol=1e-6)
    for n, text in enumerate(got.meta):
        assert ismrmrd.Meta.deserialize(text)["comment"] == f"Prüfkörper β {n}"


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.complex64])
def test_image_with_text_is_sent(header: bytes, monkeypatch: pytest.MonkeyPatch, kind: type[np.generic]) -> None:
    image = ismrmrd.Image.from_array(np.arange(12).reshape(1, 1, 3, 4).astype(kind))
    image.attribute_string = ismrmrd.Meta({"comment": "Prüfkörper β"}).serialize()
    got = sent_and_received(header, monkeypatch, image)
    np.testing.assert_array_equal(got.data, image.data)
    assert ismrmrd.Meta.deserialize(got.attribute_string)["comment"] == "Prüfkörper β"


class DoublesMaps(Gadget):
    """Changes the coil maps it receives, in place."""

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            for bit in item.bits:
                if hasattr(bit, "coil_maps"):
                    bit.coil_maps *= 2
            yield item


def test_coil_maps_make_the_round_trip(header: bytes) -> None:
    bits = [ReconBit(recon_buffer(random_complex(8, 6, 1, 3, 1, 1, 1).astype(np.complex64))) for _ in range(3)]
    bits[0].coil_maps, bits[0].calibration = random_complex(8, 6, 1, 3, 2, 1, 1), "earlier repetition"
    bits[2].coil_maps, bits[2].calibration = random_complex(8, 6, 1, 3, 1, 1, 1), "completed"
    bits[2].ref = recon_buffer(random_complex(8, 2, 1, 3, 1, 1, 1))
    with in_process(DoublesMaps()) as (gadgetron, raised):
        gadgetron.begin(header)
        gadgetron.send(ReconData(bits))
        gadgetron.close()
        (_, got), (last, _) = gadgetron.answers()
    assert last == CLOSE and not raised
    assert [hasattr(bit, "coil_maps") for bit in got.bits] == [True, False, True]
    for place in (0, 2):
        np.testing.assert_allclose(got.bits[place].coil_maps, 2 * bits[place].coil_maps, rtol=1e-6)
        assert got.bits[place].calibration == bits[place].calibration
    for received, sent in zip(got.bits, bits, strict=True):
        np.testing.assert_array_equal(received.data.data, sent.data.data)
    np.testing.assert_allclose(got.bits[2].ref.data, bits[2].ref.data, rtol=1e-6)


def buffered(raw: Path) -> tuple[Any, list[ReconData]]:
    """The scan's header and its ReconData, as the first gadgets of a chain make them."""
    with RawScan(raw) as scan:
        chain = read_chain("cg_sense")
        del chain.nodes[[node.names[0] for node in chain.nodes].index("reconstruction") :]
        return scan.header, list(chain.run(scan.header, scan.acquisitions()))


def test_espirit_in_a_process_sends_its_maps(raw: Path, header: bytes) -> None:
    scan_header, data = buffered(raw)
    assert len(data) == 2
    stage = external_process("gadgets.espirit", "Espirit", configuration(map_sets=2), header)
    across = list(stage(iter(data)))
    gadget = Espirit()
    gadget.configure(scan_header, {"map_sets": "2"})
    for got, expected in zip(across, gadget.process(iter(data)), strict=True):
        assert got.bits[0].coil_maps.shape == (32, 32, 1, 4, 2, 1, 1)
        assert got.bits[0].calibration == "measured"
        np.testing.assert_allclose(got.bits[0].coil_maps, expected.bits[0].coil_maps, atol=1e-5)
        np.testing.assert_array_equal(got.bits[0].data.data, expected.bits[0].data.data)


# --- foreign gadgets and peers -------------------------------------------------------------------------------------


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


# --- a warm listener -----------------------------------------------------------------------------------------------


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


def pixels(images: list[Any]) -> Any:
    return np.stack([image.data for image in sorted(images, key=lambda image: image.slice)]).astype(np.int32)


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


def test_listener_that_is_told_to_stop_finishes_its_scan(header: bytes) -> None:
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


# --- processes and threads give the same images --------------------------------------------------------------------


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
