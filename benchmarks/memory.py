"""Peak memory and time of `genrecon replay` against the number of slices, on simulated raw files.

python -m benchmarks.memory [--slices 10 20 40] [--coils 32] [--matrix 256] [--config cg_sense]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.simulation import SimulationSettings, simulate, write_raw

REPLAY = [sys.executable, "-c", "from pipelines.cli import main; main()", "replay"]


def measure(command: list[str]) -> tuple[float, float]:
    """Wall-clock seconds and peak resident MiB of one process. Raises RuntimeError when it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def arguments(about: str | None, slices: list[int], coils: int, matrix: int) -> argparse.Namespace:
    """The command line: numbers of slices, coils, matrix and chain, with these defaults."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--slices", type=int, nargs="+", default=slices)
    parser.add_argument("--coils", type=int, default=coils)
    parser.add_argument("--matrix", type=int, default=matrix)
    parser.add_argument("--config", default="cg_sense")
    return parser.parse_args()


def scan_of(options: argparse.Namespace, slices: int) -> SimulationSettings:
    """A scan of so many slices, with the coils and the matrix of the command line."""
    return SimulationSettings(
        matrix=(options.matrix, options.matrix, 1),
        slices=slices,
        coils=options.coils,
        sampling="uniform",
        acceleration=2,
        noise_level=0.005,
        noise_scan=True,
    )


def main() -> None:
    options = arguments(__doc__, [10, 20, 40], coils=32, matrix=256)
    table = Table(
        title=f"replay -c {options.config}, {options.coils} coils, {options.matrix} x {options.matrix}, R = 2"
    )
    for column in ("slices", "raw file (MiB)", "peak memory (MiB)", "seconds", "seconds a slice"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "scan.h5"
        for slices in options.slices:
            write_raw(raw, simulate(scan_of(options, slices)))
            seconds, peak = measure([*REPLAY, str(raw), "-c", options.config, "-o", f"{folder}/out"])
            size = raw.stat().st_size / 2**20
            table.add_row(str(slices), f"{size:.0f}", f"{peak:.0f}", f"{seconds:.1f}", f"{seconds / slices:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
