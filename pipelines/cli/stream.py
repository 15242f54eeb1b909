"""`genrecon stream`: MRD 2 raw data in, MRD 2 images out, as a program in a pipe."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from gadgets.errors import ReconError, reason_of
from pipelines.cli.console import errors
from pipelines.cli.options import DEFAULT_CHAIN

STANDARD = "-"


def stream(
    config: Annotated[
        str, typer.Option("--config", "-c", help="Chain: a name of `genrecon chains`, or an XML file.")
    ] = DEFAULT_CHAIN,
    source: Annotated[
        str, typer.Option("--input", "-i", help="MRD 2 stream to read; - for standard input.")
    ] = STANDARD,
    sink: Annotated[
        str, typer.Option("--output", "-o", help="MRD 2 stream to write; - for standard output.")
    ] = STANDARD,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="gadget.property=value, overrides the chain; repeatable.")
    ] = None,
    noise: Annotated[
        str,
        typer.Option(help="Noise scan to prewhiten with: a raw file.  [default: the noise lines of the input]"),
    ] = "",
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="Read the whole scan before the first image: one pixel scale for all images, as in a replay.",
        ),
    ] = False,
    memory: Annotated[float, typer.Option(min=0.1, help="Most memory of a scan in GiB, estimated.")] = 16.0,
) -> None:
    """Reconstruct an MRD 2 stream: raw data in, images out, each as soon as it is finished.

    For pipes and containers: standard output carries nothing but the stream, messages go to standard error, and the
    exit code is 0 only when the whole scan was reconstructed. An output file appears only then.
    """
    from pipelines.raw.standard_input import raw_file
    from pipelines.replay import configured_chain
    from pipelines.stream import StreamResult, reconstruct_stream, reconstruct_whole

    chain = configured_chain(config, settings)
    result = StreamResult()
    try:
        with _output(sink) as written:
            if whole:
                _check_terminal(source)
                with raw_file(Path(source)) as path:
                    reconstruct_whole(path, written, chain, noise=noise, result=result)
            else:
                with _input(source) as read:
                    reconstruct_stream(read, written, chain, noise=noise, memory_gib=memory, result=result)
    finally:
        for text in result.warnings:
            errors.print(f"[yellow]warning:[/] {escape(text)}")
    if result.noise_coils:
        errors.print(f"a noise measurement of {result.noise_coils} coils: it has no image")


@contextlib.contextmanager
def _input(name: str) -> Iterator[int]:
    _check_terminal(name)
    if name == STANDARD:
        yield sys.stdin.fileno()
        return
    try:
        descriptor = os.open(name, os.O_RDONLY)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(21, "it is a folder")
    except OSError as error:
        raise ReconError(f"{name}: cannot be read ({reason_of(error)}); give the path of an MRD 2 stream") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_terminal(name: str) -> None:
    if name == STANDARD and (sys.stdin is None or sys.stdin.isatty()):
        raise ReconError("stream: standard input is a terminal; pipe an MRD 2 stream into it, or give --input FILE")


@contextlib.contextmanager
def _output(name: str) -> Iterator[int]:
    """A descriptor for the stream; what anything else prints to standard output goes to standard error meanwhile."""
    from pipelines.staging import staged_file

    if name != STANDARD:
        with staged_file(Path(name)) as written:
            yield written
        return
    if sys.stdout is None or sys.stdout.isatty():
        raise ReconError("stream: standard output is a terminal; pipe it into a program, or give --output FILE")
    number = sys.stdout.fileno()
    sys.stdout.flush()
    written = os.dup(number)
    os.dup2(sys.stderr.fileno(), number)
    try:
        yield written
    finally:
        sys.stdout.flush()
        os.dup2(written, number)
        os.close(written)
