"""Peak memory of `genrecon stream` against the number of slices, on simulated MRD 2 streams in a pipe.

It rises until what is kept on purpose is there: 8 MiB in each queue before the slowest gadget, and 64 MiB of lines of
slices that were sent, for lines that come late. From there on it stays.

python -m benchmarks.stream_memory [--slices 10 100 300] [--coils 16] [--matrix 128] [--config cg_sense]
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.memory import arguments, scan_of
from pipelines.mrd2.writing import installed_schema, write_scan
from pipelines.simulation import SimulationSettings, simulate

STREAM = [sys.executable, "-c", "from pipelines.cli import main; main()", "stream"]


def measure(settings: SimulationSettings, config: str) -> tuple[float, list[float]]:
    """MiB of the stream, and resident MiB of the process after each tenth of it. Raises RuntimeError when it fails."""
    scan = simulate(settings)
    process = subprocess.Popen([*STREAM, "-c", config], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    sent = 0

    def write(data: bytes) -> None:
        nonlocal sent
        assert process.stdin is not None
        process.stdin.write(data)
        sent += len(data)

    def feed() -> None:
        write_scan(write, scan.header, scan.acquisitions(), installed_schema())
        assert process.stdin is not None
        process.stdin.close()

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    found: list[tuple[int, float]] = []
    while process.poll() is None:  # what wait4 tells may be the memory of this process, from before the exec
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            found.append((sent, float(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"genrecon stream ended with exit code {process.returncode}")
    thread.join()
    tenths = [max(memory for place, memory in found if place <= sent * tenth / 10) for tenth in range(1, 11)]
    return sent / 2**20, tenths


def main() -> None:
    options = arguments(__doc__, [10, 100, 300], coils=16, matrix=128)
    for slices in options.slices:
        size, tenths = measure(scan_of(options, slices), options.config)
        print(f"{slices} slices, {size:.0f} MiB: most memory in MiB up to each tenth", *map(round, tenths), flush=True)


if __name__ == "__main__":
    main()
