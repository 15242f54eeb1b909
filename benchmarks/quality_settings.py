"""What the settings of `quality` give and take: `python -m benchmarks.quality_settings`.

svd_wkgm on training heads with simulated coils and noise; no evaluation scan is looked at. `priors.settings.QUALITIES`
is set by this table. PSNR inside the object and seconds of the processor a slice.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.train_t2_heads import heads
from benchmarks.wkgm import Scan, ours, simulated
from priors.learning.checkpoints import weights_file
from priors.registry import load_prior
from priors.settings import QUALITIES, Quality

# Head, coils, noise in units of the largest pixel, mask.
SCANS = (
    (20, 4, 0.002, "poisson_4"),
    (150, 8, 0.004, "poisson_10"),
    (300, 8, 0.006, "poisson_4"),
    (90, 6, 0.004, "random2D_4"),
)
CHOICES = (
    "25,0,0,inf", "25,0,0.01,inf", "16,0.3,0.01,inf", "16,0.3,0.01,0.05", "16,0.3,0.01,0.03",
    "12,0.4,0.01,0.05", "10,0.5,0.01,0.05", "40,0.3,0,inf",
)  # fmt: skip
console = Console(width=150)


def scans(data: Path) -> Iterator[tuple[Scan, Tensor]]:
    """Scans and their coil maps."""
    images, masks = heads(data), np.load(data / "masks.npz")
    for index, coils, noise, mask in SCANS:
        shape = (images.shape[1], images.shape[2])
        kspace = simulated(torch.from_numpy(images[index]), coils, shape)
        scan = Scan(f"head {index}, {coils} coils, {mask}", kspace, torch.from_numpy(masks[mask]), noise)
        yield scan, scan.maps(2)


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("choices", nargs="*", default=CHOICES, metavar="STEPS,EXTRAPOLATION,WEAK_SETS,COARSE_ABOVE")
    parser.add_argument("--weights", default="wkgm", help="a file, or a name of included weights")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the training data")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    prior, _ = load_prior(weights_file(arguments.weights), "svd_wkgm")
    all_scans = list(scans(arguments.data))
    table = Table(title="PSNR inside the object (dB), and seconds of the processor a slice")
    for heading in ("steps, extrapolation, weak, coarse", *(scan.name for scan, _ in all_scans), "mean", "s"):
        table.add_column(heading)
    for choice in arguments.choices:
        steps, extrapolation, weak, coarse = choice.split(",")
        QUALITIES["standard"] = Quality(1.0, float(extrapolation), float(weak), float(coarse))
        began = time.process_time()
        found = [scan.score(ours(scan, prior, True, maps, steps=int(steps))[0])[2] for scan, maps in all_scans]
        seconds = (time.process_time() - began) / len(all_scans)
        table.add_row(choice, *(f"{value:.2f}" for value in found), f"{np.mean(found):.3f}", f"{seconds:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
