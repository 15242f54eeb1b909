"""A short run of mutated streams; `python -m benchmarks.fuzz_mrd2` is the long one."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fuzz_mrd2 import fuzz_streams, good_streams, outcome
from tests.pipelines.mrd2.streams import VERSIONS, reader

GOOD = good_streams(list(VERSIONS.values()))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "genrecon")


def test_good_streams_are_read() -> None:
    assert [outcome(stream) for stream in GOOD] == ["read"] * 6


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(GOOD), st.booleans())
def test_made_up_items(made_up: bytes, good: bytes, with_header: bool) -> None:
    text = reader(good).schema.text.encode()
    begin = good[: good.index(text) + len(text)]
    if with_header:
        begin = good[: len(begin) + 300]
    assert outcome(begin + made_up) in {"read", "ended", "refused"}


@pytest.mark.slow
def test_mutated_streams() -> None:
    counts = fuzz_streams(401, schemas=list(VERSIONS.values()))
    assert sum(counts.values()) == 401
    assert min(counts.get(name, 0) for name in ("read", "ended", "refused", "file refused")) > 0
