"""Cases of two small phantoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sigpy

from pipelines.evaluation.cases import BenchmarkCases, Case

SIZE = 48


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """Two complex images (slice, y, x)."""
    path = tmp_path_factory.mktemp("data") / "phantoms.npy"
    one = sigpy.shepp_logan((SIZE, SIZE)).astype(np.complex64)
    np.save(path, np.stack([one, 0.5 * one[::-1]]))
    return path


@pytest.fixture(scope="session")
def cases(images) -> list[Case]:
    return BenchmarkCases((images,), coils=4, patterns=("uniform:2",), noise=(0.0, 0.01)).cases()
