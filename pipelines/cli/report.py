"""`genrecon report`: one page of a benchmark or a replay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import print_line


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a benchmark or a replay.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file to write.  [default: FOLDER/report.html]")
    ] = None,
) -> None:
    """Write one HTML page of a benchmark or a replay: images, errors, enlarged details, times; no patient data."""
    from pipelines.evaluation.report import report as run

    print_line(run(folder, out))
