"""`genrecon info`: what a raw file holds."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from pipelines.cli.console import console, print_json
from pipelines.cli.options import Group, Json, RawFile


def info(raw: RawFile, group: Group = "", json: Json = False) -> None:
    """Show header, acquisitions and sampling of a raw file, without patient data.

    Of a file with several measurements it lists them, and shows the one that a replay takes.
    """
    from pipelines.info import describe
    from pipelines.raw.standard_input import raw_file

    with raw_file(raw) as path:
        rows = describe(path, group)
    if json:
        lists = {name: [text for own, text in rows if own == name] for name in ("measurement", "warning")}
        print_json({**dict(rows), **lists})
        return
    table = Table(title=escape(str(raw)), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, escape(text))
    console.print(table)
