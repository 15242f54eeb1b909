"""Fixtures all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each; also for the processes that tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# First of all: it tells torch's threads not to spin, which takes minutes on a busy machine.
import priors  # noqa: F401
from tests.paths import REAL_DATA


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data, beside the project; the test is skipped, loudly, without it."""
    if not (REAL_DATA / "siemens_skyra_r3.h5").is_file():
        pytest.skip(f"no real data at {REAL_DATA}: put it there to run this test")
    return REAL_DATA
