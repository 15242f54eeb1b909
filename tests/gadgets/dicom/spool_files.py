"""Files for a spool, and how its sender is run to its end."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gadgets.dicom.destination import Destination
from gadgets.dicom.sender import RetryPolicy, Sender
from gadgets.dicom.spool import add_to_spool, queue_folder
from gadgets.dicom_output import dicom_datasets
from tests.gadgets.dicom.dicom_images import make_header, make_image
from tests.gadgets.dicom.pacs_servers import uids

QUICK = RetryPolicy(first_s=0.02, longest_s=0.05, refusals=3)


def make_files(count: int, size: int = 10) -> list[bytes]:
    """DICOM files of one series, pixel (0, 0) of each its number."""
    files = []
    for number in range(count):
        image = make_image(np.full((size, size), number, np.uint16), repetition=number)
        (ds,) = dicom_datasets(image, make_header(), warn=lambda _: None)
        buffer = io.BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


FILES = make_files(3)
UIDS = uids(FILES)


def fill(spool: Path, url: str, files: list[bytes] = FILES, **options: Any) -> Path:
    """Queue folder with the files in it."""
    destination = Destination(url, **{"timeout_s": 5.0, **options})
    for file in files:
        add_to_spool(spool, destination, file)
    return queue_folder(spool, destination)


def exhaust(sender: Sender, until: Callable[[], bool] = lambda: False) -> None:
    """Attempts until the queue is empty or a condition holds."""
    while (wait := sender.attempt()) is not None and not until():
        time.sleep(wait)


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "genrecon" and r.levelno >= level]


def waiting(folder: Path) -> int:
    return len(list(folder.glob("*.dcm")))


SEND = "import sys, pathlib; from gadgets.dicom.delivery import deliver_once; deliver_once(pathlib.Path(sys.argv[1]))"


def sending_process(spool: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SEND, str(spool)], stderr=subprocess.PIPE)
