"""What tests of DICOM files share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def open_umask() -> Iterator[None]:
    """No umask: modes are what the code asks for."""
    before = os.umask(0)
    yield
    os.umask(before)
