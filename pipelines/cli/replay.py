"""`genrecon replay`: raw files through a chain."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gadgets.errors import ReconError, counted
from pipelines.cli.console import console, print_error, print_json, print_line, print_warning, progress_bar, replay_text
from pipelines.cli.options import DEFAULT_CHAIN, Group, Json


def replay(
    raw: Annotated[
        list[Path],
        typer.Argument(
            help="Raw files: ISMRMRD or fastMRI (.h5), MRD streams; - for standard input.", show_default=False
        ),
    ],
    group: Group = "",
    config: Annotated[
        str, typer.Option("--config", "-c", help="Chain: a name of `genrecon chains`, or an XML file.")
    ] = DEFAULT_CHAIN,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Output folder; of several files, each has a folder of its own in it.  [default: genrecon-out/FILE]",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="gadget.property=value, overrides the chain; repeatable.")
    ] = None,
    noise: Annotated[
        str,
        typer.Option(
            help="Noise scan to prewhiten with: a raw file, a covariance that Gadgetron wrote, or http://HOST:PORT of "
            "its storage server.  [default: the noise lines of the raw file]"
        ),
    ] = "",
    nifti: Annotated[
        bool, typer.Option("--nifti", help="Write NIfTI files, with JSON sidecars, as well (extra nifti).")
    ] = False,
    reference: Annotated[
        str,
        typer.Option(help="Raw file of a reference scan: its calibration is used where the scan has none of its own."),
    ] = "",
    as_served: Annotated[
        bool,
        typer.Option(
            "--as-served",
            help="For a scan kept by serve --keep-raw: with its kept chain and noise, exactly as the server did.",
        ),
    ] = False,
    gadgetron: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Gadgetron server that runs the chain, instead of this process.")
    ] = None,
    processes: Annotated[
        bool, typer.Option("--processes", help="Run each external gadget in a process of its own, as Gadgetron does.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds without data from the server after which the replay fails.")
    ] = 600.0,
    dask: Annotated[
        str, typer.Option(help="Dask scheduler (tcp://HOST:PORT) whose workers reconstruct the slices of all files.")
    ] = "",
    json: Json = False,
) -> None:
    """Reconstruct raw ISMRMRD files: DICOM, PNG montages and images as ISMRMRD HDF5.

    The output folder gets dicom/, with --nifti nifti/, series_NNN.png, images.h5 and replay.json (chain, timing,
    warnings); after an error it gets nothing.
    """
    from pipelines.raw.standard_input import raw_file

    folders = [_output_folder(path, group, out, len(raw) > 1) for path in raw]
    if len(set(folders)) != len(folders):
        raise ReconError("replay: two files have the same name and would share a folder; replay them one by one")
    if as_served and (dask or gadgetron or processes or noise or reference or config != DEFAULT_CHAIN):
        raise ReconError(
            "replay: --as-served takes the chain and the noise that were kept, in process; leave out --config, "
            "--noise, --reference, --gadgetron, --processes and --dask"
        )
    if reference and (dask or gadgetron or processes):
        raise ReconError("replay: --reference runs in process; leave out --gadgetron, --processes and --dask")
    if dask and (gadgetron or processes):
        raise ReconError("replay: --dask runs the chain on its own workers; leave out --gadgetron and --processes")
    with contextlib.ExitStack() as standard_input:
        _replay_all(
            [standard_input.enter_context(raw_file(path)) for path in raw],
            folders,
            dask,
            json,
            config=config,
            group=group,
            settings=settings,
            gadgetron=gadgetron,
            processes=processes,
            timeout=timeout,
            noise=noise,
            nifti=nifti,
            reference=reference,
            as_served=as_served,
        )


def _replay_all(raw: list[Path], folders: list[Path], dask: str, json: bool, **options: Any) -> None:
    """Replay files one by one and print their results. Raises ReconError at the end when one of several failed."""
    from pipelines.raw import RawScan
    from pipelines.replay import replay as run

    on_dask = _start_on_dask(dask, raw, options) if dask else {}
    failed = 0
    for path, folder in zip(raw, folders, strict=True):
        try:
            with RawScan(path, options["group"]) as scan:
                total = scan.acquisition_count
            with progress_bar(total, "acquisitions") as update:
                read = 0

                def progress(acquisitions: int, images: int, path: Path = path, total: Any = total) -> None:
                    nonlocal read
                    read = max(read, acquisitions)
                    update(read, replay_text(path.name, read, total, images))

                result = run(path, folder=folder, dask=on_dask.get(path), progress=progress, **options)
        except Exception as error:
            if path in on_dask:
                on_dask[path].close()
            if len(raw) == 1:
                raise
            failed += 1
            print_error(error)
            continue
        if json:
            print_json(dataclasses.asdict(result) | {"images": result.images})
        else:
            print_result(result)
    if failed:
        raise ReconError(f"replay: {failed} of {len(raw)} files failed; see the lines above")


def _output_folder(raw: Path, group: str, out: Path | None, several: bool) -> Path:
    from pipelines.raw import file_and_group

    file, named = file_and_group(raw)
    parts = [file.stem if str(raw) != "-" else "stdin", *(group or named).strip("/").split("/")]
    name = "-".join(filter(None, parts))
    if out is None:
        return Path("genrecon-out") / name
    return out / name if several else out


def _start_on_dask(address: str, raw: list[Path], options: dict[str, Any]) -> dict[Path, Any]:
    """Submit the slices of all files before the first one is waited for."""
    from pipelines.evaluation.distribute import DaskReplay, dask_client
    from pipelines.raw import file_and_group
    from pipelines.replay import DICOM_MODULE, anonymizes, configured_chain

    client = dask_client(address)
    started = {}
    for path in raw:
        with contextlib.suppress(ReconError):  # the replay of this file raises it again
            whole = configured_chain(options["config"], options["settings"])
            chain, named = whole.without(DICOM_MODULE), not anonymizes(whole)
            file, group = file_and_group(path)
            started[path] = DaskReplay(client, file, chain, options["noise"], options["group"] or group, named)
    return started


def print_result(result: Any) -> None:
    """Print the series, warnings and times of a replay."""
    if result.noise and not result.images:
        print_line(f"{result.raw.name}: {result.noise}; give it to other scans with --noise")
        return
    table = Table(title=escape(f"{result.raw.name}: {result.folder}"), title_justify="left")
    for column in ("series", "images", "matrix", "method", "montage"):
        table.add_column(column, overflow="fold")
    for series in result.series.values():
        matrix = " x ".join(str(size) for size in reversed(series.matrix) if size > 1)
        montage = series.montage.name if series.montage else ""
        table.add_row(str(series.number), str(series.images), matrix, escape(series.method or "-"), montage)
    console.print(table)
    if result.noise:
        print_line(f"noise: {result.noise}")
    for text in result.warnings:
        print_warning(f"warning: {text}")
    busy = ", ".join(
        f"{t.name} {t.busy:.2f} s" for t in sorted(result.timings, key=lambda t: -t.busy) if t.busy >= 0.05
    )
    nifti = f", {counted(result.nifti_files, 'NIfTI file')}" if result.nifti_files else ""
    print_line(
        f"{counted(result.images, 'image')}, {counted(result.dicom_files, 'DICOM file')}{nifti} in "
        f"{result.seconds:.2f} s (first image after {result.first_image_seconds:.2f} s){'; ' if busy else ''}{busy}"
    )
