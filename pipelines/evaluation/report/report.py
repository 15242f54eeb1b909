"""Write the page and its pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2

from gadgets.stream import ReconError
from pipelines.evaluation.report import benchmark_page, replay_page
from pipelines.evaluation.report.pictures import Pictures
from pipelines.evaluation.report.reading import RESULTS_FILE, read_json
from pipelines.replay import ACCOUNT_FILE
from pipelines.staging import staged_folder

PAGES = {RESULTS_FILE: benchmark_page, ACCOUNT_FILE: replay_page}

# Folders can hold names of patients: of a path, only the file's name is shown.
_FOLDERS = re.compile(
    r"(?:(?<=[\s'\"=(`:])|^)(?:~|\.{1,2})?/(?:[^/:;,'\"()`]+/)+"
    r"|(?:[^\s/'\"=(`]+/)+(?=[^\s/]+\.(?:h5|xml|npy|npz|cfl|hdr|json|dcm|safetensors)\b)"
)


def without_folders(value: Any) -> Any:
    """A text without the folders of the paths in it; anything else, and markup, as it is."""
    return _FOLDERS.sub("", value) if type(value) is str else value


_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("pipelines.evaluation.report"),
    autoescape=True,
    finalize=without_folders,  # of all that the templates print
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters["spec"] = lambda value, form: "–" if value is None else format(value, form)


def report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page about the folder of a benchmark or a replay, and its images as PNG next to it.

    Parameters
    ----------
    folder : holds results.json (of a benchmark; used where both are there) or replay.json and images.h5 (of a replay)
    out : page to write, .html; None writes report.html into `folder`. The PNGs go to a folder of its name next to it

    Returns
    -------
    The page. It loads nothing from elsewhere, and shows no patient data but the images.

    Raises
    ------
    ReconError
        The folder's files cannot be used, or the page cannot be written; an earlier page stays.
    """
    folder = Path(folder)
    out = Path(out) if out is not None else folder / "report.html"
    if out.suffix.lower() not in {".html", ".htm"}:
        raise ReconError(f"{out}: cannot become the report; choose a file that ends with .html")
    name = next((name for name in PAGES if (folder / name).is_file()), None)
    if name is None:
        raise ReconError(
            f"{folder}: holds neither {RESULTS_FILE} nor {ACCOUNT_FILE}; run `genrecon benchmark` or `genrecon replay` "
            "into it first"
        )
    pictures, page = Pictures(without_folders), PAGES[name]
    content = page.content(folder / name, read_json(folder / name), pictures)
    html = _templates.get_template(page.TEMPLATE).render(content)
    with staged_folder(out.absolute().parent) as staging:
        (staging / out.stem).mkdir()
        for file, png in pictures.files.items():
            (staging / out.stem / file).write_bytes(png)
        (staging / out.name).write_text(html, encoding="utf-8")
    return out
