"""Noise maps against each other and against repeated scans: `python -m benchmarks.gfactor [sense|grappa|chain|RAW]`."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gadgets.images import SCALE_RATIO, meta_of, meta_values
from gadgets.outputs import SNR as SNR_MAP
from pipelines.replay import read_images, replay
from pipelines.simulation import SimulationSettings, simulate, write_raw
from pipelines.simulation.coils import birdcage_maps
from priors.classical.cg_sense import cg_sense
from priors.classical.grappa import grappa
from priors.classical.grappa_noise import grappa_deviation
from priors.classical.sense_noise import combined_deviation, sense_covariance
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.noise_maps import Replicas, reference

SIZE = (72, 64)
SNR = 50.0  # of the fully sampled image
AT_ONCE = 25  # replicas
REGULARISATION = 1e-3
LINES = 20  # of the calibration


def phantom(coils: int) -> tuple[Tensor, Tensor, Tensor]:
    """K-space (1, coil, y, x) of a disc for noise of 1, maps (1, 1, coil, y, x) inside it, and the disc (y, x)."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in SIZE), indexing="ij")
    inside = (y / 0.85) ** 2 + (x / 0.8) ** 2 < 1
    image = SNR * inside * (1 + 0.4 * torch.cos(5 * y) * torch.sin(4 * x)) * torch.polar(torch.ones(SIZE), y + x)
    maps = torch.from_numpy(birdcage_maps(coils, SIZE))[None, None]
    return fft2c(maps[:, 0] * image), maps * inside, inside


