"""What the documents say is what the code does: generated tables, examples, commands."""

from __future__ import annotations

import re
import runpy

import pytest

from pipelines.chain import shipped_chains
from tests.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_gadgets_page_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "write_gadgets.py"))["gadgets_page"]()
    assert (ROOT / "docs" / "gadgets.md").read_text() == page, "run python docs/write_gadgets.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: object) -> None:
    path = ROOT / str(page)
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_names_every_shipped_chain() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for name in shipped_chains() if f"`{name}`" not in readme] == []
