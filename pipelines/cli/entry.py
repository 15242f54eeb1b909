"""Joins the commands of `genrecon`; `main` is where the program starts and ends."""

from __future__ import annotations

import _thread
import contextlib
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

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
from pipelines.cli.console import console, errors, log_to_stderr, print_error
from pipelines.cli.interruption import INTERRUPTED
from pipelines.cli.train import train
from pipelines.server.processes import configure_malloc

_interrupts: list[int] = []  # signals of Ctrl-C that came
OPTIONS = ("-v", "--verbose", "-q", "--quiet")  # that may also follow the command


class Commands(TyperGroup):
    """The commands; Ctrl-C ends one with one line, after its half-written files were removed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        moved = [text for text in args if text in OPTIONS]
        return super().parse_args(ctx, moved + [text for text in args if text not in OPTIONS])

    def invoke(self, ctx: Any) -> Any:
        """See click."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)  # Typer's own end of it depends on its version


app = typer.Typer(
    name="genrecon",
    cls=Commands,
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
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what every gadget does.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand != "stream":  # whose memory must not depend on the length of a scan
        configure_malloc()
    logger = logging.getLogger("genrecon")
    logger.setLevel(logging.WARNING)
    if verbose:
        log_to_stderr()
    else:
        logger.addHandler(logging.NullHandler())  # each command prints the warnings itself
    console.quiet = quiet


def main() -> None:
    """Run the command line; an error ends it with one line on stderr and exit code 1."""
    for printed in (sys.stdout, sys.stderr):
        if isinstance(printed, io.TextIOWrapper):
            printed.reconfigure(errors="replace")  # a terminal that cannot show a character is no error
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # runs the clean-up of half-written files
    # Tracebacks that libraries print from destructors (HDF5 on a full disk) go to the log.
    logger = logging.getLogger("genrecon")
    sys.excepthook = lambda _kind, error, _trace: logger.info("traceback", exc_info=error)
    sys.unraisablehook = _unraisable
    signal.signal(signal.SIGINT, _interrupt)
    try:
        typer.main.get_command(app)()  # app() would set an excepthook of its own
    except SystemExit as end:
        if not end.code:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done; the interpreter would print a traceback
            raise
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        # Compiled modules make another error of one that comes while they are imported.
        code = INTERRUPTED if _interrupts and isinstance(error, (ImportError, SystemError)) else 1
        if code == 1:
            print_error(error)
    if code == INTERRUPTED:
        errors.print("interrupted")
    _exit_now(code)


def _interrupt(number: int, _frame: Any) -> NoReturn:
    _interrupts.append(number)
    warnings.simplefilter("ignore")  # of files that stay open where an import is interrupted
    raise KeyboardInterrupt


def _unraisable(about: Any) -> None:
    if isinstance(about.exc_value, KeyboardInterrupt):  # Ctrl-C came in a destructor
        threading.Timer(0.01, _thread.interrupt_main).start()  # again, when this one is over
    else:
        logging.getLogger("genrecon").info("traceback", exc_info=about.exc_value)


def _exit_now(code: int) -> NoReturn:
    """Exit without finalisers: threads of gadgets that still compute, and HDF5 on a full disk, crash in them."""
    for printed in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            printed.flush()
    os._exit(code)
