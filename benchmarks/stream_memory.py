"""Peak memory of `genrecon stream` against the number of slices, on simulated MRD 2 streams in a pipe.

python -m benchmarks.stream_memory [--slices 10 100] [--coils 16] [--matrix 192] [--config cg_sense]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading

from pipelines.mrd2.writing import installed_schema, write_scan
from pipelines.simulation import SimulationSettings, simulate

STREAM = [sys.executable, "-c", "from pipelines.cli import main; main()", "stream"]


def measure(settings: SimulationSettings, config: str) -> tuple[float, float]:
    """MiB of the stream, and peak resident MiB of the process. Raises RuntimeError when it fails."""
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
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"genrecon stream ended with exit code {process.returncode}")
    thread.join()
    return sent / 2**20, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--coils", type=int, default=16)
    parser.add_argument("--matrix", type=int, default=192)
    parser.add_argument("--config", default="cg_sense")
    options = parser.parse_args()
    for slices in options.slices:
        settings = SimulationSettings(
            matrix=(options.matrix, options.matrix, 1),
            slices=slices,
            coils=options.coils,
            sampling="uniform",
            acceleration=2,
            noise_level=0.005,
            noise_scan=True,
        )
        size, peak = measure(settings, options.config)
        print(f"{slices} slices, {size:.0f} MiB: peak memory {peak:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
