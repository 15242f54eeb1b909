"""A valid scan that tests spoil, and the command line in this process."""

from __future__ import annotations

import logging
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import entry as cli
from pipelines.simulation import simulate, write_raw
from tests.pipelines.bad_input.helpers import SMALL, the_line, tree


@pytest.fixture(scope="session")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "valid.h5"
    write_raw(path, simulate(SMALL))
    return path


@pytest.fixture
def raw(valid: Path, tmp_path: Path) -> Path:
    """A copy of a valid scan, to be spoilt."""
    return Path(shutil.copy(valid, tmp_path / "scan.h5"))


class Stopped(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def genrecon(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Runs the command line in this process: arguments in, (exit code, stdout, stderr) out."""

    def stop(code: int) -> None:
        raise Stopped(code)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["genrecon", *map(str, arguments)])
        try:
            cli.main()
        except Stopped as end:
            code = end.args[0]
        except SystemExit as end:
            code = end.code or 0
        else:
            code = 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    logger = logging.getLogger("genrecon")
    handlers, level, on_terminate = list(logger.handlers), logger.level, signal.getsignal(signal.SIGTERM)
    for name in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setattr(cli, "_exit_now", stop)
    yield run
    signal.signal(signal.SIGTERM, on_terminate)
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def refused(genrecon: Any, tmp_path: Path) -> Callable[..., str]:
    """Replays, expects a refusal that leaves every file below tmp_path as it was, and gives its line."""

    def run(*arguments: object, out: Path | None = None) -> str:
        chosen = out or tmp_path / "results" / "of" / "scan"
        before = tree(tmp_path)
        code, _, stderr = genrecon("replay", *arguments, "--out", chosen)
        assert code == 1, stderr
        assert tree(tmp_path) == before
        line = the_line(stderr)
        assert "unexpected" not in line
        return line

    return run
