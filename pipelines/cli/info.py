"""`genrecon info`: what a raw file holds."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from pipelines.cli.console import console
from pipelines.cli.options import RawFile


def info(raw: RawFile) -> None:
    """Show header, acquisitions and sampling of a raw file, without patient data."""
    from pipelines.info import describe

    table = Table(title=escape(str(raw)), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in describe(raw):
        table.add_row(name, escape(text))
    console.print(table)
