"""A small scan, and where processes that tests start find the gadgets."""

from __future__ import annotations

import os
from pathlib import Path

import ismrmrd
import pytest

from pipelines.simulation import simulate, write_raw
from tests.gadgets.stream.gadgetron_side import SCAN
from tests.paths import ROOT


@pytest.fixture(autouse=True)
def in_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the processes that tests start find the gadgets."""
    path = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("GADGETRON_EXTERNAL_LOG_LEVEL", "WARNING")


@pytest.fixture(scope="module")
def header() -> bytes:
    return ismrmrd.xsd.ToXML(simulate(SCAN).header).encode()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "scan.h5"
    write_raw(path, simulate(SCAN))
    return path
