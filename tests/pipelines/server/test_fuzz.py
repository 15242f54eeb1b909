"""A short run of mutated and of made-up streams; `python -m benchmarks.fuzz` is the long one."""

from __future__ import annotations

import logging
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import LENGTHS, fuzz_server, good_streams, outcome
from tests.pipelines.server.serving import FORK_SERVER

IDS = st.sampled_from((0, 1, 2, 3, 4, 5, 6, 8, 1008, 1022, 1026, 1050, 65535)) | st.integers(0, 65535)
SIZES = st.sampled_from(LENGTHS) | st.integers(0, 4096)
MESSAGES = st.builds(
    lambda number, size, wide, body: (
        struct.pack("<H", number) + struct.pack("<Q", size)[: 8 if wide else 4] + body
    ),
    IDS, SIZES, st.booleans(), st.binary(max_size=600),
)  # fmt: skip


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "genrecon")


def test_good_streams_are_read() -> None:
    assert [outcome(stream) for stream in good_streams()] == ["read"] * 3


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MESSAGES, max_size=6), st.integers(0, 2))
def test_made_up_messages(messages: list[bytes], good: int) -> None:
    stream = good_streams_once()[good]
    begin = stream[: stream.index(struct.pack("<H", 1008), 1100)]
    for prefix in (b"", begin):
        assert outcome(prefix + b"".join(messages)) in {"left", "query", "gone", "refused", "read"}


_once: list[bytes] = []


def good_streams_once() -> list[bytes]:
    if not _once:
        _once.extend(good_streams())
    return _once


@pytest.mark.slow
def test_mutated_streams() -> None:
    counts = fuzz_server(800, fork_server=FORK_SERVER)
    assert sum(counts.values()) == 800
    assert min(counts[name] for name in ("read", "gone", "refused", "to the server")) > 0
