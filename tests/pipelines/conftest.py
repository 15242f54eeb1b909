from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.server.serving import write_scan


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scan `tests.pipelines.server.serving.SCAN`."""
    return write_scan(tmp_path_factory.mktemp("serve"))
