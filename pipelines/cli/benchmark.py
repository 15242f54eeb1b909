"""`genrecon benchmark`: methods compared on fully sampled scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gadgets.errors import ReconError
from pipelines.cli import options
from pipelines.cli.console import console, print_line, print_warning, progress_bar
from pipelines.cli.report import report


def benchmark(
    data: options.Data,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for tables and images; an earlier run there is continued.")
    ] = Path("genrecon-benchmark"),
    kspace: options.ArraysAreKspace = False,
    coils: options.Coils = 1,
    slices: options.Slices = None,
    masks: options.Masks = None,
    patterns: options.Patterns = None,
    noise: options.Noise = None,
    methods: options.Methods = None,
    metrics: Annotated[
        str, typer.Option(help="Printed columns, with commas: psnr, ssim, nrmse, hfen, each also as NAME_object.")
    ] = "psnr,ssim",
    repeats: Annotated[
        int, typer.Option(min=0, help="Timed runs of each method after a first one; their median is reported.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes; 1 gives the most reliable times.")] = 1,
    threads: options.Threads = 0,
    dask: Annotated[str, typer.Option(help="Dask scheduler (tcp://HOST:PORT) whose workers run the methods.")] = "",
    page: Annotated[bool, typer.Option("--report/--no-report", help="Write the page of `genrecon report` too.")] = True,
) -> None:
    """Compare methods on fully sampled scans that are undersampled here.

    The folder gets results.csv, results.json, the images and report.html.
    """
    from pipelines.evaluation.benchmark import benchmark as run
    from pipelines.evaluation.summary import check_metrics, summary

    columns = check_metrics(metrics)
    cases, entries = options.cases_and_methods(data, kspace, coils, slices, masks, patterns, noise, methods)
    with progress_bar(len(cases) * len(entries), "reconstructions") as update:
        results = run(
            cases,
            entries,
            out,
            repeats=repeats,
            workers=workers,
            threads=threads,
            dask=dask,
            progress=lambda done, _all, text: update(done, text),
        )
    console.print(summary(results, columns))
    for row in results["rows"]:
        if row["error"]:
            print_warning(f"{row['case']}, {row['method']}: {row['error']}")
    print_line(out / "results.csv")
    if all(row["error"] for row in results["rows"]):
        raise ReconError("benchmark: no reconstruction succeeded; see the lines above")
    if page:
        report(out)
