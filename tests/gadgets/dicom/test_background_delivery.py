"""Delivery in the background of a scan, and by several processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from gadgets.dicom import delivery
from gadgets.dicom import sender as sender_module
from gadgets.dicom.delivery import deliver_once
from gadgets.dicom.destination import Destination
from gadgets.dicom.sender import RetryPolicy, Sender
from gadgets.dicom.spool import add_to_spool
from gadgets.dicom_output import DicomOutput
from gadgets.stream import ReconError
from tests.gadgets.dicom.dicom_images import make_header, make_image
from tests.gadgets.dicom.pacs_servers import Scp, free_port, released, uids
from tests.gadgets.dicom.spool_files import FILES, UIDS, fill, make_files, sending_process, waiting


@pytest.mark.slow
def test_two_processes_share_a_spool(scp: Scp, tmp_path: Path) -> None:
    files = make_files(8)
    fill(tmp_path, scp.url, files)
    processes = [sending_process(tmp_path) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    deliver_once(tmp_path)
    assert scp.received == uids(files)  # each once


@pytest.mark.slow
def test_a_process_ends_while_the_pacs_is_slow(scp: Scp, tmp_path: Path) -> None:
    reached = threading.Event()
    code = (
        "import sys; from pathlib import Path; from gadgets.dicom.delivery import deliver_in_background\n"
        "deliver_in_background(Path(sys.argv[1])); sys.stdin.read()"
    )
    with released(threading.Event()) as never:
        scp.say = lambda _: (reached.set(), never.wait(60), 0)[2]
        folder = fill(tmp_path, scp.url, timeout_s=600)
        process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE)
        assert reached.wait(60)
        process.communicate(timeout=30)  # hangs for the PACS's minute, or the time-out's ten, if it does not end
        assert process.returncode == 0 and waiting(folder) == 3


def test_a_full_disk_costs_one_line_and_the_images_pass_on(full_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"dicom://PACS@127.0.0.1:{free_port()}"
    gadget = DicomOutput()
    folders = {name: str(full_disk / name) for name in ("folder", "spool")}
    gadget.configure(make_header(), {**folders, "pacs": url, "pacs_wait_s": "0"})
    images = [make_image(np.zeros((60, 60), np.uint16), repetition=number) for number in range(12)]
    passed = []
    with pytest.raises(ReconError, match=r"cannot write to the spool '.*' \(No space left on device\): images do not"):
        for image in gadget.process(iter(images)):
            passed.append(image)
    assert passed == images
    (folder,) = (full_disk / "spool").iterdir()
    assert 0 < waiting(folder) < 12
    for path in folder.glob("*.dcm"):
        assert pydicom.dcmread(path).pixel_array.shape == (60, 60)
    assert not list(full_disk.rglob("*.part"))


def test_the_thread_keeps_one_association_for_a_scan_and_ends(
    scp: Scp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count()
    folder = fill(tmp_path, scp.url, FILES[:1])
    sender = Sender(folder)
    for file in FILES:
        # Open for a minute, however slow this machine is; after the last file the connection closes soon.
        monkeypatch.setattr(sender_module, "IDLE_CONNECTION_S", 0.1 if file is FILES[-1] else 60.0)
        path = add_to_spool(tmp_path, Destination(scp.url, timeout_s=5), file)
        sender.start()
        assert sender.wait([path], 30) == 0
    assert scp.received == UIDS and scp.associations == 1
    while threading.active_count() > before:  # for ever if a thread is left
        time.sleep(0.02)


def scan(properties: dict[str, str], count: int = 3) -> list[Any]:
    gadget = DicomOutput()
    gadget.configure(make_header(), {"creation_time": "false", **properties})
    images = [make_image(repetition=number) for number in range(count)]
    passed = list(gadget.process(iter(images)))
    assert passed == images
    return passed


def test_a_scan_delivers_its_images(server: Any, tmp_path: Path) -> None:
    scan({"folder": "", "spool": str(tmp_path / "spool"), "pacs": server.url, "pacs_wait_s": "30"})
    assert len(set(server.received)) == 3
    assert not list(tmp_path.rglob("*.dcm"))


def test_a_scan_ends_without_the_pacs_and_a_later_one_delivers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.1)
    port = free_port()
    properties = {"folder": str(tmp_path / "dicom"), "spool": str(tmp_path / "spool"), "pacs_wait_s": "30"}
    properties["pacs"] = f"dicom://PACS@127.0.0.1:{port}"
    scan(properties)
    spooled = sorted(path.read_bytes() for path in (tmp_path / "spool").rglob("*.dcm"))
    assert spooled == sorted(path.read_bytes() for path in (tmp_path / "dicom").rglob("*.dcm")) and len(spooled) == 3
    assert "3 of 3 files wait in the spool" in caplog.text
    with Scp(port=port) as scp:
        scan(properties | {"series_number_offset": "2000"}, 1)  # another series
        (folder,) = (tmp_path / "spool").iterdir()
        delivery.deliver_in_background(folder).wait(list(folder.glob("*.dcm")), 30)
        while waiting(folder):
            time.sleep(0.02)
    assert len(scp.received) == len(set(scp.received)) == 4


def test_a_scan_may_leave_delivery_to_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Scp() as scp, caplog.at_level("INFO", "genrecon"):
        for _ in range(2):  # the second time with files in the spool already
            scan({"folder": "", "spool": str(tmp_path), "pacs": scp.url, "deliver": "false"})
        assert len(list(tmp_path.glob("*/*.dcm"))) == 3 and not scp.associations
        assert f"3 files in the spool {tmp_path}" in caplog.text
        delivery.deliver_once(tmp_path)
    assert len(scp.received) == len(set(scp.received)) == 3
