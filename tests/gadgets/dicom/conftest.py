"""What tests of DICOM files share."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gadgets.dicom import delivery
from tests.gadgets.dicom import stack_images
from tests.gadgets.dicom.pacs_servers import Scp, Stow, without_patient


@pytest.fixture
def open_umask() -> Iterator[None]:
    """No umask: modes are what the code asks for."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def no_thread_and_no_patient_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, "genrecon")
    yield
    for sender in delivery._senders.values():
        sender.stop(10)
    delivery._senders.clear()
    assert without_patient(caplog.text)


@pytest.fixture(autouse=True)
def closed_frames() -> Iterator[None]:
    yield
    while stack_images.OPEN:
        stack_images.OPEN.pop().close()


@pytest.fixture(scope="module")
def running_scp() -> Iterator[Scp]:
    with Scp() as running:
        yield running


@pytest.fixture(scope="module")
def running_stow() -> Iterator[Stow]:
    with Stow() as running:
        yield running


@pytest.fixture
def scp(running_scp: Scp) -> Scp:
    running_scp.reset()
    return running_scp


@pytest.fixture
def stow(running_stow: Stow) -> Stow:
    running_stow.reset()
    return running_stow


@pytest.fixture(params=["scp", "stow"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: a full disk is not tried (run as root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
