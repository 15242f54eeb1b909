"""What the documents say is what the code does: generated tables, examples, commands."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.chain import shipped_chains
from tests.paths import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_gadgets_page_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "write_gadgets.py"))["gadgets_page"]()
    assert (ROOT / "docs" / "gadgets.md").read_text() == page, "run python docs/write_gadgets.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_names_every_shipped_chain() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in shipped_chains() if f"`{name}`" not in readme] == []


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(tmp_path: Path) -> None:
    code = (ROOT / "README.md").read_text().partition("<!-- python example -->\n```python\n")[2].partition("```")[0]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "1 image in" in result.stdout and list((tmp_path / "out" / "dicom").rglob("*.dcm"))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("package", ["priors", "gadgets", "pipelines"])
def test_the_api_pages_have_every_public_name_once(package: str) -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    shown = re.findall(r"^::: [\w.]+\.(\w+)$", pages, re.MULTILINE)
    assert [name for name in importlib.import_module(package).__all__ if shown.count(name) != 1] == []


def test_the_faq_quotes_messages_as_they_are() -> None:
    page = (ROOT / "docs" / "faq.md").read_text()
    quotes = re.findall(r'^### "(.+)"$', page, re.MULTILINE) + re.findall(
        r"^warning: (?:\w+Gadget: )?(.+)$", page, re.MULTILINE
    )
    files = [path for folder in ("gadgets", "pipelines", "priors") for path in (ROOT / folder).rglob("*.py")]
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text() for path in files))
    parts = {part.strip() for quote in quotes for part in re.split(r"\.\.\.|%s|; the data", quote)}
    assert len(quotes) > 5 and [part for part in sorted(parts) if part not in code] == []
