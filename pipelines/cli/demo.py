"""`genrecon demo`: simulate, reconstruct, compare with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipelines.cli.console import console, print_line, progress_bar
from pipelines.cli.replay import print_result
from pipelines.cli.simulate import write_with_progress


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the raw file and the results.")] = Path(
        "genrecon-demo"
    ),
    config: Annotated[str, typer.Option("--config", "-c", help="Chain to run.")] = "svd_wkgm",
) -> None:
    """Simulate a scan of four slices, reconstruct it with a shipped chain, and compare it with the truth."""
    from pipelines.chain import read_chain
    from pipelines.demo import DEMO_SCAN, quality
    from pipelines.replay import replay
    from pipelines.simulation import simulate

    read_chain(config)  # a wrong name fails before the simulation
    raw = out / "raw.h5"
    scan = simulate(DEMO_SCAN)
    write_with_progress(raw, scan)
    with progress_bar(scan.number_of_acquisitions, "acquisitions") as update:
        result = replay(
            raw, config, out, progress=lambda lines, images: update(lines, f"{images} images") if lines else None
        )
    print_result(result)
    table = Table(title="compared with the truth", title_justify="left")
    for column in ("slice", "PSNR (dB)", "SSIM"):
        table.add_column(column, justify="right")
    for label, (psnr, ssim) in quality(raw, out):
        table.add_row(label, f"{psnr:.2f}", f"{ssim:.4f}")
    console.print(table)
    for name in ("dicom", "images.h5", *(s.montage.name for s in result.series.values() if s.montage)):
        print_line(result.folder / name)
