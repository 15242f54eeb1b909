"""`genrecon demo`: simulate a scan of a brain, reconstruct it with several chains, compare them with the truth."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipelines.cli.console import console, print_line, print_warning, progress_bar, replay_text
from pipelines.cli.simulate import write_with_progress

# Heading, name in the results, digits.
MEASURES = (
    ("PSNR (dB)", "psnr", ".2f"),
    ("SSIM", "ssim", ".4f"),
    ("PSNR in the head", "psnr_object", ".2f"),
    ("SSIM in the head", "ssim_object", ".4f"),
)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the raw file and the results.")] = Path(
        "genrecon-demo"
    ),
    config: Annotated[
        list[str] | None,
        typer.Option("--config", "-c", help="Chain to run; repeatable.  [default: cg_sense, l1_wavelet, svd_wkgm]"),
    ] = None,
) -> None:
    """Simulate a scan of three slices of a brain, reconstruct it with three chains, and compare them with the truth.

    The folder gets the raw file, the images and DICOM of each chain, and report.html.
    """
    from pipelines.chain import read_chain
    from pipelines.demo import CHAINS, compare
    from pipelines.evaluation.report import report
    from pipelines.replay import replay
    from pipelines.simulation.brain import brain_scan

    begin = time.perf_counter()
    chains = {Path(name).stem: name for name in config or CHAINS}
    for name in chains.values():
        read_chain(name)  # a wrong name fails before the simulation
    scan = brain_scan()
    write_with_progress(out / "raw.h5", scan)
    replays = {}
    for label, name in chains.items():
        with progress_bar(scan.number_of_acquisitions, "acquisitions") as update:
            replays[label] = replay(
                out / "raw.h5",
                name,
                out / label,
                progress=lambda lines, images, update=update, label=label: (  # type: ignore[misc]
                    update(lines, replay_text(label, lines, scan.number_of_acquisitions, images)) if lines else None
                ),
            )
    results = compare(scan, replays, out)
    s = scan.settings
    net = results["cases"][0]["acceleration"]
    title = f"mean of {s.slices} slices, R = {s.acceleration:g} ({net:.1f} with calibration lines), {s.coils} coils"
    table = Table(title=title, title_justify="left")
    table.add_column("chain")
    for column in (*(heading for heading, _, _ in MEASURES), "seconds"):
        table.add_column(column, justify="right")
    for label, result in replays.items():
        rows = [row for row in results["rows"] if row["method"] == label]
        means = (format(statistics.mean(row[key] for row in rows), digits) for _, key, digits in MEASURES)
        table.add_row(escape(label), *means, f"{result.seconds:.1f}")
    console.print(table)
    for label, result in replays.items():
        for text in result.warnings:
            print_warning(f"{label}: {text}")
    page = report(out)
    print_line(f"{time.perf_counter() - begin:.0f} s; raw data: {out / 'raw.h5'}")
    for label in replays:
        print_line(f"{label}: {out / label / 'series_001.png'}, DICOM in {out / label / 'dicom'}")
    print_line(f"images, errors, details: {page}")
