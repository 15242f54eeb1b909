"""The shipped chains where a Gadgetron server finds them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gadgets.stream import ReconError
from pipelines.chain import read_chain, shipped_chains
from pipelines.cli import app
from pipelines.install import install_configs, python_problem
from tests.paths import ROOT


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "share" / "gadgetron" / "config").mkdir(parents=True)
    return tmp_path


def test_chains_are_written_and_can_be_read(home: Path) -> None:
    written = install_configs(home)
    assert {path.name for path in written} == {f"genrecon_{name}.xml" for name in shipped_chains()}
    assert set((home / "share/gadgetron/config").iterdir()) == set(written)
    for path in written:
        assert read_chain(str(path)).nodes
    assert install_configs(home) == written


def test_changed_chains_are_left_alone(home: Path) -> None:
    first, second, *_ = install_configs(home)
    first.write_text("<!-- ours -->")
    second.unlink()
    with pytest.raises(ReconError, match=rf"changed since they were shipped: {first.name}; --force") as caught:
        install_configs(home)
    assert "\n" not in str(caught.value) and not second.exists()
    install_configs(home, force=True)
    assert read_chain(str(first)).nodes and second.exists()


def test_places_without_gadgetron_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReconError, match="no share/gadgetron/config"):
        install_configs(tmp_path)


@pytest.mark.slow
def test_the_python_that_gadgetron_would_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no python on the PATH" in python_problem()
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 'ModuleNotFoundError: No module named gadgetron' >&2; exit 1\n")
    other.chmod(0o755)
    assert "cannot import the gadgets (ModuleNotFoundError: No module named gadgetron)" in python_problem()
    other.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    assert python_problem() == ""


def test_command_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    result = CliRunner().invoke(app, ["install-configs", "--gadgetron-home", str(home)])
    assert result.exit_code == 0, result.output
    assert "genrecon_svd_wkgm.xml" in result.output
