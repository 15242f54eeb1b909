"""Time and agreement of the ESPIRiT maps against SigPy: `python -m benchmarks.espirit`."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import sigpy
import sigpy.mri
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipelines.evaluation.cases import received_kspace
from pipelines.simulation.coils import birdcage_maps
from priors.signal.espirit import espirit_maps

_THREADS = 2


def phantom(size: int, coils: int, noise: float, seed: int = 0) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """K-space of the Shepp-Logan phantom seen by birdcage coils, with white noise.

    Parameters
    ----------
    size : int
        Matrix size N.
    coils : int
        Number of coils.
    noise : float
        Standard deviation of the noise, relative to the image maximum of 1.
    seed : int
        Seed of the noise.

    Returns
    -------
    (array, array)
        Complex k-space (coil, N, N) and the mask of the object (N, N).
    """
    image = sigpy.shepp_logan((size, size))
    kspace = received_kspace(image, birdcage_maps(coils, image.shape))
    generator = np.random.default_rng(seed)
    kspace += noise * (generator.standard_normal(kspace.shape) + 1j * generator.standard_normal(kspace.shape))
    return kspace.astype(np.complex64), np.abs(image) > 0.05


def mean_correlation(maps: NDArray[np.complex64], others: NDArray[np.complex64], inside: NDArray[np.bool_]) -> float:
    """Mean over the object of the modulus of the coil inner product of two map sets (coil, y, x), 1 if equal.

    Parameters
    ----------
    maps, others : array
        Complex maps (coil, y, x); the weight of the maps does not matter.
    inside : array of bool
        Mask of the object (y, x).

    Returns
    -------
    float
        From 0 to 1.
    """
    product = np.abs(np.sum(maps.conj() * others, axis=0))
    norms = np.linalg.norm(maps, axis=0) * np.linalg.norm(others, axis=0)
    return float(np.mean(product[inside] / np.maximum(norms[inside], np.finfo(np.float32).tiny)))


def median_time(function: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time of calls in seconds, after one call that is not counted.

    Parameters
    ----------
    function : callable
        What is timed.
    repeats : int
        Number of calls.

    Returns
    -------
    float
        Seconds.
    """
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="matrix size")
    parser.add_argument("--coils", type=int, default=8, help="number of coils")
    parser.add_argument("--lines", type=int, default=24, help="calibration lines")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each")
    arguments = parser.parse_args()
    torch.set_num_threads(_THREADS)

    kspace, inside = phantom(arguments.size, arguments.coils, noise=0.01)
    first = arguments.size // 2 - arguments.lines // 2
    centre = slice(first, first + arguments.lines)
    calibration = torch.from_numpy(kspace[None, :, centre, centre].copy())
    shape = (arguments.size, arguments.size)

    def sigpy_maps() -> NDArray[np.complex64]:
        app = sigpy.mri.app.EspiritCalib(kspace, calib_width=arguments.lines, crop=0, show_pbar=False)
        return np.asarray(app.run())

    reference = sigpy_maps()
    slowest = median_time(sigpy_maps, arguments.repeats)
    table = Table(
        title=f"ESPIRiT maps, {arguments.size} x {arguments.size} x {arguments.coils} coils,"
        f" {arguments.lines} calibration lines, {_THREADS} threads, median of {arguments.repeats}"
    )
    for heading in ("maps", "time [ms]", "speed-up", "mean |correlation|"):
        table.add_column(heading, justify="left" if heading == "maps" else "right")
    table.add_row("SigPy", f"{slowest * 1e3:.0f}", "1.0", "1.00000")
    for sets in (1, 2):

        def own_maps(sets: int = sets) -> torch.Tensor:
            return espirit_maps(calibration, shape, sets=sets)

        seconds = median_time(own_maps, arguments.repeats)
        correlation = mean_correlation(own_maps()[0, 0].numpy(), reference, inside)
        table.add_row(
            f"{sets} set{'s' if sets > 1 else ''}",
            f"{seconds * 1e3:.0f}",
            f"{slowest / seconds:.1f}",
            f"{correlation:.5f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
