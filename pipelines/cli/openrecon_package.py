"""`genrecon openrecon-package`: what a package for a Siemens scanner is built from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import print_line


def openrecon_package(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; files of that name are replaced.")],
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            help="Chain that the console offers, a shipped one or an XML file; repeatable, the first is the default.  "
            "[default: cg_sense, l1_wavelet, svd_wkgm, wkgm, hkgm]",
        ),
    ] = None,
    site: Annotated[
        Path | None, typer.Option(help="JSON with names, hardware and parameters of your own (docs/open_recon.md).")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Use a GPU (PyTorch for CUDA 11.8).")] = False,
    fire: Annotated[bool, typer.Option("--fire", help="Write the recipe of a chroot image for FIRE too.")] = False,
    build: Annotated[bool, typer.Option("--build", help="Run build.sh at once, with docker or podman.")] = False,
    source: Annotated[
        Path | None, typer.Option(file_okay=False, help="Git clone of this project.  [default: the installed one]")
    ] = None,
) -> None:
    """Write a package for Siemens Open Recon: label, container recipe, manual (PDF) and the script that builds it."""
    from pipelines.openrecon.package import BUILD, CHROOT, write_package
    from pipelines.openrecon.package import build as run
    from pipelines.openrecon.site import read_site

    package = write_package(out, config or [], read_site(site), source, gpu=gpu, fire=fire)
    print_line(f"{package.name}: recipe, label and manual in {out}")
    if build:
        run(package)
        return
    print_line(f"next: sh {shlex.quote(str(out / BUILD))}        (VA60, VA61; with va70 behind it: VA70 and later)")
    if fire:
        print_line(f"FIRE: sh {shlex.quote(str(out / 'fire' / CHROOT))}")
