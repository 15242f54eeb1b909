"""The server on real sockets: the same images as a replay, and nothing that a client does stops it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest
from gadgetron.external import constants, writers
from typer.testing import CliRunner

from benchmarks.fuzz import Recorded
from gadgets.dicom.destination import Destination
from gadgets.dicom.spool import add_to_spool
from gadgets.images import meta_of, meta_values
from gadgets.stream import ReconError
from pipelines.chain import Chain, read_chain, shipped_chains
from pipelines.cli import app
from pipelines.raw import RawScan
from pipelines.replay import DICOM_MODULE, read_images, replay
from pipelines.send import send
from pipelines.server.intake import Request
from pipelines.server.listener import Server
from pipelines.server.memory import ITEM_BYTES, MemoryCheck
from pipelines.server.scan_process import chain_of, plain_name
from pipelines.server.settings import Limits, ServeSettings
from pipelines.server.status import REQUESTS, StatusServer
from pipelines.simulation import simulate
from tests.paths import ROOT
from tests.pipelines.server.serving import (
    CLOSE,
    LIMITS,
    SCAN,
    address,
    answer,
    connected,
    error_of,
    exchanged,
    fetched,
    fire_error_of,
    memory,
    message,
    named,
    serving,
    stream,
    text,
    until,
    works,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


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
    assert "letters that no name of a chain has" in fire_error_of(found)


def test_a_fire_client_without_parameters_is_told_errors_so_that_it_shows_them(raw: Path, server: Server) -> None:
    with RawScan(raw) as scan:
        header = text(constants.GADGET_MESSAGE_HEADER, scan.header_xml + b"\0")
    found = exchanged(server, named("no_such") + header + CLOSE)
    assert "there is no chain 'no_such'" in fire_error_of(found)


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


def test_ipv6(raw: Path) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").is_file():
        pytest.skip("this machine has no IPv6: the server is not tried on ::1")
    with serving(bind="::1") as server:
        status = StatusServer(server, 0, "::1")
        try:
            assert send(raw, "cg_sense", f"[::1]:{server.port}", timeout=30).images == SCAN.slices
            assert server.scans[-1].peer.startswith("[::1]:")
            with urllib.request.urlopen(f"http://[::1]:{status.port}/health", timeout=10) as found:
                assert found.status == 200
        finally:
            status.close()


def test_a_scan_that_ends_too_early_is_told_of(raw: Path, server: Server) -> None:
    with RawScan(raw) as scan:
        lines = list(scan.acquisitions())
    for kept, told in (
        (len(lines) - 3, "1 of 3 slices have no line flagged ACQ_LAST_IN_SLICE; the scan may be incomplete"),
        (len(lines) // 3, "1 of 3 slices of the header came; the scan may be incomplete"),
    ):
        wire = Recorded()
        wire.data = named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, scan.header_xml)
        for line in lines[:kept]:
            writers.write_acquisition(wire, line)
        found = exchanged(server, wire.data + CLOSE)
        assert f"WARNING: AcquisitionAccumulateTriggerGadget: {told}".encode() in found and found.endswith(CLOSE)
    assert b"incomplete" not in exchanged(server, stream(raw))


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
            "'generative_recon.prior' is for the server's own chains",
        ),
        (
            changed(lambda xml: xml.replace('name="anonymize" value="false"', 'name="pacs_timeout_s" value="3600"')),
            "'pacs_timeout_s' is for the server's own chains",
        ),
        (
            changed(lambda xml: xml.replace('name="anonymize" value="false"', 'name="calling_ae" value="OTHER"')),
            "'calling_ae' is for the server's own chains",
        ),
        (changed(lambda xml: xml.replace('type="python"', 'type="matlab"')), "only python runs here"),
        (text(2, ENTITIES.encode()), "not an XML chain"),
        (text(2, EXTERNAL.encode()), "not an XML chain"),
        (text(2, b"<configuration>"), "not an XML chain"),
        (text(2, b'<?xml version="1.0" encoding="uQf-8"?><a/>'), "not an XML chain"),
    ],
)
def test_chains_that_are_refused(config: bytes, match: str, raw: Path, server: Server) -> None:
    found = error_of(exchanged(server, stream(raw, config)))
    assert match in found and "\n" not in found


@pytest.mark.parametrize("name", [name for name in shipped_chains() if not name.endswith("_connect")])
def test_shipped_chains_may_be_sent(name: str) -> None:
    xml = read_chain(name).to_xml().replace(b'name="anonymize" value="false"', b'name="anonymize" value="true"')
    chain = chain_of(Request(None, xml, b"", (), 4), ServeSettings(dicom=Path("dicom")))
    node = chain.external(DICOM_MODULE)
    assert node is not None and node.properties["anonymize"] == "true" and node.properties["folder"] == "dicom"


def test_a_long_row_of_references_is_no_burden() -> None:
    """Each names the next one, so that following each to its end takes hours."""
    row = [f'<property name="p{n}" value="p{n + 1}@ImageFinishGadget"/>' for n in range(40_000)]
    gadget = f"<gadget><dll>x</dll><classname>ImageFinishGadget</classname>{''.join(row)}"
    gadget += '<property name="p40000" value="end"/></gadget>'
    found = Chain(f"<gadgetronStreamConfiguration>{gadget}</gadgetronStreamConfiguration>".encode(), "a chain")
    assert set(found.nodes[0].properties.values()) == {"end"}


def test_chains_that_are_sent_import_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "not_for_clients.py").write_text("class Reconstruction: pass")
    monkeypatch.syspath_prepend(tmp_path)
    chain = read_chain("cg_sense").to_xml().replace(b'"gadgets.reconstruction"', b'"not_for_clients"')
    with pytest.raises(ReconError, match="external not_for_clients Reconstruction is not among those"):
        chain_of(Request(None, chain, b"", (), 4), ServeSettings())
    assert "not_for_clients" not in sys.modules


@pytest.mark.parametrize(
    ("own", "of_the_server", "expected"),
    [("", 0.0, 90.0), ("", 20.0, 20.0), ("", 200.0, 90.0), ("30", 20.0, 30.0), ("0", 20.0, 90.0), ("1e9", 0.0, 90.0)],
)
def test_time_budgets_end_before_the_longest_scan(own: str, of_the_server: float, expected: float) -> None:
    parameters = {"generative_recon.time_budget_s": own} if own else {}
    text = json.dumps({"parameters": parameters}).encode()
    settings = ServeSettings(time_budget_s=of_the_server, limits=Limits(scan_s=100.0))
    chain = chain_of(Request("svd_wkgm", None, b"", (text,), 4), settings)
    (found,) = [value for node in chain.nodes for name, value in node.properties.items() if "time_budget" in name]
    assert float(found) == expected
    linear = chain_of(Request("cg_sense", None, b"", (), 4), settings)
    assert not [name for node in linear.nodes for name in node.properties if "time_budget" in name]


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
        ({"generative_recon.prior": "/etc/passwd"}, "is for the server's own chains"),
        ({"dicom_output.folder": "/etc"}, "is for the server's own chains"),
        ({"dicom_output.keep_delivered": True}, "is for the server's own chains"),
        ({"dicom_output.anonymize": False}, "is for the server's own chains"),
        ({"generative_recon.training": "self"}, "is for the server's own chains"),
        ({"nobody.method": "x"}, "no gadget is called 'nobody'"),
        ({"generative_recon.method": ["x"]}, "neither a text nor a number"),
        ({"config": "../x"}, "letters that no name"),
    ],
)
def test_parameters_that_are_refused(parameters: dict[str, Any], match: str, raw: Path, server: Server) -> None:
    content = stream(raw, parameters=json.dumps({"parameters": parameters}).encode())
    found = exchanged(server, content)
    assert match in fire_error_of(found)


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
    before = memory(server)
    assert match in error_of(exchanged(server, content(raw)))
    assert memory(server) - before < 300e6
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
        before = memory(server)
        assert match in error_of(exchanged(server, wire.data + CLOSE))
        assert memory(server) - before < 300e6
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
    texts = 2 * text(constants.GADGET_MESSAGE_TEXT, padding)  # each of them, and both, would do without the header
    with serving(limits=replace(LIMITS, text_mib=2.0)) as server:
        head = named("cg_sense") + stream(raw)[1026:].partition(struct.pack("<H", 1008))[0]
        assert " bytes are above the limit of 2 MiB" in error_of(exchanged(server, head + texts))
        works(server, raw)


def test_lines_that_wait_for_their_image_count_as_memory() -> None:
    simulation = simulate(replace(SCAN, matrix=(512, 32, 1), slices=2))
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
        (b"\x01\x00cg", "it left in the middle of its request"),
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


# --- status ----------------------------------------------------------------------------------------------------------


def test_health_metrics_and_page(raw: Path, tmp_path: Path) -> None:
    spooled = add_to_spool(tmp_path, Destination("dicom://PACS@pacs.example:104"), b"one")
    with serving() as server:
        status = StatusServer(server, 0, spool=tmp_path)
        try:
            works(server, raw)
            exchanged(server, stream(raw, named("<script>")))
            assert json.loads(fetched(status.port, "/health")[1]) == {"status": "ok", "running": 0, "waiting": 0}
            metrics = fetched(status.port, "/metrics")[1].decode()
            assert "genrecon_images_total 3.0" in metrics and "genrecon_failed_total 1.0" in metrics
            assert "genrecon_spool_files 1.0" in metrics and "genrecon_spool_failed_files 0.0" in metrics
            found = fetched(status.port, "/")[1].decode()
            assert "cg_sense" in found and "<script>" not in found
            assert "dicom://PACS@pacs.example:104: 1 files wait" in found
            (spooled.parent / "failed").mkdir()
            spooled.rename(spooled.parent / "failed" / spooled.name)
            assert "genrecon_spool_failed_files 1.0" in fetched(status.port, "/metrics")[1].decode()
            assert "0 files wait, 1 were set aside" in fetched(status.port, "/")[1].decode()
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


def test_connections_that_keep_the_status_page_busy_make_room() -> None:
    with serving() as server, contextlib.ExitStack() as stack:
        status = StatusServer(server, 0)
        stack.callback(status.close)
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", status.port))) for _ in range(3 * REQUESTS)]
        for sock in held:
            sock.settimeout(5)
            sock.sendall(b"GET /health HTTP/1.1\r\n")  # and no more
        until(lambda: threads_of_status() == REQUESTS)
        assert threads_of_status() == REQUESTS and answer(held[0]) == b""
        assert fetched(status.port, "/health")[0] == 200
        with socket.create_connection(("127.0.0.1", status.port), timeout=5) as sock:
            sock.sendall(b"HEAD /health HTTP/1.0\r\n\r\n")
            head = answer(sock)
        assert head.startswith(b"HTTP/1.0 200") and head.endswith(b"\r\n\r\n")


def threads_of_status() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


# --- commands --------------------------------------------------------------------------------------------------------


def test_the_commands(raw: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0", "--warm", "", "--json-logs"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())
        port = line["message"].rpartition(" ")[2]
        arguments = ["send", str(raw), "--host", "127.0.0.1", "--port", port, "--timeout", "30"]
        sent = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out")])
        assert sent.exit_code == 0 and "3 images, the first after " in sent.output, sent.output
        assert "[genrecon] WARNING: NoiseAdjustGadget: no noise scan in the stream" in sent.output
        assert "torch" not in Path(f"/proc/{process.pid}/maps").read_text()  # its processes have that
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
