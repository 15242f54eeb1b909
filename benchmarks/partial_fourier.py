"""Partial Fourier beside zero filling, through a whole chain: `python -m benchmarks.partial_fourier`.

PSNR in dB and sharpness of edges along the partial direction (slope of the image's differences against those of the
truth, at the 3 % largest: 1 is as sharp as complete k-space), of simulated scans with noise (0.5 % of the maximum).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import ismrmrd
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from gadgets.images import PARTIAL_FOURIER, SCALE_RATIO, meta_of
from gadgets.partial_fourier import LEAST_TRUST
from pipelines.chain import read_chain
from pipelines.evaluation.metrics import psnr
from pipelines.simulation import SimulationSettings, simulate
from pipelines.simulation.phantom import phantom
from priors.classical.cg_sense import cg_sense
from priors.classical.partial_fourier import partial_fourier
from priors.signal.coverage import Acquired
from priors.signal.espirit import espirit_maps
from priors.signal.fourier import ifft2c
from priors.signal.noise import noise_level

FRACTIONS = (5 / 8, 6 / 8, 7 / 8)
CHOICES = ("off", "homodyne", "pocs")
EDGES = 0.97  # quantile of the truth's differences above which there is an edge
Array = NDArray[np.complex64]


def smooth_phase(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Phase of coils and shim, in radian."""
    return 0.6 * x + 0.8 * y**2 - 0.5 * y * x


def sinus_phase(
    y: NDArray[np.float64], x: NDArray[np.float64], strength: float, size: float = 0.12
) -> NDArray[np.float64]:
    """Phase of a gradient echo around a ball of air: the field of a dipole, in radian, its largest value `strength`."""
    squared = (y + 0.45) ** 2 + x**2
    outside = squared > size**2
    return np.where(outside, strength * size**2 * ((y + 0.45) ** 2 - x**2) / np.maximum(squared, 1e-9) ** 2, 0.0)


