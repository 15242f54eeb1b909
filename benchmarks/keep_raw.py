"""Seconds to the first and last image with and without `genrecon serve --keep-raw`, in turns.

python -m benchmarks.keep_raw [SCAN.h5] [--chain cg_sense] [--repeats 5]  # no file: 10 slices of 256 x 256, 16 coils
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.serve import ServeProcess, ten_slices
from pipelines.send import SendResult, send


def measure(raw: Path, chain: str, repeats: int, kept: Path) -> dict[str, list[SendResult]]:
    """Results of two servers that take turns, each of which has had a scan before."""
    servers = {
        "not kept": ServeProcess("--warm", chain),
        "kept": ServeProcess("--warm", chain, "--keep-raw", str(kept)),
    }
    try:
        for server in servers.values():
            send(raw, chain, server.address)
        found: dict[str, list[SendResult]] = {name: [] for name in servers}
        for turn in range(repeats):
            for name in sorted(servers, reverse=bool(turn % 2)):
                found[name].append(send(raw, chain, servers[name].address))
        return found
    finally:
        for server in servers.values():
            server.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw", type=Path, nargs="?")
    parser.add_argument("--chain", default="cg_sense")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw = arguments.raw or ten_slices(Path(folder))
        found = measure(raw, arguments.chain, arguments.repeats, Path(folder) / "kept")
    table = Table(title=f"{raw.name}, chain {arguments.chain}: seconds, median and range of {arguments.repeats} turns")
    for heading in ("raw data", "first image", "last image"):
        table.add_column(heading)
    for name, results in found.items():
        cells = []
        for field in ("first_image_s", "last_image_s"):
            values = [getattr(one, field) for one in results]
            cells.append(f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        table.add_row(name, *cells)
    console = Console(width=120)
    console.print(table)
    pairs = zip(found["not kept"], found["kept"], strict=True)
    over = [kept.last_image_s - without.last_image_s for without, kept in pairs]
    console.print(f"kept over not kept, turn by turn, last image: median {statistics.median(over):+.2f} s, "
                  f"from {min(over):+.2f} to {max(over):+.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
