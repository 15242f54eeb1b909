"""Joins the commands of `genrecon`; `main` is where the program starts and ends."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, NoReturn

import typer

from pipelines.cli import (
    benchmark,
    chains,
    deliver,
    demo,
    info,
    install,
    listen,
    openrecon_package,
    replay,
    report,
    send,
    serve,
    simulate,
    stability,
    stream,
)
from pipelines.cli.console import console, log_to_stderr, print_error
from pipelines.cli.train import train
from pipelines.server.processes import configure_malloc

app = typer.Typer(
    name="genrecon",
    help="Generative MR reconstruction: raw ISMRMRD data in, DICOM out, with Gadgetron or without.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "replay": replay.replay,
    "stream": stream.stream,
    "serve": serve.serve,
    "send": send.send,
    "install-configs": install.install_configs,
    "chains": chains.chains,
    "info": info.info,
    "simulate": simulate.simulate,
    "demo": demo.demo,
    "benchmark": benchmark.benchmark,
    "stability": stability.stability,
    "report": report.report,
    "listen": listen.listen,
    "deliver": deliver.deliver,
    "openrecon-package": openrecon_package.openrecon_package,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.command(no_args_is_help=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"genrecon {metadata.version('gadgetron-genrecon')}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what every gadget does.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    logger = logging.getLogger("genrecon")
    logger.setLevel(logging.WARNING)
    if verbose:
        log_to_stderr()
    else:
        logger.addHandler(logging.NullHandler())  # each command prints the warnings itself


def main() -> None:
    """Run the command line; an error ends it with one line on stderr and exit code 1."""
    for printed in (sys.stdout, sys.stderr):
        if isinstance(printed, io.TextIOWrapper):
            printed.reconfigure(errors="replace")  # a terminal that cannot show a character is no error
    configure_malloc()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # runs the clean-up of half-written files
    # Tracebacks that libraries print from destructors (HDF5 on a full disk) go to the log.
    logger = logging.getLogger("genrecon")
    sys.excepthook = lambda _kind, error, _trace: logger.info("traceback", exc_info=error)
    sys.unraisablehook = lambda about: logger.info("traceback", exc_info=about.exc_value)
    try:
        typer.main.get_command(app)()  # app() would set an excepthook of its own
    except SystemExit as end:
        if not end.code:
            raise
        _exit_now(end.code if isinstance(end.code, int) else 1)
    except Exception as error:
        print_error(error)
        _exit_now(1)


def _exit_now(code: int) -> NoReturn:
    """Exit without finalisers: threads of gadgets that still compute, and HDF5 on a full disk, crash in them."""
    for printed in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            printed.flush()
    os._exit(code)
