"""`genrecon serve` and `genrecon send` as commands."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pydicom
import pytest
from gadgetron.external import constants
from typer.testing import CliRunner

from gadgets.dicom.delivery import deliver_once
from gadgets.stream import ReconError
from pipelines.cli import app
from pipelines.raw import RawScan
from pipelines.send import send
from tests.gadgets.dicom.pacs_servers import Scp, free_port
from tests.paths import ROOT
from tests.pipelines.server.serving import (
    CLOSE,
    SCAN,
    answer,
    named,
    text,
)


@contextlib.contextmanager
def serve_command(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of `genrecon serve --json-logs`, and its port."""
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0", "--warm", "", "--json-logs", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield process, json.loads(process.stderr.readline())["message"].rpartition(" ")[2]
        finally:
            process.kill()


def end_during_scan(process: subprocess.Popen[str], port: str, scan: bytes, by: signal.Signals) -> str:
    """End the server's process while it runs a scan. Returns its log, once no process of it is left."""
    assert process.stderr is not None
    children = psutil.Process(process.pid).children(recursive=True)
    log = ""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as sock:
        sock.sendall(scan)
        while "chain svd_wkgm" not in log:
            log += process.stderr.readline()
        process.send_signal(by)
        log += process.stderr.read()
    _, alive = psutil.wait_procs(children, 10)
    assert len(children) >= 2 and not alive
    return log


@pytest.mark.slow
def test_the_commands(raw: Path, long_scan: bytes, tmp_path: Path) -> None:
    with serve_command("--grace", "0") as (process, port):
        arguments = ["send", str(raw), "--host", "127.0.0.1", "--port", port, "--timeout", "30"]
        sent = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out")])
        assert sent.exit_code == 0 and "3 images, the first after " in sent.output, sent.output
        assert "[genrecon] WARNING: NoiseAdjustGadget: no noise scan in the stream" in sent.output
        assert "torch" not in Path(f"/proc/{process.pid}/maps").read_text()  # its child processes have that
        failed = CliRunner().invoke(app, [*arguments, "-c", "nothing"])
        assert isinstance(failed.exception, ReconError) and "there is no chain 'nothing'" in str(failed.exception)
        with RawScan(raw) as scan:  # an invalid value is not logged: it may be of the patient
            odd = re.sub(rb"(<patientBirthdate>)[^<]*", rb"\g<1>1970-41-01", scan.header_xml)
            assert b"1970-41-01" in odd
        with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as sock:
            sock.sendall(named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, odd) + CLOSE)
            answer(sock)
        log = end_during_scan(process, port, long_scan, signal.SIGTERM)
    assert process.returncode == 0 and "1970" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"info", "warning", "error"} >= {line["level"] for line in lines}
    with RawScan(raw) as scan:
        subject = scan.header.subjectInformation
        secrets = [subject.patientName, subject.patientID] if subject else []
    assert not any(secret and secret in log for secret in secrets)


@pytest.mark.slow
def test_a_server_killed_during_a_scan_loses_no_files(raw: Path, long_scan: bytes, tmp_path: Path) -> None:
    pacs_port, spool = free_port(), tmp_path / "spool"
    pacs = f"dicom://PACS@127.0.0.1:{pacs_port}"
    with serve_command("--pacs", pacs, "--spool", str(spool)) as (process, port):
        assert send(raw, "cg_sense", f"127.0.0.1:{port}", timeout=60).images == SCAN.slices  # though the PACS is down
        end_during_scan(process, port, long_scan, signal.SIGKILL)
    kept = [str(pydicom.dcmread(path).SOPInstanceUID) for path in spool.rglob("*.dcm")]
    assert len(set(kept)) == SCAN.slices
    with Scp(port=pacs_port) as scp:
        assert deliver_once(spool) == 0
    assert sorted(scp.received) == sorted(kept) and not list(spool.rglob("*.dcm"))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--pacs", "foo://bar"], "property 'pacs' is 'foo://bar'"),
        (["--pacs", "dicom://PACS@host"], "AE title and port"),
        (["--pacs", "dicom://P@h:104", "--spool", "{file}"], "--spool .*: it cannot be written to"),
        (["--dicom", "{file}/dicom"], "--dicom .*: it cannot be written to .*; give another one"),
        (["--bind", "no address"], r"port 0: cannot listen on no address \("),
    ],
)
def test_options_that_cannot_work_are_errors_at_the_start(options: list[str], match: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    options = [option.replace("{file}", str(file)) for option in options]
    result = CliRunner().invoke(app, ["serve", "--port", "0", *options])
    assert isinstance(result.exception, ReconError)
    assert re.search(match, str(result.exception)), result.exception
