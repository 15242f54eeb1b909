"""Delivery to a real Orthanc, by C-STORE and by STOW-RS, killed in the middle (Debian: orthanc, orthanc-dicomweb)."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from gadgets.dicom.destination import Destination
from gadgets.dicom.enhanced.instances import enhanced_datasets
from gadgets.dicom.sender import RetryPolicy, Sender
from gadgets.dicom.spool import add_to_spool, queue_folder
from gadgets.dicom.writer import encoded
from gadgets.dicom_output import dicom_datasets
from pipelines.chain import read_chain
from pipelines.simulation import SimulationSettings, simulate
from tests.gadgets.dicom.stack_images import at, frames_of

COUNT = 40
ORTHANC = shutil.which("Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

if ORTHANC is None or not PLUGIN.exists():
    pytest.skip("no Orthanc with DICOMweb here: install orthanc and orthanc-dicomweb", allow_module_level=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Orthanc:
    """An Orthanc of its own, with its own storage, that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.http, self.dicom = free_port(), free_port()
        self._file = folder / "orthanc.json"
        self._file.write_text(
            json.dumps(
                {
                    "Name": "TEST", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
                    "HttpPort": self.http, "DicomPort": self.dicom, "DicomAet": "ORTHANC",
                    "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "DicomAlwaysAllowStore": True,
                    "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                }
            )
        )  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert ORTHANC is not None
        self._process = subprocess.Popen(
            [ORTHANC, str(self._file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.get("/system")
                return
            time.sleep(0.1)
        raise AssertionError("Orthanc does not answer")

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def url(self, way: str) -> str:
        """Where it takes images."""
        if way == "C-STORE":
            return f"dicom://ORTHANC@127.0.0.1:{self.dicom}"
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def get(self, path: str) -> object:
        """Answer of its REST API."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=10) as answer:
            return json.load(answer)

    def instances(self) -> list[str]:
        """SOP Instance UIDs that it has, each as often as it has it."""
        found = self.get("/instances?expand")
        assert isinstance(found, list)
        return [one["MainDicomTags"]["SOPInstanceUID"] for one in found]


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    server = Orthanc(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["C-STORE", "STOW-RS"])
def test_everything_arrives_once_though_it_is_killed(way: str, orthanc: Orthanc, tmp_path: Path) -> None:
    simulation = simulate(SimulationSettings(matrix=(32, 32, 1), coils=1, sampling="full", acceleration=1))
    chain = read_chain("cg_sense").without("gadgets.dicom_output")
    (image,) = chain.run(simulation.header, simulation.acquisitions())
    destination = Destination(orthanc.url(way), timeout_s=10.0)
    uids = set()
    for number in range(COUNT):
        image.image_index, image.data[:] = number + 1, np.uint16(number)
        (dataset,) = dicom_datasets(image, simulation.header)
        uids.add(str(dataset.SOPInstanceUID))
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        add_to_spool(tmp_path / "spool", destination, buffer.getvalue())
    assert len(uids) == COUNT
    folder = queue_folder(tmp_path / "spool", destination)
    sender = Sender(folder, RetryPolicy(first_s=0.1, longest_s=0.5))
    sender.start()
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.dcm"))) > COUNT - 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    orthanc.kill()
    left = len(list(folder.glob("*.dcm")))
    assert 0 < left < COUNT
    time.sleep(0.5)
    orthanc.start()
    while list(folder.glob("*.dcm")) and time.monotonic() < deadline:
        time.sleep(0.05)
    sender.stop(5.0)
    assert not list(folder.glob("*.dcm"))
    assert sorted(orthanc.instances()) == sorted(uids)


@pytest.mark.parametrize("way", ["C-STORE", "STOW-RS"])
def test_a_series_in_one_file_arrives_with_all_frames(way: str, orthanc: Orthanc, tmp_path: Path) -> None:
    frames = frames_of(*(at(6.0 * n, slice=n, repetition=r) for r in range(2) for n in range(3)))
    (dataset,) = enhanced_datasets(frames)
    frames.close()
    destination = Destination(orthanc.url(way), timeout_s=10.0)
    add_to_spool(tmp_path / "spool", destination, encoded(dataset))
    Sender(queue_folder(tmp_path / "spool", destination), RetryPolicy()).attempt()
    assert orthanc.instances() == [str(dataset.SOPInstanceUID)]
    (identifier,) = cast(list[str], orthanc.get("/instances"))
    assert orthanc.get(f"/instances/{identifier}/frames") == list(range(6))
