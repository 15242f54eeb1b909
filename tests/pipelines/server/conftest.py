"""A server for the tests of a file, and scans without their end."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.server.listener import Server
from tests.pipelines.server.serving import CLOSE, LONG, serving, stream


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


@pytest.fixture(scope="session")
def unfinished(raw: Path) -> bytes:
    """A scan without its CLOSE."""
    return stream(raw)[: -len(CLOSE)]


@pytest.fixture(scope="session")
def long_scan(raw: Path) -> bytes:
    """A scan that computes for minutes, without its CLOSE; no time budget ends its method."""
    return stream(raw, parameters=json.dumps(LONG).encode())[: -len(CLOSE)]


@pytest.fixture(autouse=True)
def log_handlers_stay() -> Iterator[None]:
    """Remove the handlers that commands add to the log, and restore its level."""
    logger = logging.getLogger("genrecon")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
