"""Replays the small files that rebuild public reports; docs/raw_data.md lists the reports and what happens now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.raw_files import MARKER, kspace, marker, replay, write

TENTH_OF_A_PIXEL = 0.1 * 150 / 64  # mm


@pytest.fixture(scope="session")
def data() -> Any:
    """k-space (4, 64, 128) of an axial slice at the origin, 2x oversampled along the readout."""
    return kspace()


@pytest.fixture
def reconstruct(tmp_path: Path) -> Callable[..., Any]:
    """Writes (header, acquisitions) to a file, and replays it; its account and its DICOM datasets."""

    def run(header: str, acquisitions: list[Any], *settings: str) -> Any:
        return replay(write(tmp_path / "scan.h5", (header, acquisitions)), tmp_path / "out", *settings)

    return run


def is_right(dataset: Any, within: float = TENTH_OF_A_PIXEL) -> bool:
    """Whether the marker is where it was put, in mm in patient coordinates."""
    return bool(np.linalg.norm(marker(dataset) - MARKER) < within)
