"""Faults of gadgets, one file of several, interruptions."""

from __future__ import annotations

import errno
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gadgets.espirit import Espirit
from gadgets.generative_recon import GenerativeRecon
from gadgets.twins import RemoveROOversamplingGadget
from tests.pipelines.bad_input.helpers import COMMAND, the_line, tree


def test_the_scan_is_valid(genrecon: Any, raw: Path, tmp_path: Path) -> None:
    """Otherwise the refusals below would prove nothing."""
    code, stdout, stderr = genrecon("replay", raw, "-c", "cg_sense", "-o", tmp_path / "results" / "scan")
    assert (code, stderr) == (0, "")
    assert "2 images, 2 DICOM files" in stdout
    names = sorted(path.name for path in (tmp_path / "results" / "scan").iterdir())
    assert names == ["dicom", "images.h5", "replay.json", "series_001.png"]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["scan"]


@pytest.mark.parametrize("place", ["generative_recon", "RemoveROOversamplingGadget"])
def test_bug_in_a_gadget_is_one_line_too(
    genrecon: Any, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("oops [bold]")

    monkeypatch.setattr(GenerativeRecon, "_work", fail)
    if place != "generative_recon":
        monkeypatch.setattr(RemoveROOversamplingGadget, "_without_oversampling", fail)
    before = tree(tmp_path)
    code, _, stderr = genrecon("replay", raw, "-o", tmp_path / "out")
    expected = f"error: gadget {place}: KeyError: 'oops [bold]' (unexpected; run with --verbose for the traceback)"
    assert (code, the_line(stderr)) == (1, expected)
    code, _, stderr = genrecon("--verbose", "replay", raw, "-o", tmp_path / "out")
    assert code == 1
    assert "Traceback (most recent call last)" in stderr
    assert stderr.splitlines()[-1] == expected
    assert tree(tmp_path) == before


def test_os_error_of_a_gadget_is_not_blamed_on_the_output(
    genrecon: Any, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Espirit, "_attach", fail)
    code, _, stderr = genrecon("replay", raw, "-o", tmp_path / "out")
    assert code == 1
    assert "gadget espirit: OSError: [Errno 5] Input/output error (unexpected" in the_line(stderr)


def test_one_bad_file_of_several(genrecon: Any, raw: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.h5"
    bad.write_text("nothing")
    code, stdout, stderr = genrecon("replay", bad, raw, "-c", "cg_sense", "-o", tmp_path / "out")
    assert code == 1
    first, last = stderr.splitlines()
    assert first.startswith(f"error: {bad}: not an HDF5 file")
    assert last == "error: replay: 1 of 2 files failed; see the lines above"
    assert "2 images" in stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scan"]


@pytest.mark.slow
def test_interruption_leaves_nothing(valid: Path, tmp_path: Path) -> None:
    processes = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        out = tmp_path / number.name / "out"
        arguments = ["replay", str(valid), "-o", str(out), "-c", "l1_wavelet"]
        arguments += ["--set", "generative_recon.iterations=10000"]
        processes[number] = subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    deadline = time.monotonic() + 60.0
    while len(list(tmp_path.glob("SIG*/.out.partial-*/images.h5"))) < 2:
        assert all(process.poll() is None for process in processes.values())
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    start = time.monotonic()
    for number, process in processes.items():
        process.send_signal(number)
    for number, code, text in ((signal.SIGTERM, 143, ""), (signal.SIGINT, 130, "interrupted\n")):
        _, stderr = processes[number].communicate(timeout=30.0)
        assert (processes[number].returncode, stderr) == (code, text)
    assert time.monotonic() - start < 10.0
    assert tree(tmp_path) == {}
