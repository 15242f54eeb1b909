"""`genrecon chains`: which chains are shipped."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from pipelines.cli.console import console, print_json
from pipelines.cli.options import Json


def chains(json: Json = False) -> None:
    """List the shipped chains."""
    from pipelines.chain import shipped_chains

    if json:
        print_json(shipped_chains())
        return
    table = Table()
    table.add_column("chain", no_wrap=True)
    table.add_column("what it does")
    for name, text in shipped_chains().items():
        table.add_row(name, escape(text))
    console.print(table)
