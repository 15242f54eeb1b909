"""`genrecon listen`: one gadget as a server, for <connect>."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import Annotated

import typer

from gadgets.errors import ReconError, one_line
from pipelines.cli.console import log_to_stderr


def listen(
    port: Annotated[
        int, typer.Argument(min=1, max=65535, help="Port that <connect port=...> names.", show_default=False)
    ],
    gadget: Annotated[str, typer.Argument(help="MODULE:CLASS of a gadget.")] = "gadgets.reconstruction:Reconstruction",
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Keep a gadget loaded for Gadgetron's <connect>, scan after scan, until the process is stopped."""
    import importlib

    from gadgets.stream import Gadget
    from gadgets.stream.listener import listen as serve

    module, _, target = gadget.partition(":")
    try:
        kind = getattr(importlib.import_module(module), target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ReconError(f"listen: {gadget} cannot be loaded ({one_line(error)}); give MODULE:CLASS") from None
    if not (isinstance(kind, type) and issubclass(kind, Gadget)):
        raise ReconError(f"listen: {gadget} is not a gadget; give MODULE:CLASS of one")
    log_to_stderr()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # a service is stopped this way
    with contextlib.suppress(KeyboardInterrupt):
        serve(port, kind, bind)
