"""What MkDocs does not do by itself: formulas as MathML, pages of the top folder and the gallery, titles of pages."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import jupytext
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
TOP_PAGES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
NAMED_BY_FILE = re.compile(r"\[(?P<file>\w+\.md)\]\((?P<target>(?P=file)(?:#[\w-]+)?)\)")
SCRIPTS = sorted((ROOT / "docs" / "gallery").glob("*.py"))
RAN = ROOT / "build" / "gallery"  # pages and figures of the scripts that tests/test_gallery.py ran


def on_config(config: Any) -> None:
    """Put the examples into the navigation, where it says `Gallery: gallery`."""
    pages = ["gallery/index.md", *(f"gallery/{script.stem}.md" for script in SCRIPTS)]
    config.nav = [{"Gallery": pages} if entry == {"Gallery": "gallery"} else entry for entry in config.nav]


def on_files(files: Files, *, config: Any, **_: Any) -> None:
    """Add pages that lie in the top folder; their links into docs/ become links within the site. Add the gallery."""
    for name, source in TOP_PAGES.items():
        text = (ROOT / source).read_text().replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    for script in SCRIPTS:
        _add_example(script, files, config)


def _add_example(script: Path, files: Files, config: Any) -> None:
    """A page with what the script printed and showed where it was run, else with its text and code; a notebook."""
    name = script.stem
    notebook = jupytext.read(script)
    page = RAN / f"{name}.md"
    if page.exists():
        text = page.read_text()
        for figure in sorted(RAN.glob(f"{name}_*.png")):
            files.append(File.generated(config, f"gallery/{figure.name}", abs_src_path=str(figure)))
    else:
        parts = (
            cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```" for cell in notebook.cells
        )
        text = "\n\n".join(parts)
    links = f"\n\n[This example as a notebook]({name}.ipynb) · [as a script]({name}.py)\n"
    files.append(File.generated(config, f"gallery/{name}.md", content=text + links))
    files.append(File.generated(config, f"gallery/{name}.ipynb", content=jupytext.writes(notebook, "ipynb")))


def _line_of_contents(script: Path) -> str:
    title, introduction = jupytext.read(script).cells[0].source.removeprefix("# ").split("\n\n")[:2]
    return f"- **[{title}]({script.stem}.md)** " + " ".join(introduction.split())


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: Any) -> str:
    """Links as the site has them: to pages of the top folder, and by title where the text is a page's file name."""
    if page.file.src_uri == "gallery/index.md":
        markdown += "\n" + "\n".join(map(_line_of_contents, SCRIPTS))

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
