"""What each stage of a shipped chain costs: `python -m benchmarks.chain_stages [CHAIN ...]`.

Scans of brains with a noise measurement and correlated noise, simulated from magnitude images that may be trained on,
go through whole chains from raw file to 16-bit images; then again with one stage left out or set otherwise. PSNR inside
the object; a row's figures are those of the whole chain less those without the stage: what the chain gains (+) or
loses (-) by having it as it is.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.whole_chains import score
from pipelines.chain import Chain, read_chain
from pipelines.demo import CHAINS
from pipelines.replay import replay
from pipelines.simulation.scan import Simulation
from pipelines.simulation.settings import SimulationSettings
from pipelines.simulation.writer import write_raw

SLICES = (40, 200, 330, 520)  # of mr_magnitude.npy
STAGES: dict[str, str | None] = {
    "prewhitening": "NoiseAdjustGadget.perform_noise_adjust=false",
    "coil compression": "coil_compression.method=none",
    "coils by noise, not by energy 0.995": "coil_compression.energy=0.995",
    "second map set": "espirit.map_sets=1",
    "maps not cropped, or cropped at 0.5": None,  # the other way than the chain has it
    "16-bit images": "",  # the chain without the gadget
}
console = Console(width=150)


def scans(data: Path, matrix: int, masks: list[str], coils: list[int], noises: list[float]) -> Iterator[Simulation]:
    """Simulated scans of every combination."""
    stored = np.load(data / "mr_magnitude.npy", mmap_mode="r")
    images = np.stack([stored[n] / np.float32(stored[n].max()) for n in SLICES])
    for mask, count, noise in itertools.product(masks, coils, noises):
        sampling, _, acceleration = mask.partition(":")
        settings = SimulationSettings(
            matrix=(matrix, matrix, 1), slices=len(SLICES), coils=count, sampling=sampling,
            acceleration=float(acceleration), noise_level=noise, noise_scan=True,
        )  # fmt: skip
        yield Simulation(settings, images)


def psnr_of_replay(raw: Path, chain: Chain, settings: list[str], truth: NDArray[np.float32]) -> float:
    """Mean PSNR of a replay's images inside the object, each with the factor that fits best."""
    folder = raw.with_name("images")
    replay(raw, chain, folder, settings=settings)
    return score(folder, truth / truth.max((1, 2), keepdims=True))["psnr_object"]


def changed(name: str, stage: str) -> tuple[Chain, list[str]]:
    """A chain without a stage, and its settings."""
    chain, setting = read_chain(name), STAGES[stage]
    if setting is None:
        node = next(node for node in chain.nodes if node.names[0] == "reconstruction")
        return chain, [f"espirit.crop={0 if float(node.properties.get('espirit.crop', '0')) else 0.5}"]
    if not setting:
        chain.nodes[:] = [node for node in chain.nodes if node.names[0] != "FloatToUShortGadget"]
    return chain, [setting] if setting else []


def table_of(name: str, all_scans: list[Simulation]) -> Table:
    """Losses of each stage of a chain over scans."""
    table = Table(title=f"{name}: PSNR inside the object (dB), and what each stage as it is adds to it")
    table.add_column("stage")
    columns: list[list[str]] = []
    for scan in all_scans:
        s = scan.settings
        table.add_column(f"{s.sampling} R={s.acceleration:g}, {s.coils} coils, noise {s.noise_level:g}")
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "scan.h5"
            write_raw(raw, scan)
            columns.append(_column(name, scan, raw))
    for stage, *cells in zip(("whole chain", *STAGES), *columns, strict=True):
        table.add_row(stage, *cells)
    return table


def _column(name: str, scan: Simulation, raw: Path) -> list[str]:
    whole = psnr_of_replay(raw, read_chain(name), [], scan.truth[0])
    cells = [f"{whole:.2f}"]
    for stage in STAGES:
        chain, settings = changed(name, stage)
        truth = scan.truth[0]
        if stage == "prewhitening":  # coils are combined as they were received
            same = Simulation(scan.settings, scan._images)
            same.prewhitener = np.eye(scan.settings.coils, dtype=np.complex128)
            truth = same.truth[0]
        cells.append(f"{whole - psnr_of_replay(raw, chain, settings, truth):+.2f}")
    return cells


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chains", nargs="*", metavar="CHAIN", help=f"of {', '.join(CHAINS)}; all if none is named")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the training data")
    parser.add_argument("--matrix", type=int, default=256)
    parser.add_argument("--masks", nargs="+", default=["random:4", "uniform:3"], metavar="SAMPLING:R")
    parser.add_argument("--coils", nargs="+", type=int, default=[8, 16])
    parser.add_argument("--noise", nargs="+", type=float, default=[0.003, 0.02])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    all_scans = list(scans(arguments.data, arguments.matrix, arguments.masks, arguments.coils, arguments.noise))
    for name in arguments.chains or CHAINS:
        console.print(table_of(name, all_scans))


if __name__ == "__main__":
    main()
