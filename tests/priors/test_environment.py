"""The environment that torch and Numba read is set before they are imported, whatever is imported first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from priors import environment
from tests.paths import ROOT

# Prints what is set when a module asks for torch, which it does not get: its import takes seconds.
AT_IMPORT_OF_TORCH = """
import importlib, json, os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(json.dumps([os.environ.get("OMP_WAIT_POLICY"), os.environ.get("OPENBLAS_NUM_THREADS")]), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Finder())
importlib.import_module(sys.argv[1])
import torch
"""
HEAVY = {"torch", "numpy", "scipy", "sigpy", "numba"}


def python(code: str, *arguments: str, **variables: str) -> str:
    """What a new Python prints that has none of these variables but those given."""
    removed = ("OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS", "NUMBA_CACHE_DIR")
    variables = {name: value for name, value in os.environ.items() if name not in removed} | variables
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, env=variables | {"PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


@pytest.mark.parametrize(
    "module", ["priors", "gadgets.reconstruction", "pipelines.chain", "pipelines.cli", "benchmarks.hkgm"]
)
def test_threads_are_set_before_torch_is_imported(module: str) -> None:
    assert json.loads(python(AT_IMPORT_OF_TORCH, module)) == ["PASSIVE", "1"]


def test_settings_of_the_user_stay() -> None:
    found = python(AT_IMPORT_OF_TORCH, "priors", OMP_WAIT_POLICY="ACTIVE", OPENBLAS_NUM_THREADS="3")
    assert json.loads(found) == ["ACTIVE", "3"]


@pytest.mark.parametrize("package", ["priors", "gadgets", "pipelines", "benchmarks"])
def test_a_package_alone_imports_no_large_library(package: str) -> None:
    assert not HEAVY & set(python(f"import {package}, sys; print(*sys.modules)").split())


def test_numba_has_a_folder_where_the_user_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "x")  # for what is set now to end with the test
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(environment, "_is_writable", lambda _: False)
    monkeypatch.setattr(environment.tempfile, "tempdir", str(tmp_path))
    environment.ensure_numba_cache()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o077 == 0
    environment.ensure_numba_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == str(folder)


def test_folders_are_tried(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert environment._is_writable(tmp_path / "a" / "b") and not environment._is_writable(tmp_path / "file" / "b")


@pytest.mark.slow
def test_the_cache_folder_is_removed_at_the_end_of_the_process(tmp_path: Path) -> None:
    code = "from priors import environment as e; e._is_writable = lambda _: False; e.ensure_numba_cache(); import sigpy"
    python(code, TMPDIR=str(tmp_path))
    assert not list(tmp_path.iterdir())
