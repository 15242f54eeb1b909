"""The table of public reports in docs/raw_data.md names every report that a test stands for."""

from __future__ import annotations

import re
from pathlib import Path

from tests.paths import ROOT

REPORT = re.compile(r"\b([A-Za-z][\w.-]*)#(\d+)")
NEXT = re.compile(r"\b([A-Za-z][\w.-]*)#\d+((?:, #\d+)+)")  # gadgetron#509, #529


def reports(text: str) -> set[str]:
    found = {f"{name}#{number}" for name, number in REPORT.findall(text)}
    for name, numbers in NEXT.findall(text):
        found |= {f"{name}#{number}" for number in re.findall(r"\d+", numbers)}
    return found


def test_every_report_of_a_test_is_in_the_table() -> None:
    tests = "".join(
        path.read_text() for path in sorted(Path(__file__).parent.glob("test_*.py")) if path.name != "test_table.py"
    )
    assert reports(tests)
    assert reports(tests) - reports((ROOT / "docs" / "raw_data.md").read_text()) == set()


def test_every_link_of_the_table_leads_to_its_report() -> None:
    page = (ROOT / "docs" / "raw_data.md").read_text()
    links = re.findall(r"\[([\w.-]+)#(\d+)\]\(https://github.com/[\w-]+/([\w.-]+)/issues/(\d+)\)", page)
    assert len(links) > 80
    assert [link for link in links if link[0] != link[2] or link[1] != link[3]] == []
