"""`genrecon install-configs`: the shipped chains into a Gadgetron installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import errors, print_line


def install_configs(
    home: Annotated[
        Path,
        typer.Option("--gadgetron-home", envvar="GADGETRON_HOME", help="Prefix that Gadgetron is installed under."),
    ],
    force: Annotated[bool, typer.Option(help="Overwrite chains that were changed there.")] = False,
) -> None:
    """Copy the shipped chains, as genrecon_NAME.xml, to where a Gadgetron server finds them."""
    from pipelines.install import install_configs as install
    from pipelines.install import python_problem

    for path in install(home, force):
        print_line(path)
    problem = python_problem()
    if problem:
        errors.print(f"warning: {problem}; put a working python on the PATH of the server", markup=False)
