"""Runs a script of the gallery cell by cell, and makes a page of it: texts, code, what it printed, figures.

python docs/rendering/gallery.py docs/gallery/03_sense_to_svd_wkgm.py OUT      # OUT gets NAME.md and NAME_N.png
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARKER = re.compile(r"^# %%(?P<markdown> \[markdown\])?.*$", re.MULTILINE)


def cells(text: str) -> Iterator[tuple[bool, str]]:
    """Cells of a py:percent script: whether it is text, and its content."""
    starts = list(MARKER.finditer(text))
    ends = [start.start() for start in starts[1:]] + [len(text)]
    for start, end in zip(starts, ends, strict=True):
        body = text[start.end() : end].strip("\n")
        if start["markdown"]:
            yield True, "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
        else:
            yield False, body


def run(script: Path, out: Path) -> Path:
    """Run a script, its page and figures into a folder. Any warning or error of the script is raised."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    page: list[str] = []
    figures: list[str] = []

    def show(*_: Any, **__: Any) -> None:
        for number in plt.get_fignums():
            name = f"{script.stem}_{len(figures) + 1}.png"
            plt.figure(number).savefig(out / name, dpi=90, bbox_inches="tight")
            figures.append(name)
        plt.close("all")

    plt.show = show
    for is_text, body in cells(script.read_text()):
        if is_text:
            page.append(body)
            continue
        before, printed = len(figures), io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            exec(compile(body, str(script), "exec"), namespace)
        page.append(f"```python\n{body}\n```")
        if text := printed.getvalue().strip():
            page.append(f"```text\n{text}\n```")
        page += [f"![figure]({name})" for name in figures[before:]]
    result = out / f"{script.stem}.md"
    result.write_text("\n\n".join(page) + "\n")
    return result


if __name__ == "__main__":
    print(run(Path(sys.argv[1]), Path(sys.argv[2])))
