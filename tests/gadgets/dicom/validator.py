"""dciodvfy, a validator of DICOM files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest


def assert_valid(paths: Iterable[Path], kind: str = "MRImage") -> None:
    """Assert that dciodvfy finds no error in images of a kind; skips the test where it is not installed."""
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools): DICOM validity is not checked")
    for path in paths:
        done = subprocess.run([validator, str(path)], capture_output=True, timeout=60)
        lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        assert kind in lines
        assert [line for line in lines if line.startswith(("Error", "Abort"))] == []
