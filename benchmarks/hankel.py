"""Time and agreement of the Hankel low-rank projection against the explicit SVD: `python -m benchmarks.hankel`."""

from __future__ import annotations

import argparse
import time

import sigpy
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.espirit import median_time
from benchmarks.wkgm import simulated
from priors.signal.hankel import low_rank_projection

_THREADS = 2


def explicit_projection(kspace: Tensor, window: int, rank: int) -> Tensor:
    """Low-rank projection of k-space (coil, y, x) by the SVD of the block-circulant Hankel matrix itself."""
    height, width = kspace.shape[-2:]
    shifts = [(i, j) for i in range(window) for j in range(window)]
    columns = [torch.roll(coil, (-i, -j), (0, 1)).flatten() for coil in kspace for i, j in shifts]
    left, values, right = torch.linalg.svd(torch.stack(columns, 1), full_matrices=False)
    matrix = (left[:, :rank] * values[:rank]) @ right[:rank]
    result = torch.zeros_like(kspace)
    for number, column in enumerate(matrix.T):
        i, j = shifts[number % len(shifts)]
        result[number // len(shifts)] += torch.roll(column.reshape(height, width), (i, j), (0, 1)) / len(shifts)
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="matrix size")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of ours; the SVD is called once")
    arguments = parser.parse_args()
    torch.set_num_threads(_THREADS)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.size, arguments.size)
    phantom = torch.from_numpy(sigpy.shepp_logan(shape).astype("complex64"))
    size = f"{arguments.size} x {arguments.size}"
    table = Table(title=f"Hankel low rank, noisy phantom, {size}, {_THREADS} threads, median of {arguments.repeats}")
    for heading in (
        "coils",
        "window",
        "rank",
        "explicit SVD [ms]",
        "Gram matrix by FFT [ms]",
        "ratio",
        "relative difference",
    ):
        table.add_column(heading, justify="right")
    for coils, window, rank in ((4, 6, 54), (4, 8, 115), (8, 6, 80)):
        kspace = simulated(phantom, coils, shape)
        kspace += 1e-3 * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
        found: list[Tensor] = []

        def explicit(args: tuple = (kspace, window, rank), found: list[Tensor] = found) -> None:
            found.append(explicit_projection(*args))

        def ours(args: tuple = (kspace[None], window, rank)) -> Tensor:
            return low_rank_projection(*args)

        start = time.perf_counter()
        explicit()
        slow = time.perf_counter() - start
        fast = median_time(ours, arguments.repeats)
        difference = float((ours()[0] - found[0]).norm() / found[0].norm())
        cells = (f"{slow * 1e3:.0f}", f"{fast * 1e3:.0f}", f"{slow / fast:.0f}", f"{difference:.1e}")
        table.add_row(str(coils), str(window), str(rank), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
