"""The shipped chains on a running Gadgetron server; set GENRECON_GADGETRON=HOST:PORT, its Python with this project."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from gadgets.image_values import output_of
from gadgets.images import PARTIAL_FOURIER, SHADING, meta_of, meta_values
from gadgets.outputs import PHASE, SNR
from gadgets.stream import ReconError
from pipelines.chain import read_chain, shipped_chains
from pipelines.raw import RawScan
from pipelines.replay import DICOM_MODULE, read_images, replay
from pipelines.send import send
from pipelines.simulation import SimulationSettings, simulate, write_raw
from pipelines.wire import reconstruct_remotely

SCANS = {
    "slices and repetitions": {"slices": 3, "repetitions": 2},
    "averages and contrasts": {"averages": 2, "contrasts": 2},
    "partial Fourier": {"partial_fourier": 0.7},
    "asymmetric echo": {"asymmetric_echo": 0.75},
    "separate calibration": {"calibration": "separate"},
    "volume": {"matrix": (32, 48, 24), "field_of_view_mm": (120.0, 200.0, 100.0), "calibration_lines": 12},
}


PHASE_STEPS = 2**15  # of a whole turn, in the included chains
TIMEOUT_S = float(os.environ.get("GENRECON_TIMEOUT_S", "90"))  # of a scan; a busy machine needs more


@pytest.fixture(scope="module")
def server():
    address = os.environ.get("GENRECON_GADGETRON")
    if not address:
        pytest.skip("set GENRECON_GADGETRON=HOST:PORT to run this on a Gadgetron server")
    return address


def images(raw, chain, folder, **options):
    result = replay(raw, chain, folder, timeout=TIMEOUT_S, **options)
    return {(n, i.repetition, i.slice, i.contrast): i for n in result.series for i in read_images(result.folder, n)}


def compare(raw, chain, folder, server, snr_part=0.0, **options):
    """Images of the server and of a replay, which must be alike; SNRs to that part of the highest one."""
    own = images(raw, chain, folder / "own", **options)
    remote = images(raw, chain, folder / "remote", gadgetron=server, **options)
    assert own.keys() == remote.keys()
    for key, image in own.items():
        np.testing.assert_allclose(remote[key].position, image.position, atol=1e-3)
        difference = np.abs(remote[key].data.astype(int) - image.data.astype(int))
        # Of some thousand; a network in bfloat16 makes more of the last bit of its input.
        allowed = 2 if chain in ("wkgm", "svd_wkgm", "hkgm") else 1
        if output_of(image) is PHASE:  # steps of 0.2 mrad; the reference phase of a slice follows the last bits, too
            difference, allowed = np.minimum(difference, PHASE_STEPS - difference), 32
        elif output_of(image).signed:
            allowed = 8
        elif output_of(image) is SNR:
            allowed = max(1, snr_part * image.data.max())
        assert difference.max() <= allowed
    return remote


@pytest.mark.parametrize("name", SCANS)
def test_simulated_scans(server, tmp_path, name):
    settings = {"matrix": (64, 64, 1), "coils": 6, "sampling": "uniform", "acceleration": 2, "calibration_lines": 20}
    settings |= {"noise_level": 0.003, "noise_scan": True, **SCANS[name]}
    write_raw(tmp_path / "scan.h5", simulate(SimulationSettings(**settings)))
    compare(tmp_path / "scan.h5", "cg_sense", tmp_path, server)


@pytest.mark.parametrize("chain", [name for name in shipped_chains() if not name.endswith("_connect")])
def test_siemens(server, real_data, tmp_path, chain):
    compare(real_data / "siemens_skyra_r3.h5", chain, tmp_path, server)


def wait_for(port):
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline, "the listener does not start"
            time.sleep(0.2)


def test_outputs(server, tmp_path):
    """Every kind of images by way of the C++ gadgets behind ours: signed values, angles and quantities in 16 bit."""
    simulated = SimulationSettings(
        matrix=(64, 64, 1), coils=6, sampling="uniform", acceleration=2, calibration_lines=20, noise_level=0.003,
        noise_scan=True,
    )  # fmt: skip
    write_raw(tmp_path / "scan.h5", simulate(simulated))
    names = "magnitude,phase,real,imaginary,snr,gfactor"
    # The C++ NoiseAdjustGadget does not mark what it prewhitened: the level must be given.
    settings = [f"generative_recon.output={names}", "generative_recon.noise_level=1"]
    compare(tmp_path / "scan.h5", "cg_sense", tmp_path, server, settings=settings)


def test_partial_fourier_shading_and_snr(server, tmp_path):
    """What is made of images and their headers beside the method."""
    simulated = SimulationSettings(
        matrix=(64, 64, 1), coils=6, sampling="uniform", acceleration=2, calibration_lines=20, noise_level=0.003,
        noise_scan=True, partial_fourier=0.7,
    )  # fmt: skip
    write_raw(tmp_path / "scan.h5", simulate(simulated))
    values = {"output": "magnitude,phase,snr", "noise_level": "1", "partial_fourier": "pocs", "shading": "fit"}
    settings = [f"generative_recon.{name}={value}" for name, value in values.items()]
    found = compare(tmp_path / "scan.h5", "cg_sense", tmp_path, server, snr_part=1e-3, settings=settings)
    assert {output_of(image).name for image in found.values()} == {"magnitude", "phase", "snr"}
    for image in found.values():
        meta = meta_of(image.attribute_string)
        assert "pocs" in meta_values(meta, PARTIAL_FOURIER)[0]
        assert bool(meta_values(meta, SHADING)) == (output_of(image).name == "magnitude")


def connections():
    """Forks of a Gadgetron server on this machine, one a connection: those whose parent is a server too."""
    servers = {p.pid: p.ppid() for p in psutil.process_iter(["name"]) if p.info["name"] == "gadgetron"}
    return {pid for pid, parent in servers.items() if parent in servers}


def test_errors_of_a_gadget_reach_the_client(server, real_data):
    chain = read_chain("cg_sense").without(DICOM_MODULE)
    chain.set("espirit", "no_such_property", "1")
    before = connections()
    for _ in range(10):
        with RawScan(real_data / "siemens_skyra_r3.h5") as scan, pytest.raises(ReconError, match="no_such_property"):
            list(reconstruct_remotely(server, chain.to_xml(), scan.header_xml, scan.acquisitions(), TIMEOUT_S))
    deadline = time.monotonic() + 10
    while connections() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not connections() - before, "forks of the server outlive their connections"


@pytest.mark.parametrize("chain", [name for name in shipped_chains() if name.endswith("_connect")])
def test_a_warm_process_serves_scan_after_scan(server, real_data, tmp_path, chain):
    """`<connect>` instead of `<execute>`, and `genrecon serve` beside it; the server must be on this machine."""
    raw = real_data / "siemens_skyra_r3.h5"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    method = chain.removesuffix("_connect")
    own = images(raw, method, tmp_path / "own")
    config = tmp_path / "connect.xml"
    config.write_bytes(read_chain(chain).to_xml().replace(b'"18000"', b'"%d"' % port))
    listener = subprocess.Popen([sys.executable, "-m", "pipelines.cli", "listen", str(port)])
    try:
        wait_for(port)  # the server's <connect> gives up after 20 s
        for number in range(2):
            found = images(raw, str(config), tmp_path / str(number), gadgetron=server)
            assert found.keys() == own.keys()
            for key, image in own.items():
                assert np.abs(found[key].data.astype(int) - image.data.astype(int)).max() <= 2
    finally:
        listener.terminate()
        listener.wait()
    assert send(raw, f"genrecon_{method}.xml", server, out=tmp_path / "sent", timeout=TIMEOUT_S).images == len(own)
