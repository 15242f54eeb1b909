"""Where there is no folder to cache compiled code in, SigPy still imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import priors
from tests.paths import ROOT


def test_numba_has_a_folder_where_the_user_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "x")  # for what is set now to end with the test
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(priors, "_is_writable", lambda _: False)
    monkeypatch.setattr(priors.tempfile, "tempdir", str(tmp_path))
    priors._let_numba_cache()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o077 == 0
    priors._let_numba_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == str(folder)


def test_folders_are_tried(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert priors._is_writable(tmp_path / "a" / "b") and not priors._is_writable(tmp_path / "file" / "b")


def test_it_is_gone_with_the_process(tmp_path: Path) -> None:
    code = "import priors; priors._is_writable = lambda _: False; priors._let_numba_cache(); import sigpy"
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not list(tmp_path.iterdir())