def objects(size: int, partitions: int) -> Iterator[tuple[str, Array]]:
    """Names and complex images (z, y, x), finer than the scans by two."""
    points = (np.arange(2 * size) - size) / size
    y, x = np.meshgrid(points, points, indexing="ij")
    planes = [0.0] if partitions == 1 else ((np.arange(partitions) - partitions // 2) / partitions * 1.2).tolist()
    drawn = np.stack([phantom(points, points, z) for z in planes])
    for name, phase in (
        ("smooth phase", smooth_phase(y, x)),
        ("smooth phase x 3", 3 * smooth_phase(y, x)),
        ("gradient echo, sinus of 3 rad", smooth_phase(y, x) + sinus_phase(y, x, 3.0)),
        ("gradient echo, sinus of 10 rad", smooth_phase(y, x) + sinus_phase(y, x, 10.0, 0.15)),
    ):
        yield name, (drawn * np.exp(1j * phase)).astype(np.complex64)


def given(path: str) -> Iterator[tuple[str, Array]]:
    """Complex images (number, y, x) of a .npy file as objects of one slice, three of them."""
    images = np.load(path).astype(np.complex64)
    for number in np.linspace(0, len(images) - 1, min(3, len(images))).round().astype(int).tolist():
        yield f"image {number} of the file", images[number : number + 1] / np.abs(images[number]).max()


def sharpness(image: NDArray[np.float32], truth: NDArray[np.float32], axis: int) -> float:
    """Slope of differences against those of the truth, at its edges."""
    found, right = np.diff(image, axis=axis), np.diff(truth, axis=axis)
    edges = np.abs(right) >= np.quantile(np.abs(right), EDGES)
    return float((found * right)[edges].sum() / np.square(right[edges]).sum())


def reconstructed(scan: SimulationSettings, image: Array, method: str, choice: str) -> tuple[float, float, str]:
    """PSNR, sharpness, and what the image says, of a simulated scan through a chain."""
    simulation = simulate(scan, image if scan.is_3d else image[:1])
    chain = read_chain("cg_sense" if method not in ("svd_wkgm", "wkgm") else method).without("gadgets.dicom_output")
    for name, value in (("method", method), ("partial_fourier", choice)):
        chain.set("reconstruction", f"generative_recon.{name}", value)
    items = chain.run(simulation.header, simulation.acquisitions())
    (found,) = [item for item in items if isinstance(item, ismrmrd.Image)]
    meta = meta_of(found.attribute_string)
    truth = simulation.truth[0, 0]
    pixels = (found.data[0] / float(meta[SCALE_RATIO])).reshape(truth.shape) / truth.max()
    return psnr(pixels, truth / truth.max()), sharpness(pixels, truth / truth.max(), -2), str(meta[PARTIAL_FOURIER])


def of_kspace(path: str) -> Iterator[list[str]]:
    """Rows of the table of fully sampled coil k-space (coil, y, x), cut and reconstructed by cg_sense on arrays."""
    kspace = torch.from_numpy(np.load(path).astype(np.complex64))[None]
    height, width = kspace.shape[-2:]
    rows, columns = (slice(n // 2 - 12, n // 2 + 12) for n in (height, width))
    maps = espirit_maps(kspace[..., rows, columns].contiguous(), (height, width), crop=0.0)
    truth = (maps[:, 0].conj() * ifft2c(kspace)).sum(1)[0].abs().numpy()
    for rate, fraction in ((rate, fraction) for rate in (1, 2) for fraction in FRACTIONS):
        first = height - int(np.ceil(fraction * height))
        lines = (torch.arange(height) % rate == height // 2 % rate) & (torch.arange(height) >= first)
        lines[height // 2 - 8 : height // 2 + 8] = True
        mask = lines[:, None].expand(height, width)[None, None]
        data = torch.where(mask, kspace, 0)
        before = cg_sense(data, maps, mask)[:, 0]
        noise = noise_level(data, mask) * rate**0.5
        acquired = (Acquired(height, first, height), Acquired(width, 0, width))
        cells, trust = [_cell(before, truth)], torch.zeros(1)
        for method in ("homodyne", "pocs"):
            found, trust = partial_fourier(before, acquired, method, noise)  # type: ignore[arg-type]
            cells.append(_cell(found if float(trust) >= LEAST_TRUST else before, truth))
        yield [Path(path).stem, "2D", str(rate), f"{8 * fraction:g}/8", "cg_sense", *cells, f"{float(trust):.2f}"]


def _cell(image: torch.Tensor, truth: NDArray[np.float32]) -> str:
    pixels = image[0].abs().numpy() / truth.max()
    right = truth / truth.max()
    return f"{psnr(pixels, right):.2f} / {sharpness(pixels, right, -2):.3f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--size", type=int, default=128, help="matrix size of slices; volumes have half of it and 16 partitions"
    )
    parser.add_argument("--method", action="append", help="method, several times (default cg_sense)")
    parser.add_argument("--images", help=".npy file of complex images (number, y, x) instead of the phantom")
    parser.add_argument("--kspace", action="append", help=".npy file of fully sampled k-space (coil, y, x) instead")
    parser.add_argument("--kind", choices=("2D", "3D", "both"), default="both", help="slices, volumes")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(2)
    table = Table(title="PSNR in dB / edge sharpness")
    for heading in ("object", "scan", "R", "acquired", "method", "zero-filled", "homodyne", "pocs", "trust"):
        table.add_column(heading)
    least = dict.fromkeys(CHOICES[1:], (np.inf, np.inf))
    for path in arguments.kspace or ():
        for row in of_kspace(path):
            table.add_row(*row)
    if arguments.kspace:
        Console(width=150).print(table)
        return
    wanted = "2D" if arguments.images else arguments.kind
    for volume in (kind == "3D" for kind in ("2D", "3D") if wanted in (kind, "both")):
        size = arguments.size // (2 if volume else 1)
        matrix = (size, size, 16) if volume else (size, size, 1)
        for name, image in given(arguments.images) if arguments.images else objects(size, matrix[2]):
            for rate, fraction in ((rate, fraction) for rate in (1, 2) for fraction in FRACTIONS):
                scan = SimulationSettings(
                    matrix=matrix, coils=8, sampling="full" if rate == 1 else "uniform", acceleration=rate,
                    partial_fourier=fraction, noise_level=0.005, noise_scan=True, calibration_lines=12,
                )  # fmt: skip
                for method in arguments.method or ["cg_sense"]:
                    found = {choice: reconstructed(scan, image, method, choice) for choice in CHOICES}
                    for choice in least:
                        gains = (found[choice][index] - found["off"][index] for index in range(2))
                        least[choice] = tuple(min(pair) for pair in zip(least[choice], gains, strict=True))  # type: ignore[assignment]
                    cells = [f"{found[choice][0]:.2f} / {found[choice][1]:.3f}" for choice in CHOICES]
                    trust = found["pocs"][2].rpartition("trust ")[2]
                    kind = "3D" if volume else "2D"
                    table.add_row(name, kind, str(rate), f"{8 * fraction:g}/8", method, *cells, trust)
    console = Console(width=150)
    console.print(table)
    for choice, (decibel, sharper) in least.items():
        console.print(f"{choice}: least gain over zero filling {decibel:+.3f} dB, sharpness {sharper:+.4f}")


if __name__ == "__main__":
    main()
