"""FIRE's own client and Gadgetron's C++ client on `genrecon serve`, beside `replay` of the same file.

Set GENRECON_FIRE to a folder with client.py of python-ismrmrd-server, and GENRECON_GADGETRON_CLIENT to a
gadgetron_ismrmrd_client.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.images import meta_of, meta_values
from gadgets.outputs import OUTPUTS
from pipelines.chain import shipped_chain
from pipelines.flat_parameter_table import TABLE
from pipelines.replay import DICOM_MODULE, read_images, replay
from pipelines.server.listener import Server
from pipelines.server.settings import Limits
from pipelines.simulation import SimulationSettings, simulate, write_raw
from tests.pipelines.server.serving import serving, until
from tests.pipelines.server.test_kept_raw import ended

Client = Callable[..., tuple[dict[int, list[Any]], str]]
OUTPUT_NAMES = "magnitude,phase,real,imaginary,snr,gfactor"


@pytest.fixture(scope="module")
def scan_with_noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    settings = SimulationSettings(
        matrix=(48, 48, 1), coils=6, sampling="uniform", acceleration=2, calibration_lines=16,
        noise_level=0.003, noise_scan=True,
    )  # fmt: skip
    write_raw(path, simulate(settings))
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


def received(path: Path) -> dict[int, list[Any]]:
    """Images that a client saved, by the number of their series."""
    found: dict[int, list[Any]] = {}
    with ismrmrd.File(path, "r") as file:
        for group in file:
            for name in file[group]:
                if name.startswith("image_"):
                    for image in file[group][name].images:
                        found.setdefault(image.image_series_index, []).append(image)
    return found


@pytest.fixture
def fire(server: Server, tmp_path: Path) -> Client:
    """FIRE's client; parameters are its JSON."""
    if not (folder := os.environ.get("GENRECON_FIRE")):
        pytest.skip("set GENRECON_FIRE to a folder with client.py of python-ismrmrd-server to run this test")

    def run(raw: Path, config: str, on: Server = server, **parameters: Any) -> tuple[dict[int, list[Any]], str]:
        (tmp_path / f"{config}.json").write_text(json.dumps({"parameters": {"config": config, **parameters}}))
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        command = [
            sys.executable,
            str(Path(folder) / "client.py"),
            "-p",
            str(on.port),
            "-c",
            config,
            "-o",
            str(out),
        ]
        done = subprocess.run([*command, str(raw)], cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0 and "Traceback" not in done.stderr
        return received(out) if out.exists() else {}, done.stdout + done.stderr

    return run


@pytest.fixture
def gadgetron_client(server: Server, tmp_path: Path) -> Client:
    """Gadgetron's client; properties are set in the chain that it sends."""
    if not (program := os.environ.get("GENRECON_GADGETRON_CLIENT")):
        pytest.skip("set GENRECON_GADGETRON_CLIENT to a gadgetron_ismrmrd_client to run this test")

    def run(raw: Path, config: str, on: Server = server, **properties: str) -> tuple[dict[int, list[Any]], str]:
        if properties:
            chain = shipped_chain(config).without(DICOM_MODULE)
            for name, value in properties.items():
                chain.set("generative_recon", name, value)
            (tmp_path / "chain.xml").write_bytes(chain.to_xml())
            configuration = ["-C", str(tmp_path / "chain.xml")]
        else:
            configuration = ["-c", f"{config}.xml"]
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        command = [program, "-a", "127.0.0.1", "-p", str(on.port), *configuration, "-f", str(raw), "-o", str(out)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return received(out) if out.exists() else {}, done.stdout + done.stderr

    return run


def assert_as_replayed(found: dict[int, list[Any]], raw: Path, chain: str, folder: Path, **properties: str) -> None:
    """The same series, the same pixels bit for bit."""
    settings = [f"generative_recon.{name}={value}" for name, value in properties.items()]
    result = replay(raw, chain, folder, settings=settings, timeout=90.0)
    own = {number: list(read_images(result.folder, number)) for number in result.series}
    assert found.keys() == own.keys()
    for number, images in own.items():
        assert len(found[number]) == len(images)
        for image, other in zip(images, found[number], strict=True):
            np.testing.assert_array_equal(image.data, other.data)


def test_fire_images(fire: Client, scan_with_noise: Path, tmp_path: Path) -> None:
    found, log = fire(scan_with_noise, "cg_sense")
    assert_as_replayed(found, scan_with_noise, "cg_sense", tmp_path / "own")
    assert "WARNING" not in log.replace("- configAdditional", "") and "ERROR" not in log


def test_fire_flat_parameters_of_open_recon(fire: Client, scan_with_noise: Path, tmp_path: Path) -> None:
    found, log = fire(
        scan_with_noise, "cg_sense", method="l1_wavelet", series="magnitude,phase", samples="1", unheardof=3
    )
    assert_as_replayed(
        found, scan_with_noise, "cg_sense", tmp_path / "own", method="l1_wavelet", output="magnitude,phase"
    )
    assert "unknown parameter 'unheardof'" in log
    found, log = fire(scan_with_noise, "cg_sense", timelimit="soon")
    assert not found and "ERROR    parameter 'timelimit' is 'soon'; it must be" in log


def test_fire_partial_fourier_shading_and_snr_by_flat_names(
    fire: Client, scan_with_noise: Path, tmp_path: Path
) -> None:
    """What a console sends: every parameter, as text, most of them untouched."""
    untouched = {parameter.id: str(parameter.default) for parameter in TABLE}
    chosen = {"series": "magnitude,snr,gfactor", "partialfourier": "pocs", "shading": "fit"}
    found, log = fire(scan_with_noise, "cg_sense", **{**untouched, **chosen})
    properties = {"output": chosen["series"], "partial_fourier": "pocs", "shading": "fit"}
    assert_as_replayed(found, scan_with_noise, "cg_sense", tmp_path / "own", **properties)
    assert "unknown parameter" not in log and "does nothing" not in log


def test_fire_all_outputs(fire: Client, scan_with_noise: Path, tmp_path: Path) -> None:
    found, _ = fire(scan_with_noise, "cg_sense", **{"generative_recon.output": OUTPUT_NAMES})
    assert {number - 1 for number in found} == {OUTPUTS[name].series for name in OUTPUT_NAMES.split(",")}
    assert_as_replayed(found, scan_with_noise, "cg_sense", tmp_path / "own", output=OUTPUT_NAMES)


def test_gadgetron_client_images(gadgetron_client: Client, scan_with_noise: Path, tmp_path: Path) -> None:
    found, _ = gadgetron_client(scan_with_noise, "cg_sense")
    assert_as_replayed(found, scan_with_noise, "cg_sense", tmp_path / "own")


def test_gadgetron_client_all_outputs(gadgetron_client: Client, scan_with_noise: Path, tmp_path: Path) -> None:
    found, _ = gadgetron_client(scan_with_noise, "cg_sense", output=OUTPUT_NAMES)
    assert_as_replayed(found, scan_with_noise, "cg_sense", tmp_path / "own", output=OUTPUT_NAMES)


def test_gadgetron_client_errors(gadgetron_client: Client, scan_with_noise: Path) -> None:
    found, log = gadgetron_client(scan_with_noise, "no_such_chain")
    assert not found and "[genrecon] ERROR: there is no chain 'no_such_chain'" in log


def retrieved_id(log: str) -> str:
    """The configuration that fetches late images, as a client is told."""
    found = re.search(r"retrieve_[0-9A-Za-z-]+", log)
    assert found, log
    return found[0]


@pytest.mark.parametrize("name", ["fire", "gadgetron_client"])
def test_raw_data_are_kept(name: str, request: pytest.FixtureRequest, scan_with_noise: Path, tmp_path: Path) -> None:
    client = request.getfixturevalue(name)
    with serving(keep_raw=tmp_path / "kept") as server:
        found, _ = client(scan_with_noise, "cg_sense", on=server)
        (kept,) = ended(tmp_path / "kept", 1)
        result = replay(kept.raw, "", tmp_path / "again", as_served=True, timeout=90.0)
    (image,), (own,) = found[1], read_images(result.folder, 1)
    np.testing.assert_array_equal(image.data, own.data)


@pytest.mark.parametrize("name", ["fire", "gadgetron_client"])
def test_late_images(name: str, request: pytest.FixtureRequest, scan_with_noise: Path, tmp_path: Path) -> None:
    client = request.getfixturevalue(name)
    limits = Limits(idle_s=60.0, scan_s=600.0)
    with serving(keep_raw=tmp_path / "kept", answer_within_s=0.01, limits=limits) as server:
        found, log = client(scan_with_noise, "l1_wavelet", on=server)
        assert not found and "0 of 1 images are ready" in log
        until(lambda: server.queue.scans[-1].state == "done", 90)
        found, _ = client(scan_with_noise, retrieved_id(log), on=server)
    assert_as_replayed(found, scan_with_noise, "l1_wavelet", tmp_path / "own")


def test_fire_late_images_with_the_next_scan(fire: Client, scan_with_noise: Path, tmp_path: Path) -> None:
    limits = Limits(idle_s=60.0, scan_s=600.0)
    with serving(keep_raw=tmp_path / "kept", limits=limits) as server:
        found, log = fire(scan_with_noise, "l1_wavelet", on=server, answer_within="0.01")
        assert not found and "0 of 1 images are ready" in log
        until(lambda: server.queue.scans[-1].state == "done", 90)
        found, _ = fire(scan_with_noise, "cg_sense", on=server, answer_within="0", late_images="all")
    (late, own), (replayed,) = found[1], replay(scan_with_noise, "l1_wavelet", tmp_path / "l1", timeout=90.0).series
    by_method = {meta_values(meta_of(image.attribute_string), "GenreconMethod")[0]: image for image in (late, own)}
    (wanted,) = read_images(tmp_path / "l1", replayed)
    np.testing.assert_array_equal(by_method["l1_wavelet"].data, wanted.data)
    assert "cg_sense" in by_method
