"""Benchmark entries: methods that are wrong or cannot run."""

from __future__ import annotations

import pytest

from gadgets.stream import ReconError
from pipelines.evaluation.entries import default_entries, read_entry


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magic", "property 'method' is 'magic'; it must be one of 'zero_filled', 'cg_sense'"),
        ("cg_sense:iterations", "give METHOD or METHOD:property=value"),
        ("cg_sense:iterations=many", "property 'iterations' is 'many'"),
        ("cg_sense:kernel=5", "'kernel' means nothing to method cg_sense; it is for grappa"),
        ("cg_sense:intensity=100", "the benchmark sets intensity itself"),
        ("wkgm:method=cg_sense", "the benchmark sets method itself"),
        ("cg_sense:nonsense=5", "unknown property 'nonsense'"),
        ("wkgm:prior=/nowhere.safetensors", "cannot be read"),
    ],
)
def test_wrong_methods(text, message):
    with pytest.raises(ReconError, match=message) as caught:
        read_entry(text)
    assert "\n" not in str(caught.value)


def test_a_missing_program(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ReconError, match="method bart_pics needs the program bart; install the BART toolbox"):
        read_entry("bart_pics")
    assert "bart_pics" not in [entry.method for entry in default_entries()]