def pattern(acceleration: int, calibration: int) -> Tensor:
    """Lines of regular undersampling, with a fully sampled centre of so many lines: bool (1, 1, y, x)."""
    mask = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    mask[:, :, SIZE[0] // 2 % acceleration :: acceleration] = True
    middle = SIZE[0] // 2
    mask[:, :, middle - calibration // 2 : middle + (calibration + 1) // 2] = True
    return mask


def by_replicas(kspace: Tensor, method: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """Deviation (y, x) of a method from k-space (batch, coil, y, x) to images, of the real and imaginary parts."""
    generator = torch.Generator().manual_seed(0)
    image = method(kspace)[0]
    parts = Replicas(image), Replicas(1j * image)  # both have the same noise, as the methods are linear
    for _ in range(count // AT_ONCE):
        noise = torch.randn(AT_ONCE, *kspace.shape[1:], dtype=torch.complex64, generator=generator) * math.sqrt(2)
        for replica in method(kspace + noise):
            parts[0].add(replica)
            parts[1].add(1j * image + (replica - image))
    return ((parts[0].deviation().square() + parts[1].deviation().square()) / 2).sqrt()


def row(name: str, analytic: Tensor, measured: Tensor, mask: Tensor, inside: Tensor) -> list[str]:
    """g-factors and the difference of the maps, inside the object."""
    g = analytic[inside] / reference(mask[0, 0].float()).deviation
    difference = (measured[inside] / analytic[inside] - 1).abs()
    numbers = [g.median(), g.max(), difference.median(), difference.quantile(0.95)]
    ratio = measured[inside].square().mean().sqrt() / analytic[inside].square().mean().sqrt()
    cells = [f"{float(number):.2f}" for number in numbers[:2]] + [f"{float(number):.1%}" for number in numbers[2:]]
    return [name, *cells, f"{float(ratio):.3f}"]


def table(title: str) -> Table:
    """An empty table of the comparisons."""
    result = Table(title=title)
    for heading in ("", "g, median", "g, highest", "difference, median", "difference, 95 %", "noise, rms ratio"):
        result.add_column(heading, justify="left" if not heading else "right")
    return result


def sense(replicas: int) -> Table:
    """SENSE: the formula against replicas, of conjugate gradients that converge and of the method's own settings."""
    result = table(f"SENSE, {SIZE[0]} x {SIZE[1]}, analytic against {replicas} replicas (both parts)")
    for coils in (8, 16):
        kspace, maps, inside = phantom(coils)
        for acceleration in (2, 3, 4):
            for calibration in (0, LINES):
                mask = pattern(acceleration, calibration)
                covariance = sense_covariance(maps, mask, REGULARISATION)
                assert covariance is not None
                analytic = combined_deviation(covariance, maps, maps[:, :, 0])[0]
                for text, options in (("", {}), (", converged", {"iterations": 300, "tolerance": 1e-6})):
                    if text and not (acceleration == 4 and coils == 8):
                        continue

                    def method(
                        data: Tensor, mask: Tensor = mask, maps: Tensor = maps, options: dict[str, float] = options
                    ) -> Tensor:
                        expanded = maps.expand(len(data), -1, -1, -1, -1)
                        image = cg_sense(data, expanded, mask, REGULARISATION, **options)[:, 0]  # type: ignore[arg-type]
                        return image * torch.linalg.vector_norm(maps[:, 0], dim=1)

                    name = (
                        f"{coils} coils, R = {acceleration}" + (f", {calibration} lines" if calibration else "") + text
                    )
                    result.add_row(*row(name, analytic, by_replicas(kspace, method, replicas), mask, inside))
    return result


def of_grappa(replicas: int) -> Table:
    """GRAPPA: the formula against replicas, whose kernels come from their own noisy calibration lines."""
    result = table(f"GRAPPA, {SIZE[0]} x {SIZE[1]}, analytic against {replicas} replicas")
    coils = 8  # 16 take ten times as long
    kspace, maps, inside = phantom(coils)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(kspace.shape, dtype=torch.complex64, generator=generator) * math.sqrt(2)
    kspace = kspace + noise
    for acceleration in (2, 3, 4):
        mask = pattern(acceleration, LINES)
        analytic = grappa_deviation(kspace, maps, mask, maps[:, 0])
        assert analytic is not None

        def method(data: Tensor, mask: Tensor = mask) -> Tensor:
            full = ifft2c(grappa(data, maps.expand(len(data), -1, -1, -1, -1), mask))
            return (maps[:, 0].conj() * full).sum(1)

        name = f"{coils} coils, R = {acceleration}, {LINES} lines"
        result.add_row(*row(name, analytic[0], by_replicas(kspace, method, replicas), mask, inside))
    return result


def of_scans(raw: Path, method: str, settings: Sequence[str] = (), first: int = 0) -> tuple[float, float, float, int]:
    """SNR maps of the repetitions of a scan, from number `first` on, against what these differ by.

    Returns the noise of the repetitions over what the maps say, as root mean squares inside the object; median and 95th
    percentile of the difference pixel by pixel; and the number of repetitions.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = ["output=magnitude,snr", f"method={method}", *settings]
        replay(raw, "cg_sense", Path(folder) / "out", settings=[f"generative_recon.{name}" for name in names])
        magnitude, snr = (_values(Path(folder) / "out", series)[first:] for series in (1, 1 + SNR_MAP.series))
    mean = magnitude.mean(0)
    inside = (mean > 0.2 * np.percentile(mean, 99)) & (snr.min(0) > 5)
    expected = np.sqrt(((magnitude / np.maximum(snr, 1e-9)) ** 2).mean(0))[inside]
    # The lines of regular undersampling may alternate, and artefacts with them: every second repetition by itself.
    variances = [magnitude[begin::2].var(0, ddof=1) for begin in range(2)]
    found = np.sqrt(np.mean(variances, axis=0))[inside]
    difference = np.abs(found / expected - 1)
    ratio = math.sqrt((found**2).mean() / (expected**2).mean())
    return ratio, float(np.median(difference)), float(np.percentile(difference, 95)), len(magnitude)


def _values(folder: Path, series: int) -> Any:
    """The images of a series, in the units of their values: float (image, y, x)."""
    images = []
    for image in read_images(folder, series):
        ratio = float(meta_values(meta_of(image.attribute_string), SCALE_RATIO)[0])
        images.append(np.squeeze(image.data) / ratio)
    return np.stack(images)


def of_chain(repetitions: int, raw: Path | None) -> Table:
    """SNR maps at the end of a chain against repeated scans: simulated, or those of a raw file."""
    result = Table(title="SNR map against the noise of repeated scans")
    for heading in ("scan", "method", "repetitions", "noise, rms ratio", "difference, median", "difference, 95 %"):
        result.add_column(heading, justify="left" if heading in {"scan", "method"} else "right")
    cases: list[tuple[str, dict[str, object]]] = [
        ("full", {"sampling": "full"}),
        ("R = 2", {"sampling": "uniform", "acceleration": 2}),
        ("R = 3, phase oversampling, pixels of half the size", {
            "sampling": "uniform", "acceleration": 3, "recon_matrix": (128, 96, 1),
            "recon_field_of_view_mm": (220.0, 165.0, 5.0), "object_scale": 0.7,
        }),
        ("R = 2, partial Fourier 6/8, 2 averages", {
            "sampling": "uniform", "acceleration": 2, "partial_fourier": 0.75, "averages": 2,
        }),
        ("R = 2, partial echo", {"sampling": "uniform", "acceleration": 2, "asymmetric_echo": 0.75}),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in cases if raw is None else [(raw.name, {})]:
            path = raw
            if path is None:
                settings = SimulationSettings(
                    matrix=(64, 64, 1), coils=8, calibration_lines=LINES, noise_level=0.02, noise_scan=True,
                    repetitions=repetitions, repetition_change=0.0, calibration_repetitions="first", **changes,  # type: ignore[arg-type]
                )  # fmt: skip
                path = Path(folder) / "scan.h5"
                path.unlink(missing_ok=True)
                write_raw(path, simulate(settings))
            for method in ("cg_sense", "grappa"):
                # The first of the simulated repetitions alone has the calibration lines, which are imaging lines too.
                ratio, median, most, count = of_scans(path, method, first=int(raw is None))
                result.add_row(name, method, str(count), f"{ratio:.3f}", f"{median:.1%}", f"{most:.1%}")
    return result


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", help="sense, grappa, chain, or a raw file of repetitions; all three if none")
    parser.add_argument("--replicas", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=9, help="of the simulated scan")
    arguments = parser.parse_args()
    tables: dict[str, Callable[[], Table]] = {
        "sense": lambda: sense(arguments.replicas),
        "grappa": lambda: of_grappa(arguments.replicas),
        "chain": lambda: of_chain(arguments.repetitions, None),
    }
    if arguments.what and arguments.what not in tables:
        chosen = [lambda: of_chain(0, Path(arguments.what))]
    else:
        chosen = [tables[arguments.what]] if arguments.what else list(tables.values())
    for one in chosen:
        Console(width=120).print(one())


if __name__ == "__main__":
    main()
