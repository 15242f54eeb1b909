"""What a client sends is read within limits of size and time."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ismrmrd
import pytest
from gadgetron.external import constants

from gadgets.stream import PeerGone, ReconError
from pipelines.raw import RawScan
from pipelines.server.intake import ScanReader
from pipelines.server.listener import Server
from tests.pipelines.server.serving import (
    CLOSE,
    LIMITS,
    acquisition_of,
    answer,
    connected,
    error_of,
    exchanged,
    memory,
    message,
    named,
    reset,
    serving,
    stream,
    text,
    until,
    works,
)


def with_header(raw: Path, change: Callable[[bytes], bytes]) -> bytes:
    with RawScan(raw) as scan:
        return named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, change(scan.header_xml)) + CLOSE


def acquisition_head(samples: int, coils: int, dimensions: int = 0) -> bytes:
    head = ismrmrd.AcquisitionHeader()
    head.version, head.number_of_samples, head.active_channels = 1, samples, coils
    head.trajectory_dimensions = dimensions
    return message(constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION, bytes(head))


def huge_text(number: int) -> bytes:
    return message(number, struct.pack("<I", 2**32 - 1))


ENTITIES = b'<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><a>&b;</a>'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (lambda raw: huge_text(2), "a chain of 4294967295 bytes is above the limit"),
        (lambda raw: named("cg_sense") + huge_text(3), "a header of 4294967295 bytes is above the limit"),
        (lambda raw: with_header(raw, lambda xml: xml)[:-2] + huge_text(5), "a text of 4294967295 bytes"),
        (lambda raw: with_header(raw, lambda xml: xml)[:-2] + acquisition_head(65535, 65535), "an acquisition of"),
        (lambda raw: with_header(raw, lambda xml: xml)[:-2] + acquisition_head(65535, 1, 65535), "an acquisition of"),
        (lambda raw: with_header(raw, lambda xml: xml)[:-2] + message(4242), "a message of kind 4242 came among"),
        (lambda raw: with_header(raw, lambda xml: xml)[:-2] + message(1022), "a message of kind 1022 came among"),
        (lambda raw: named("cg_sense") + message(1008), "where the ISMRMRD header (3) is due"),
        (lambda raw: with_header(raw, lambda xml: b"<x/>"), "the scan: its ISMRMRD header cannot be read"),
        (lambda raw: with_header(raw, lambda xml: ENTITIES), "the scan: its ISMRMRD header cannot be read"),
        (
            lambda raw: with_header(raw, lambda xml: xml.replace(b"<x>32</x>", b"<x>65535</x>").replace(
                b"<y>32</y>", b"<y>65535</y>")),
            "would need about",
        ),
    ],
)  # fmt: skip
def test_streams_that_are_refused(content: Callable[[Path], bytes], match: str, raw: Path, server: Server) -> None:
    before = memory(server)
    assert match in error_of(exchanged(server, content(raw)))
    assert memory(server) - before < 300e6
    works(server, raw)


def test_texts_that_are_too_large_together_are_refused(raw: Path) -> None:
    padding = b'{"parameters": {}}'.ljust(2**20)
    texts = 2 * text(constants.GADGET_MESSAGE_TEXT, padding)  # each of them, and both without the header, would do
    with serving(limits=replace(LIMITS, text_mib=2.0)) as server:
        head = named("cg_sense") + stream(raw)[1026:].partition(struct.pack("<H", 1008))[0]
        assert " bytes are above the limit of 2 MiB" in error_of(exchanged(server, head + texts))
        works(server, raw)


def test_a_scan_that_is_too_large_is_refused(raw: Path) -> None:
    with serving(limits=replace(LIMITS, scan_gib=1e-5)) as server:
        assert "the scan is above the limit of 1e-05 GiB" in error_of(exchanged(server, stream(raw)))


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "genrecon"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "began with an HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01", "began with a message of kind 790"),
        (b"", "connected and left"),
        (b"\x01", "connected and left"),
        (b"\x01\x00cg", "it left in the middle of its request"),
    ],
)
def test_clients_of_other_protocols_give_one_log_line(
    content: bytes, match: str, raw: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "genrecon"), serving() as server:
        with connected(server) as sock:
            sock.sendall(content)
            with contextlib.suppress(OSError):  # the server may end it first
                sock.shutdown(socket.SHUT_WR)
            assert answer(sock) == b""
        (line,) = [line for line in lines_of(caplog) if "127.0.0.1:" in line]
    assert match in line


@pytest.mark.slow
def test_half_open_connections_end(raw: Path) -> None:
    with serving(limits=replace(LIMITS, idle_s=0.3)) as server:
        for begun in (b"", b"\x01", named("cg_sense"), stream(raw)[:5000]):
            with connected(server) as sock:
                sock.sendall(begun)
                found = answer(sock)
                assert not found or "nothing came for 0.3 s" in error_of(found)
        works(server, raw)


@pytest.mark.parametrize("begun", [message(1), named("cg_sense")], ids=["two bytes", "a chain"])
def test_a_client_without_a_header_holds_no_slot(begun: bytes, raw: Path) -> None:
    with serving(scans=1, waiting=0) as server, connected(server) as sock:
        sock.sendall(begun)
        works(server, raw)


@pytest.mark.slow
def test_bytes_now_and_then_do_not_prolong_the_handshake() -> None:
    with serving(limits=replace(LIMITS, handshake_s=0.5)) as server, connected(server) as sock:
        sock.sendall(message(1))
        with contextlib.suppress(OSError):
            for _ in range(20):
                sock.sendall(b"c")
                time.sleep(0.1)
        assert "chain and header did not come within 0.5 s" in error_of(answer(sock))


@pytest.mark.slow
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


def test_no_data_after_the_header_holds_no_slot(raw: Path) -> None:
    with serving(limits=replace(LIMITS, idle_s=0.5)) as server, connected(server) as sock:
        sock.sendall(stream(raw).partition(struct.pack("<H", 1008))[0])
        assert server.queue.running() == 0
        assert error_of(answer(sock)) == "no data came within 0.5 s after the header"


def test_a_client_that_ends_its_half_too_early_gets_an_error(unfinished: bytes) -> None:
    with serving() as server, connected(server) as sock:
        sock.sendall(unfinished)
        sock.shutdown(socket.SHUT_WR)
        found = answer(sock)
    assert b"ERROR: the client closed the connection before its CLOSE message" in found and found.endswith(CLOSE)


def test_compressed_acquisitions_are_refused() -> None:
    """The bytes after the header of one are of another layout."""
    start = struct.calcsize("<H")
    head = ismrmrd.AcquisitionHeader.from_buffer_copy(acquisition_of(64)[start:])
    head.set_flag(ismrmrd.ACQ_COMPRESSION2)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = ScanReader(theirs, LIMITS, constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION)
        ours.sendall(bytes(head) + struct.pack("<I", 3) + b"abc")
        reader.start()
        try:
            with pytest.raises(ReconError, match=r"acquisition 0 is compressed \(a flag ACQ_COMPRESSION\)"):
                list(reader)
        finally:
            reader.stop()


def test_a_client_that_dies_while_the_queue_is_full_is_noticed() -> None:
    """Nobody takes the lines, as while a slice is computed; more than the queue holds are sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        with theirs:
            reader = ScanReader(theirs, LIMITS, constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION)
            reader.start()
            try:
                lines = acquisition_of(2**20)[2:] + 40 * acquisition_of(2**20)
                ours.settimeout(1.0)
                with pytest.raises(TimeoutError):
                    ours.sendall(lines)
                reset(ours)
                until(lambda: reader._error is not None)
                assert str(reader._error) == "the client is gone" and isinstance(reader._error, PeerGone)
            finally:
                reader.stop()
