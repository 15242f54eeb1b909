"""A server gives the same images as a replay, to Gadgetron's client and to FIRE's."""

from __future__ import annotations

import json
import socket
import struct
import urllib.request
from pathlib import Path

import ismrmrd
import numpy as np
import pytest
from gadgetron.external import constants, writers

from benchmarks.fuzz import Recorded
from gadgets.images import SCALE_RATIO, meta_of, meta_values
from gadgets.stream import ReconError
from pipelines.chain import read_chain
from pipelines.raw import RawScan
from pipelines.replay import read_images, replay
from pipelines.send import send
from pipelines.server.listener import Server
from pipelines.server.status import StatusServer
from pipelines.simulation import simulate
from tests import raw_files
from tests.pipelines.server.serving import (
    CLOSE,
    SCAN,
    address,
    answer,
    connected,
    error_of,
    exchanged,
    fire_error_of,
    message,
    named,
    serving,
    stream,
    text,
    works,
)


def test_warnings_of_images_are_told(server: Server, tmp_path: Path) -> None:
    data = raw_files.kspace()
    lines = [line for slice_ in range(2) for line in raw_files.lines(data * slice_, slice=slice_)]
    file = raw_files.write(tmp_path / "scan.h5", (raw_files.header(limits={"slice": (0, 1, 0)}), lines))
    result = send(file, "cg_sense", address(server), timeout=30)
    assert result.images == 2
    assert "no sample was measured: the image is empty" in result.warnings


@pytest.mark.parametrize("by", ["name", "installed name", "value"])
def test_images_are_those_of_a_replay(by: str, raw: Path, server: Server, tmp_path: Path) -> None:
    config = {"name": "l1_wavelet", "installed name": "genrecon_l1_wavelet.xml", "value": str(tmp_path / "l1.xml")}[by]
    (tmp_path / "l1.xml").write_bytes(read_chain("l1_wavelet").to_xml())
    result = send(raw, config, address(server), out=tmp_path / "sent", timeout=30)
    (first,) = read_images(tmp_path / "sent", 1, [0])
    # A stream does not know which image will be the brightest, as a replay does.
    scale = f"generative_recon.pixel_scale={meta_values(meta_of(first.attribute_string), SCALE_RATIO)[0]}"
    expected = replay(raw, "l1_wavelet", tmp_path / "replay", settings=[scale])
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


def test_fire_images(raw: Path, server: Server, tmp_path: Path) -> None:
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


def test_errors_for_a_fire_client_without_parameters(raw: Path, server: Server) -> None:
    with RawScan(raw) as scan:
        header = text(constants.GADGET_MESSAGE_HEADER, scan.header_xml + b"\0")
    found = exchanged(server, named("no_such") + header + CLOSE)
    assert "there is no chain 'no_such'" in fire_error_of(found)


def test_chains_of_the_server_and_its_time_budget(raw: Path, tmp_path: Path) -> None:
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
            assert server.queue.scans[-1].peer.startswith("[::1]:")
            with urllib.request.urlopen(f"http://[::1]:{status.port}/health", timeout=10) as found:
                assert found.status == 200
        finally:
            status.close()


def test_a_scan_that_ends_too_early_has_a_warning(raw: Path, server: Server) -> None:
    with RawScan(raw) as scan:
        lines = list(scan.acquisitions())
    for kept, warning in (
        (len(lines) - 3, "1 of 3 slices have no line flagged ACQ_LAST_IN_SLICE; the scan may be incomplete"),
        (len(lines) // 3, "1 of 3 slices of the header came; the scan may be incomplete"),
    ):
        wire = Recorded()
        wire.data = named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, scan.header_xml)
        for line in lines[:kept]:
            writers.write_acquisition(wire, line)
        found = exchanged(server, wire.data + CLOSE)
        assert f"WARNING: AcquisitionAccumulateTriggerGadget: {warning}".encode() in found and found.endswith(CLOSE)
    assert b"incomplete" not in exchanged(server, stream(raw))


def test_a_query_without_data_is_answered(server: Server) -> None:
    assert exchanged(server, named("cg_sense") + CLOSE) == CLOSE


def test_a_client_that_ends_its_half_of_the_connection_has_its_images(raw: Path) -> None:
    with serving() as server, connected(server) as sock:
        sock.sendall(stream(raw))
        sock.shutdown(socket.SHUT_WR)
        found = answer(sock)
    assert found[:2] == message(constants.GADGET_MESSAGE_ISMRMRD_IMAGE) and found.endswith(CLOSE)


def test_lines_that_give_no_image_are_an_error(raw: Path) -> None:
    simulation = simulate(SCAN)
    wire = Recorded()
    wire.data = named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, ismrmrd.xsd.ToXML(simulation.header).encode())
    lines = list(simulation.acquisitions())
    for line in lines:
        line.clear_all_flags()
        line.set_flag(ismrmrd.ACQ_IS_NAVIGATION_DATA)
        writers.write_acquisition(wire, line)
    with serving() as server:
        assert error_of(exchanged(server, wire.data + CLOSE)).startswith(f"its {len(lines)} lines gave no image; look")
        works(server, raw)
