"""`genrecon send`: a scan to a server."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from gadgets.errors import ReconError, counted
from pipelines.cli.console import errors, print_json, print_line, print_warning, printed_warnings, progress_bar
from pipelines.cli.options import DEFAULT_CHAIN, Group, Json

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
    json: Json = False,
) -> None:
    """Send a scan to a server, Gadgetron's or `genrecon serve`, and count its images.

    The exit code is 1 when the server reports an error, stays silent, or sends no image of a scan.
    """
    from pipelines.raw.standard_input import raw_file
    from pipelines.send import retrieve as fetch
    from pipelines.send import send as run
    from pipelines.send import send_again

    if listed:
        return _print_kept(kept)
    pairs = [text.partition("=") for text in settings or []]
    if not all(name and name.strip(".") == name and equals for name, equals, _ in pairs):
        raise ReconError("--set: give NAME=VALUE, for instance generative_recon.method=cg_sense or samples=4")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if retrieve is not None and not retrieve.strip():
        raise ReconError("send: --retrieve: the id is empty; give the one that the server's answer had")
    if retrieve and (again or raw is not None):
        raise ReconError("send: --retrieve sends no scan; leave out the raw file and --again")
    if again and pairs:
        raise ReconError("send: --again sends the parameters that were kept; leave out --set")
    if raw is None and not again and not retrieve:
        raise ReconError("send: name a raw file, or give --again for a scan that a server kept")
    with progress_bar(None, "images") as update:
        common: dict[str, Any] = {
            "out": out,
            "timeout": timeout,
            "progress": lambda images: update(images, f"from {address}"),
        }
        if retrieve:
            result = fetch(retrieve, address, wait_s=wait, **common)
        elif again:
            scan = _kept_scan(raw, kept)
            if not json:
                print_line(f"scan {_described(scan, scan.about)}")
            result = send_again(scan, address, **common)
        else:
            parameters = {name: value for name, _, value in pairs}
            with raw_file(raw or Path("-")) as path:
                result = run(path, config, address, group=group, parameters=parameters, **common)
    _print_result(result, json)


def _kept_scan(wanted: Path | None, folder: Path) -> KeptScan:
    from pipelines.kept.scan import kept_scan_of
    from pipelines.kept.store import KeptScans

    if wanted is not None and wanted.exists():
        return kept_scan_of(wanted)
    with printed_warnings():
        return KeptScans(folder, math.inf, math.inf).find(str(wanted or ""))


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
    text = f"{about.number} ({kept.id}): {about.chain or about.config}, {counted(about.images, 'image')}, {about.state}"
    return f"{text}, {kept.size() / 2**20:.0f} MiB{failed}"


def _print_result(result: SendResult, json: bool) -> None:
    if json:
        return print_json(dataclasses.asdict(result))
    for text in result.warnings:
        print_warning(f"warning: {text}")
    for text in result.texts:
        errors.print(escape(text))
    if not result.images:
        print_line("no image yet: they come later" if result.comes_later else "a noise measurement: no image is due")
        return
    print_line(
        f"{counted(result.images, 'image')}, the first after {result.first_image_s:.2f} s, the last after "
        f"{result.last_image_s:.2f} s"
    )
