"""Fixtures all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each; also for the processes that tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# First of all: it tells torch's threads not to spin, which takes minutes on a busy machine.
import priors  # noqa: F401
from tests.paths import REAL_DATA


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """What a test did to torch's threads ends with it: sums over more threads are rounded in another way."""
    loaded = sys.modules.get("torch")
    before = loaded.get_num_threads() if loaded else int(os.environ.get("OMP_NUM_THREADS", "0"))
    yield
    if before and (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data, beside the project; the test is skipped, loudly, without it."""
    if not (REAL_DATA / "siemens_skyra_r3.h5").is_file():
        pytest.skip(f"no real data at {REAL_DATA}: put it there to run this test")
    return REAL_DATA
