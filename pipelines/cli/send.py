"""`genrecon send`: a scan to a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from gadgets.errors import ReconError
from pipelines.cli.console import errors, print_line, print_warning
from pipelines.cli.options import DEFAULT_CHAIN, Group, RawFile


def send(
    raw: RawFile,
    group: Group = "",
    config: Annotated[
        str, typer.Option("--config", "-c", help="Chain: an XML file, which is sent, or a name that the server knows.")
    ] = DEFAULT_CHAIN,
    host: Annotated[str, typer.Option(help="Host of the server.")] = "localhost",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server.")] = 9002,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for images.h5; without it, images are only counted.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="gadget.property=value, or a flat name of `genrecon serve` (samples=4), as FIRE sends it; repeatable.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds without data from the server after which the command fails.")
    ] = 600.0,
) -> None:
    """Send a scan to a server, Gadgetron's or `genrecon serve`, and count its images.

    The exit code is 1 when the server reports an error, stays silent, or sends no image of a scan.
    """
    from pipelines.raw.standard_input import raw_file
    from pipelines.send import send as run

    pairs = [text.partition("=") for text in settings or []]
    if not all(name and name.strip(".") == name and equals for name, equals, _ in pairs):
        raise ReconError("--set: give NAME=VALUE, for instance generative_recon.method=cg_sense or samples=4")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with raw_file(raw) as path:
        result = run(
            path,
            config,
            address,
            group=group,
            out=out,
            parameters={name: value for name, _, value in pairs},
            timeout=timeout,
        )
    for text in result.warnings:
        print_warning(f"warning: {text}")
    for text in result.texts:
        errors.print(escape(text))
    if not result.images:
        print_line("a noise measurement: no image is due")
        return
    print_line(
        f"{result.images} images, the first after {result.first_image_s:.2f} s, the last after "
        f"{result.last_image_s:.2f} s"
    )
