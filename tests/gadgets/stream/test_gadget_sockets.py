"""Gadgets on real sockets: errors reach the peer, and a peer that ends is noticed."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from gadgetron.external import constants

from gadgets.stream import Gadget, PeerGone, ReconError
from tests.gadgets.stream import socket_gadgets
from tests.gadgets.stream.gadgetron_side import ACQUISITION, CLOSE, ERROR, MODULE, Gadgetron, in_process, line

# numpy warns when gadgetron-python makes an object array of ctypes headers.
pytestmark = pytest.mark.filterwarnings("ignore:.*PEP3118:RuntimeWarning:gadgetron.external.readers")
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, as the kernel does for a killed process


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


@pytest.mark.slow
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


@pytest.mark.slow
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
