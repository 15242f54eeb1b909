"""Every script of the gallery runs, shows figures, and is a notebook too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest
from PIL import Image

from tests.paths import ROOT

SCRIPTS = sorted((ROOT / "docs" / "gallery").glob("*.py"))


def test_there_are_ten_examples() -> None:
    assert len(SCRIPTS) == 10


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_a_notebook(script: Path, tmp_path: Path) -> None:
    notebook = jupytext.read(script)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown" and notebook.cells[0].source.startswith("# ")
    assert kinds.count("code") >= 3 and kinds.count("markdown") >= 3
    jupytext.write(notebook, tmp_path / "notebook.ipynb")
    again = jupytext.read(tmp_path / "notebook.ipynb")
    assert [cell.source for cell in again.cells] == [cell.source for cell in notebook.cells]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_runs_and_shows_figures(script: Path, tmp_path: Path) -> None:
    runner = ROOT / "docs" / "rendering" / "gallery.py"
    pages = Path(os.environ.get("GENRECON_GALLERY", tmp_path / "pages"))  # .ci/run makes the site of them
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLCONFIGDIR": str(tmp_path)}
    command = [
        sys.executable,
        "-W",
        "error::DeprecationWarning:__main__",
        str(runner),
        str(script),
        str(pages),
    ]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    page = (pages / f"{script.stem}.md").read_text()
    figures = sorted(pages.glob(f"{script.stem}_*.png"))
    assert figures and all(f"({figure.name})" in page for figure in figures)
    for figure in figures:
        extrema = Image.open(figure).convert("L").getextrema()
        assert extrema[1] - extrema[0] > 100, f"{figure.name} shows nothing"
