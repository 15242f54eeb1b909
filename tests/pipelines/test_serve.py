"""The server on real sockets: the same images as a replay, and nothing that a client does stops it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import psutil
import pytest
from gadgetron.external import constants, writers
from typer.testing import CliRunner

from benchmarks.fuzz import Recorded
from gadgets.finish import meta_of, meta_values
from gadgets.stream import ReconError
from pipelines.chain import read_chain, shipped_chains
from pipelines.cli import app
from pipelines.intake import Limits, plain_name
from pipelines.memory import ITEM_BYTES, MemoryCheck
from pipelines.raw import RawScan
from pipelines.replay import read_images, replay
from pipelines.send import send
from pipelines.serve import Server, ServeSettings
from pipelines.simulate import SimulationSettings, simulate, write_raw
from pipelines.status import StatusServer
from tests.gadgets.pacs_servers import Scp, free_port

SCAN = SimulationSettings(
    matrix=(32, 32, 1), coils=4, slices=3, sampling="uniform", acceleration=2, calibration_lines=12
)
LIMITS = Limits(idle_s=5.0, scan_s=60.0)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "scan.h5"
    write_raw(path, simulate(SCAN))
    return path


@contextlib.contextmanager
def serving(**changes: Any) -> Iterator[Server]:
    server = Server(ServeSettings(**({"port": 0, "limits": LIMITS, "grace_s": 10.0} | changes)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(5)
        assert not thread.is_alive()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


def address(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


def connected(server: Server) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


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


def error_of(found: bytes) -> str:
    number, size = struct.unpack("<HQ", found[:10])
    assert number == constants.GADGET_MESSAGE_ERROR
    assert found[10 + size :] == CLOSE
    return found[10 : 10 + size].decode()


def exchanged(server: Server, content: bytes) -> bytes:
    with connected(server) as sock:
        sock.sendall(content)
        return answer(sock)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def works(server: Server, raw: Path) -> None:
    assert send(raw, "cg_sense", address(server), timeout=30).images == SCAN.slices


# --- the same images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["name", "installed name", "value"])
def test_images_are_those_of_a_replay(by: str, raw: Path, server: Server, tmp_path: Path) -> None:
    config = {"name": "l1_wavelet", "installed name": "genrecon_l1_wavelet.xml", "value": str(tmp_path / "l1.xml")}[by]
    (tmp_path / "l1.xml").write_bytes(read_chain("l1_wavelet").to_xml())
    expected = replay(raw, "l1_wavelet", tmp_path / "replay")
    result = send(raw, config, address(server), out=tmp_path / "sent", timeout=30)
    assert result.images == expected.images == SCAN.slices
    for ours, theirs in zip(read_images(tmp_path / "sent", 1), read_images(tmp_path / "replay", 1), strict=True):
        assert np.array_equal(ours.data, theirs.data)
        assert bytes(ours.getHead())[:-4] == bytes(theirs.getHead())[:-4]  # but for the length of the meta


def test_images_come_as_slices_finish(raw: Path, server: Server) -> None:
    content = stream(raw)
    with connected(server) as sock:
        sock.sendall(content[: -len(CLOSE)])  # the scan is not over
        assert struct.unpack("<H", sock.recv(2)) == (constants.GADGET_MESSAGE_ISMRMRD_IMAGE,)
        sock.sendall(CLOSE)
        assert answer(sock).endswith(CLOSE)


def test_fire(raw: Path, server: Server, tmp_path: Path) -> None:
    parameters = {
        "config": "cg_sense",
        "customconfig": "",
        "generative_recon.method": "zero_filled",
        "sendoriginal": True,
    }
    result = send(raw, "unknown_to_us", address(server), out=tmp_path / "out", parameters=parameters, timeout=30)
    assert result.images == SCAN.slices
    metas = [meta_of(image.attribute_string) for image in read_images(tmp_path / "out", 1, [0, 1, 2])]
    assert len({(*meta_values(one, "WindowCenter"), *meta_values(one, "WindowWidth")) for one in metas}) == 1
    (image,) = read_images(tmp_path / "out", 1, [0])
    meta = metas[0]
    assert meta_values(meta, "GenreconMethod") == ["zero_filled"]
    for name in ("DataRole", "ImageProcessingHistory", "WindowCenter", "WindowWidth", "Keep_image_geometry"):
        assert meta_values(meta, name)
    assert [float(value) for value in meta_values(meta, "ImageRowDir")] == list(image.read_dir)
    assert len(meta_values(meta, "ImageColumnDir")) == 3


def test_fire_parameters_instead_of_a_chain(raw: Path, server: Server) -> None:
    parameters = json.dumps({"parameters": {"config": "cg_sense", "customconfig": ""}}).encode()
    found = exchanged(server, stream(raw, text(constants.GADGET_MESSAGE_CONFIG, parameters)))
    assert found[:2] == message(constants.GADGET_MESSAGE_ISMRMRD_IMAGE) and found.endswith(CLOSE)
    found = exchanged(server, stream(raw, text(constants.GADGET_MESSAGE_CONFIG, b"{}")))
    assert "letters that no name of a chain has" in error_of(found)


def test_own_chains_and_a_time_budget(raw: Path, tmp_path: Path) -> None:
    chains = tmp_path / "chains"
    chains.mkdir()
    own = read_chain("wkgm")
    own.set("generative_recon", "steps", "2")
    (chains / "site.xml").write_bytes(own.to_xml())
    with serving(chains=chains, time_budget_s=1e-3) as server:
        send(raw, "site", address(server), out=tmp_path / "out", timeout=60)
        with pytest.raises(ReconError, match="there is no chain 'other'; the server has: site, cg_sense"):
            send(raw, "other", address(server), timeout=30)
    (image,) = read_images(tmp_path / "out", 1, [0])
    assert any("time_budget_s" in value for value in meta_values(meta_of(image.attribute_string), "GenreconWarning"))


def test_dicom_goes_where_the_server_says(raw: Path, tmp_path: Path) -> None:
    with serving(dicom=tmp_path / "dicom") as server:
        works(server, raw)
    assert len(list((tmp_path / "dicom").rglob("*.dcm"))) == SCAN.slices


def test_a_query_without_data_is_answered(server: Server) -> None:
    assert exchanged(server, named("cg_sense") + CLOSE) == CLOSE


# --- what is refused -------------------------------------------------------------------------------------------------


def changed(change: Callable[[str], str]) -> bytes:
    return text(constants.GADGET_MESSAGE_CONFIG, change(read_chain("cg_sense").to_xml().decode()).encode())


ENTITIES = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><configuration>&b;</configuration>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><configuration>&x;</configuration>'


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (named("../../etc/passwd"), "letters that no name of a chain has"),
        (named("/etc/passwd"), "letters that no name of a chain has"),
        (named("..\\chain"), "letters that no name of a chain has"),
        (named(""), "letters that no name of a chain has"),
        (named("default"), "there is no chain 'default'; the server has: cg_sense"),
        (changed(lambda xml: xml.replace('"gadgets.reconstruction"', '"os"')), "external os Reconstruction is not"),
        (changed(lambda xml: xml.replace('target="Reconstruction"', 'target="run_stages"')), "is not among those"),
        (changed(lambda xml: xml.replace("NoiseAdjustGadget", "CPUGriddingReconGadget")), "is not among those"),
        (
            changed(lambda xml: xml.replace('<execute name="gadgets.reconstruction"', '<connect port="1"')),
            "may not make the server connect",
        ),
        (
            changed(lambda xml: xml.replace('"generative_recon.method"', '"generative_recon.prior"')),
            "'generative_recon.prior' names files or hosts of the server",
        ),
        (changed(lambda xml: xml.replace('type="python"', 'type="matlab"')), "only python runs here"),
        (text(2, ENTITIES.encode()), "not an XML chain"),
        (text(2, EXTERNAL.encode()), "not an XML chain"),
        (text(2, b"<configuration>"), "not an XML chain"),
        (text(2, b'<?xml version="1.0" encoding="uQf-8"?><a/>'), "not an XML chain"),
    ],
)
def test_chains_that_are_refused(config: bytes, match: str, raw: Path, server: Server) -> None:
    imported = set(sys.modules)
    found = error_of(exchanged(server, stream(raw, config)))
    assert match in found and "\n" not in found
    assert not {"os.path.passwd", "ctypes.wintypes"} & (set(sys.modules) - imported)


def test_errors_are_one_printable_line(raw: Path, server: Server) -> None:
    odd = changed(lambda xml: xml.replace("NoiseAdjustGadget", "Noise\n\n[ERROR] Gadget" + 5000 * "x"))
    found = error_of(exchanged(server, stream(raw, odd)))
    assert found.isprintable() and found.startswith("gadget Noise [ERROR] Gadgetxxx") and len(found) <= 600


def test_dicom_folders_of_clients_do_not_count(raw: Path, tmp_path: Path) -> None:
    elsewhere = changed(lambda xml: xml.replace("/tmp/genrecon-dicom", str(tmp_path / "elsewhere")))
    with serving(dicom=tmp_path / "dicom") as server:
        exchanged(server, stream(raw, elsewhere))
    assert [path.name for path in tmp_path.iterdir()] == ["dicom"]


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"generative_recon.method": "magic"}, "property 'method' is 'magic'"),
        ({"generative_recon.prior": "/etc/passwd"}, "names files or hosts of the server"),
        ({"dicom_output.folder": "/etc"}, "names files or hosts of the server"),
        ({"nobody.method": "x"}, "no gadget is called 'nobody'"),
        ({"generative_recon.method": ["x"]}, "neither a text nor a number"),
        ({"config": "../x"}, "letters that no name"),
    ],
)
def test_parameters_that_are_refused(parameters: dict[str, Any], match: str, raw: Path, server: Server) -> None:
    content = stream(raw, parameters=json.dumps({"parameters": parameters}).encode())
    found = exchanged(server, content)
    number, size = struct.unpack("<HI", found[:6])
    assert number == constants.GADGET_MESSAGE_TEXT and found[6 : 6 + size].startswith(b"ERROR    ")
    assert match in error_of(found[6 + size :])


@pytest.mark.parametrize("body", [b"not json", b"[1]", b'{"parameters": 3}', b"[" * 100000, b"\xff"])
def test_texts_that_are_no_parameters_are_left_alone(body: bytes, raw: Path, server: Server) -> None:
    found = exchanged(server, stream(raw, parameters=body))
    assert found.endswith(CLOSE) and found[:2] == message(constants.GADGET_MESSAGE_ISMRMRD_IMAGE)


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
        (lambda raw: with_header(raw, lambda xml: b"<x/>"), "the ISMRMRD header cannot be read"),
        (lambda raw: with_header(raw, lambda xml: ENTITIES.encode()), "the ISMRMRD header cannot be read"),
        (
            lambda raw: with_header(raw, lambda xml: xml.replace(b"<x>32</x>", b"<x>65535</x>").replace(
                b"<y>32</y>", b"<y>65535</y>")),
            "would need about",
        ),
    ],
)  # fmt: skip
def test_streams_that_are_refused(content: Callable[[Path], bytes], match: str, raw: Path, server: Server) -> None:
    before = psutil.Process().memory_info().rss
    assert match in error_of(exchanged(server, content(raw)))
    assert psutil.Process().memory_info().rss - before < 300e6
    works(server, raw)


def contrast_beyond_the_header(header: Any, lines: list[Any]) -> None:
    header.encoding[0].encodingLimits.contrast = None
    lines[20].idx.contrast = 65535


def contrasts_in_the_header(header: Any, _: list[Any]) -> None:
    header.encoding[0].encodingLimits.contrast = ismrmrd.xsd.limitType(minimum=0, maximum=65535, center=0)


def calibration_beyond_the_matrix(_: Any, lines: list[Any]) -> None:
    line = next(line for line in lines if line.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION))
    line.idx.kspace_encode_step_1, line.idx.kspace_encode_step_2 = 65535, 60


def noise_of_many_coils(_: Any, lines: list[Any]) -> None:
    noise = ismrmrd.Acquisition.from_array(np.ones((16000, 2), np.complex64))
    noise.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    lines.insert(0, noise)


def field_of_view(millimetres: float) -> Callable[[Any, list[Any]], None]:
    def change(header: Any, _: list[Any]) -> None:
        header.encoding[0].reconSpace.fieldOfView_mm.y = millimetres

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (contrast_beyond_the_header, "GiB of memory, the limit is 1 GiB"),
        (contrasts_in_the_header, "GiB of memory, the limit is 1 GiB"),
        (calibration_beyond_the_matrix, "GiB of memory, the limit is 1 GiB"),
        (noise_of_many_coils, "GiB of memory, the limit is 1 GiB"),
        (field_of_view(1e-3), "GiB of memory, the limit is 1 GiB"),
        (field_of_view(5e-324), "out of all proportion"),
        (field_of_view(float("nan")), "all must be positive"),
    ],
)
def test_memory_is_not_taken_for_what_header_or_lines_claim(
    change: Callable[[Any, list[Any]], None], match: str, raw: Path
) -> None:
    simulation = simulate(replace(SCAN, calibration="separate"))
    header, lines = simulation.header, list(simulation.acquisitions())
    change(header, lines)
    wire = Recorded()
    wire.data = named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, ismrmrd.xsd.ToXML(header).encode())
    for line in lines:
        writers.write_acquisition(wire, line)
    with serving(limits=replace(LIMITS, memory_gib=1.0)) as server:
        before = psutil.Process().memory_info().rss
        assert match in error_of(exchanged(server, wire.data + CLOSE))
        assert psutil.Process().memory_info().rss - before < 300e6
        works(server, raw)


def test_a_chain_of_too_many_gadgets_is_refused(raw: Path, server: Server) -> None:
    gadget = b"<gadget><dll>gadgetron_mricore</dll><classname>ImageFinishGadget</classname></gadget>"
    xml = read_chain("cg_sense").to_xml().replace(b"</stream>", 1000 * gadget + b"</stream>")
    found = exchanged(server, stream(raw, text(constants.GADGET_MESSAGE_CONFIG, xml)))
    assert "gadgets; 64 are allowed" in error_of(found)
    works(server, raw)


def test_a_dimension_that_is_none_is_told(raw: Path, server: Server) -> None:
    xml = read_chain("cg_sense").to_xml().replace(b'value="contrast"', b'value="contra|t"')
    found = exchanged(server, stream(raw, text(constants.GADGET_MESSAGE_CONFIG, xml)))
    assert "property 'N_dimension' is 'contra|t'" in error_of(found)
    works(server, raw)


def test_buffers_and_texts_that_pile_up_are_refused(raw: Path) -> None:
    simulation = simulate(replace(SCAN, matrix=(128, 128, 1)))
    line = next(simulation.acquisitions())
    memory = MemoryCheck(simulation.header, 1.0, read_chain("cg_sense"))
    with pytest.raises(ReconError, match="GiB of memory, the limit is 1 GiB"):
        for phase in range(1000):  # each has a buffer of its own
            line.idx.phase = phase
            memory(line, 0)
    padding = b'{"parameters": {}}'.ljust(2**20)
    texts = 3 * text(constants.GADGET_MESSAGE_TEXT, padding)
    with serving(limits=replace(LIMITS, text_mib=2.0)) as server:
        head = named("cg_sense") + stream(raw)[1026:].partition(struct.pack("<H", 1008))[0]
        assert "texts of 3145728 bytes are above the limit of 2 MiB" in error_of(exchanged(server, head + texts))
        works(server, raw)


def test_lines_that_wait_for_their_image_count_as_memory() -> None:
    simulation = simulate(replace(SCAN, slices=2))
    chain, lines = read_chain("cg_sense"), list(simulation.acquisitions())
    memory = MemoryCheck(simulation.header, 1.0, chain)
    each = lines[0].data.nbytes + ITEM_BYTES
    enough = 2**30 // each
    for number in range(3 * enough):  # an image now and then
        memory(lines[0], number // (enough // 2))
    with pytest.raises(ReconError, match=r"would need about 1 GiB of memory, the limit is 1 GiB; raise --memory"):
        for _ in range(enough):
            memory(lines[0], -1)


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
    ],
)
def test_what_is_no_mrd_client_costs_one_line(
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
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
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
        assert server.totals == {"scans": 17, "failed": 0, "refused": 0, "images": 17 * SCAN.slices}


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
        with pytest.raises(ReconError, match="no Gadgetron answers there"):
            send(raw, "cg_sense", address(server), timeout=5)
        running.sendall(content[20000:])
        assert answer(running).endswith(CLOSE)
        stopper.join(10)
        assert not stopper.is_alive()


def test_ports_that_are_taken() -> None:
    with serving() as server, pytest.raises(ReconError, match=r"cannot listen on 127\.0\.0\.1"):
        Server(ServeSettings(port=server.port))


# --- status ----------------------------------------------------------------------------------------------------------


def fetched(port: int, path: str, host: str = "localhost") -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as found:
            return found.status, found.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_health_metrics_and_page(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "pacs").mkdir()
    (tmp_path / "pacs" / "one.dcm").touch()
    with serving() as server:
        status = StatusServer(server, 0, spool=tmp_path)
        try:
            works(server, raw)
            exchanged(server, stream(raw, named("<script>")))
            assert json.loads(fetched(status.port, "/health")[1]) == {"status": "ok", "running": 0, "waiting": 0}
            metrics = fetched(status.port, "/metrics")[1].decode()
            assert "genrecon_images_total 3.0" in metrics and "genrecon_failed_total 1.0" in metrics
            assert "genrecon_spool_files 1.0" in metrics
            found = fetched(status.port, "/")[1].decode()
            assert "cg_sense" in found and "1 DICOM files wait" in found and "<script>" not in found
            assert fetched(status.port, "/scan/1.png")[1].startswith(b"\x89PNG")
            for missing in ("/scan/99.png", "/scan/2.png", "/../etc/passwd", "/x"):
                assert fetched(status.port, missing)[0] == 404
            assert fetched(status.port, "/", "127.0.0.1:9080")[0] == fetched(status.port, "/", "[::1]:9080")[0] == 200
            for stranger in ("attacker.example", "attacker.example:9080", "["):
                assert fetched(status.port, "/", stranger)[0] == 403
            server.stopping = True
            assert fetched(status.port, "/health")[0] == 503
        finally:
            status.close()


# --- commands --------------------------------------------------------------------------------------------------------


def test_the_commands(raw: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0", "--warm", "", "--json-logs"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())
        port = line["message"].rpartition(" ")[2]
        arguments = ["send", str(raw), "--host", "127.0.0.1", "--port", port, "--timeout", "30"]
        sent = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out")])
        assert sent.exit_code == 0 and sent.output.startswith("3 images, the first after "), sent.output
        failed = CliRunner().invoke(app, [*arguments, "-c", "nothing"])
        assert isinstance(failed.exception, ReconError) and "there is no chain 'nothing'" in str(failed.exception)
        with RawScan(raw) as scan:  # what cannot be converted is not told: it may be of the patient
            odd = re.sub(rb"(<patientBirthdate>)[^<]*", rb"\g<1>1970-41-01", scan.header_xml)
            assert b"1970-41-01" in odd
        with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as sock:
            sock.sendall(named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, odd) + CLOSE)
            answer(sock)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 0 and "1970" not in rest
    lines = [json.loads(one) for one in rest.splitlines()]
    assert {"info", "warning", "error"} >= {line["level"] for line in lines}
    with RawScan(raw) as scan:
        subject = scan.header.subjectInformation
        secrets = [subject.patientName, subject.patientID] if subject else []
    assert not any(secret and secret in rest for secret in secrets)


@pytest.mark.parametrize("name", [*shipped_chains(), "genrecon_cg_sense.xml", "a-b_c.1"])
def test_names_of_chains(name: str) -> None:
    assert plain_name(name)


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
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
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
