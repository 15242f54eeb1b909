"""What MkDocs does not do by itself: formulas as MathML, pages of the top folder, titles for links to pages."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
TOP_PAGES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
NAMED_BY_FILE = re.compile(r"\[(?P<file>\w+\.md)\]\((?P<target>(?P=file)(?:#[\w-]+)?)\)")


def on_files(files: Files, *, config: Any, **_: Any) -> None:
    """Add pages that lie in the top folder; their links into docs/ become links within the site."""
    for name, source in TOP_PAGES.items():
        text = (ROOT / source).read_text().replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))


def on_page_markdown(markdown: str, *, files: Files, **_: Any) -> str:
    """Links as the site has them: to pages of the top folder, and by title where the text is a page's file name."""

    def by_title(found: re.Match[str]) -> str:
        file = files.get_file_from_path(found["file"])
        title = file.page.title if file is not None and file.page is not None else found["file"]
        return f"[{title}]({found['target']})"

    for name, source in TOP_PAGES.items():
        markdown = markdown.replace(f"](../{source})", f"]({name})")
    return NAMED_BY_FILE.sub(by_title, markdown)


def _mathml(found: re.Match[str]) -> str:
    return convert(html.unescape(found[3]), display="inline" if found[2] == "(" else "block")


def on_page_content(content: str, **_: Any) -> str:
    """Formulas as MathML, which browsers draw without a script."""
    return FORMULA.sub(_mathml, content)
