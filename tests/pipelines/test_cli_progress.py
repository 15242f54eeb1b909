"""Progress without a terminal, --quiet, --json, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app, console
from tests.pipelines.bad_input.helpers import tree

SMALL = ["--matrix", "48,48", "--coils", "4", "--calibration-lines", "16", "--slices", "2", "--no-noise-scan"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "scan.h5"
    assert CliRunner().invoke(app, ["simulate", str(path), *SMALL]).exit_code == 0
    return path


def test_lines_of_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "PROGRESS_INTERVAL_S", 0.02)

    def line(start: str) -> Callable[[], bool]:
        return lambda: any(text.startswith(start) for text in capsys.readouterr().err.splitlines())

    with console.progress_bar(8, "acquisitions") as update:
        _until(line("waiting: 0 of 8 acquisitions after 0:00:0"))
        update(3, "a.h5[b]: 1 images")
        _until(line("a.h5[b]: 1 images: 3 of 8 acquisitions after 0:00:0"))
    capsys.readouterr()
    with console.progress_bar(None, "images") as update:
        update(5, "from a server")
        _until(line("from a server: 5 images after 0:00:0"))
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_json_of_every_command_that_has_it(raw: Path, tmp_path: Path) -> None:
    def printed(*arguments: object) -> dict[str, object]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    account = printed("replay", raw, "-o", tmp_path / "out", "--json", "--quiet")
    assert account["images"] == 2 and account["folder"] == str(tmp_path / "out")
    assert printed("info", raw, "--json")["coils"] == "4"
    assert printed("info", raw, "--json")["warning"] == []
    assert "cg_sense" in printed("chains", "--json")


def test_quiet_prints_warnings_and_errors_only(raw: Path, tmp_path: Path) -> None:
    arguments = ["replay", str(raw), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--quiet"])
    assert (result.exit_code, result.stdout) == (0, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: ") and "noise" in line
    assert (tmp_path / "out" / "replay.json").exists()
    result = CliRunner().invoke(app, arguments)
    assert "2 images" in result.stdout  # quiet is of one run


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 0.6, 1.2, 2.0, 3.0])
def test_ctrl_c_ends_in_one_line(raw: Path, tmp_path: Path, seconds: float) -> None:
    """Also while modules are imported."""
    code = "from pipelines.cli import main; print('begins', flush=True); main()"
    arguments = ["replay", str(raw), "-c", "l1_wavelet", "-o", str(tmp_path / "out")]
    arguments += ["--set", "generative_recon.iterations=10000"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "interrupted\n")
    assert tree(tmp_path) == {}


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
