"""`genrecon send`: a scan to a server."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from gadgets.errors import ReconError
from pipelines.cli.console import errors, print_line, print_warning, printed_warnings
from pipelines.cli.options import DEFAULT_CHAIN, Group

if TYPE_CHECKING:
    from pipelines.kept.scan import About, KeptScan
    from pipelines.send import SendResult


def send(
    raw: Annotated[
        Path | None,
        typer.Argument(
            help="Raw file: ISMRMRD or fastMRI (.h5), an MRD stream; - for standard input. With --again: number, id or "
            "file of a kept scan.  [default with --again: the latest]",
            show_default=False,
        ),
    ] = None,
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
    again: Annotated[
        bool, typer.Option("--again", help="Send a scan that serve --keep-raw kept, with its own chain and parameters.")
    ] = False,
    retrieve: Annotated[
        str | None, typer.Option(help="Id of a scan whose late images are fetched; no raw file is sent.", metavar="ID")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait for late images of --retrieve that are not ready.")
    ] = 0.0,
    listed: Annotated[bool, typer.Option("--list", help="List the kept scans, and send none.")] = False,
    kept: Annotated[
        Path, typer.Option(help="Folder of the kept scans, for --again and --list.", envvar="GENRECON_KEEP_RAW")
    ] = Path("kept-raw"),
) -> None:
    """Send a scan to a server, Gadgetron's or `genrecon serve`, and count its images.

    The exit code is 1 when the server reports an error, stays silent, or sends no image of a scan.
    """
    from pipelines.raw.standard_input import raw_file
    from pipelines.send import send as run

    if listed:
        return _print_kept(kept)
    pairs = [text.partition("=") for text in settings or []]
    if not all(name and name.strip(".") == name and equals for name, equals, _ in pairs):
        raise ReconError("--set: give NAME=VALUE, for instance generative_recon.method=cg_sense or samples=4")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if retrieve is not None:
        if not retrieve.strip():
            raise ReconError("send: --retrieve: the id is empty; give the one that the server's answer had")
        if again or raw is not None:
            raise ReconError("send: --retrieve sends no scan; leave out the raw file and --again")
        from pipelines.send import retrieve as fetch

        return _print_result(fetch(retrieve, address, wait_s=wait, out=out, timeout=timeout))
    if again:
        if pairs:
            raise ReconError("send: --again sends the parameters that were kept; leave out --set")
        return _print_result(_send_again(raw, kept, address, out, timeout))
    if raw is None:
        raise ReconError("send: name a raw file, or give --again for a scan that a server kept")
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
    _print_result(result)


def _send_again(wanted: Path | None, folder: Path, address: str, out: Path | None, timeout: float) -> SendResult:
    from pipelines.kept.scan import kept_scan_of
    from pipelines.kept.store import KeptScans
    from pipelines.send import send_again

    if wanted is not None and wanted.exists():
        kept = kept_scan_of(wanted)
    else:
        with printed_warnings():
            kept = KeptScans(folder, math.inf, math.inf).find(str(wanted or ""))
    print_line(f"scan {_described(kept, kept.about)}")
    return send_again(kept, address, out=out, timeout=timeout)


def _print_kept(folder: Path) -> None:
    from pipelines.kept.store import KeptScans

    with printed_warnings():
        scans = KeptScans(folder, math.inf, math.inf).known()
    for kept, about in scans.items():
        print_line(_described(kept, about))
    if not scans:
        print_line(f"{folder}: no scan is kept there")


def _described(kept: KeptScan, about: About) -> str:
    failed = f"; {about.error}" if about.error else ""
    text = f"{about.number} ({kept.id}): {about.chain or about.config}, {about.images} images, {about.state}"
    return f"{text}, {kept.size() / 2**20:.0f} MiB{failed}"


def _print_result(result: SendResult) -> None:
    for text in result.warnings:
        print_warning(f"warning: {text}")
    for text in result.texts:
        errors.print(escape(text))
    if not result.images:
        print_line("no image yet: they come later" if result.comes_later else "a noise measurement: no image is due")
        return
    print_line(
        f"{result.images} images, the first after {result.first_image_s:.2f} s, the last after "
        f"{result.last_image_s:.2f} s"
    )
