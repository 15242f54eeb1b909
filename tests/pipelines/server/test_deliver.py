"""`genrecon deliver` as a user and a service manager meet it."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from typer.testing import CliRunner

from gadgets.dicom.destination import Destination
from gadgets.dicom.spool import add_to_spool
from gadgets.stream import ReconError
from pipelines.cli import app
from pipelines.cli.console import console
from tests.gadgets.dicom.pacs_servers import Scp

NOWHERE = "dicom://PACS@127.0.0.1:1"


def mr_file(number: int) -> bytes:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, f"1.2.3.{number}"
    ds.Rows = ds.Columns = 4
    ds.add_new("PixelData", "OW", np.zeros(16, np.uint16).tobytes())
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def fill(spool: Path, url: str, count: int = 2) -> None:
    for number in range(count):
        add_to_spool(spool, Destination(url, timeout_s=5), mr_file(number))


def run(*arguments: Any) -> str:
    result = CliRunner().invoke(app, ["deliver", *(str(argument) for argument in arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_once_delivers_and_says_what_is_left(tmp_path: Path) -> None:
    with Scp() as pacs:
        fill(tmp_path / "spool", pacs.url)
        run("--spool", tmp_path / "spool", "--once")
    assert pacs.received == ["1.2.3.0", "1.2.3.1"]
    fill(tmp_path / "spool", NOWHERE, 1)
    with pytest.raises(ReconError, match=r"^deliver: 1 file left in the spool"):
        run("--spool", tmp_path / "spool", "--once")


def test_status_shows_the_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 200)
    fill(tmp_path, NOWHERE)
    with pytest.raises(ReconError):
        run("--spool", tmp_path, "--once")
    output = run("--spool", tmp_path, "--status")
    assert NOWHERE in output and "Connection refused" in output and " 2 " in output
    assert "1.2.3" not in output


def test_refused_files_are_put_back(tmp_path: Path) -> None:
    with Scp(lambda _: 0xA900) as pacs:
        fill(tmp_path, pacs.url, 1)
        for _ in range(9):
            with pytest.raises(ReconError):
                run("--spool", tmp_path, "--once")
        run("--spool", tmp_path, "--once")
    (failed,) = tmp_path.glob("*/failed/*.dcm")
    assert "0xA900" in failed.with_suffix(".txt").read_text()
    assert "1 file put back" in run("--spool", tmp_path, "--retry-failed", "--status")
    assert len(list(tmp_path.glob("*/*.dcm"))) == 1 and not failed.exists()


@pytest.mark.parametrize("option", ["--once", "--status"])
def test_a_spool_that_is_not_there_is_one_line(option: str, tmp_path: Path) -> None:
    with pytest.raises(ReconError, match=r"^deliver: there is no spool .*; give the folder"):
        run("--spool", tmp_path / "none", option)


@pytest.mark.slow
def test_the_service_delivers_what_comes_and_stops_in_good_order(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "deliver", "--spool", str(tmp_path / "spool")]
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        arrived = threading.Event()
        with Scp(lambda _: arrived.set() or 0) as pacs:
            fill(tmp_path / "spool", pacs.url, 1)
            assert arrived.wait(60)
            service.send_signal(signal.SIGTERM)
            _, log = service.communicate(timeout=60)
    finally:
        service.kill()
    assert service.returncode == 0 and "1 files delivered" in log and "Traceback" not in log
    assert not list((tmp_path / "spool").glob("*/*.dcm"))


@pytest.mark.slow
def test_port_that_is_closed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    fill(tmp_path, f"http://127.0.0.1:{port}/dicom-web", 1)
    command = [sys.executable, "-m", "pipelines.cli", "deliver", "--spool", str(tmp_path), "--once"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 2 and "Connection refused" in lines[0] and lines[1].startswith("error: deliver: 1 file left")
