"""`genrecon stability`: small details, perturbations, other masks, more samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli import options
from pipelines.cli.console import console, print_line, progress_bar


def stability(
    data: options.Data,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for tables and figures; an earlier run there is continued.")
    ] = Path("genrecon-stability"),
    kspace: options.ArraysAreKspace = False,
    coils: options.Coils = 1,
    slices: options.Slices = None,
    masks: options.Masks = None,
    patterns: options.Patterns = None,
    noise: options.Noise = None,
    methods: options.Methods = None,
    threads: options.Threads = 0,
) -> None:
    """Measure how stable methods are: small details, worst-case perturbations, other masks, more samples.

    After Antun et al., PNAS 117 (2020).
    """
    from pipelines.evaluation.stability import PARTS, tables
    from pipelines.evaluation.stability import stability as run

    cases, entries = options.cases_and_methods(data, kspace, coils, slices, masks, patterns, noise, methods)
    with progress_bar(len(cases) * len(entries) * len(PARTS), "parts") as update:
        results = run(cases, entries, out, threads=threads, progress=lambda done, _all, text: update(done, text))
    for table in tables(results):
        console.print(table)
    print_line(out)
