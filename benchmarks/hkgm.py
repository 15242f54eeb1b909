"""HKGM learnt from one scan: quality against SAKE and svd-WKGM, what is better for learning, cost, learning on the fly.

python -m benchmarks.hkgm ship         # weights of a T2 scan of one head whose licence allows it, eight simulated coils
python -m benchmarks.hkgm slices       # learnt from 1, 4 and all of its slices; svd_wkgm and SAKE beside them
python -m benchmarks.hkgm ablation     # patches, their size, weighting, denoising, network, all with as many steps
python -m benchmarks.hkgm published    # Hankel patches and the published sampler, on one slice
python -m benchmarks.hkgm self         # training=self: gain, seconds, and the second scan of the protocol
"""

from __future__ import annotations

import argparse
import logging
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.train_default import magnitudes
from benchmarks.train_t2_heads import log_lines, prepared
from benchmarks.wkgm import CASES, Scan, brain, ours, root_sum_of_squares, simulated
from pipelines.evaluation.arrays import ArrayReconstruction
from pipelines.train import TrainingJob, train
from priors.classical.sake import sake
from priors.hkgm import HkgmTraining
from priors.learning.checkpoints import shipped_checkpoint
from priors.learning.networks import Architecture
from priors.learning.recipe import with_phase
from priors.prior import Prior
from priors.registry import load_prior

# The scan learnt from, by its words in mr_magnitude.txt; of its 19 slices the numbers for each table's row.
SCAN = "patient03 study2_T2W"
SLICES = {1: (9,), 4: (3, 7, 11, 15), 19: tuple(range(19))}
COILS = 8
STEPS, ABLATION_STEPS = 1500, 600
console = Console(width=160)


def one_scan(data: Path, slices: Sequence[int], folder: Path) -> Path:
    """File of the k-space (slice, coil, y, x) of slices of `SCAN` without their noise, seen by birdcage coils.

    The folder keeps the magnitude images without their noise as well.
    """
    sources = (data / "mr_magnitude.txt").read_text().splitlines()
    numbers = [number for number, source in enumerate(sources) if SCAN in source]
    denoised = prepared(folder / "magnitudes.npy", lambda: magnitudes(data, folder / "denoising.safetensors"))
    images = torch.from_numpy(np.load(denoised)[[numbers[slice_] for slice_ in slices]])
    kspace = torch.stack([simulated(image, COILS, (image.shape[0], image.shape[1])) for image in with_phase(images)])
    path = folder / f"t2_{len(slices)}_slices.npy"
    np.save(path, kspace.numpy().astype(np.complex64))
    return path


def job(
    scan: Path, out: Path, steps: int, batch: int = 16, crop: int = 64, device: str = "auto", **options: Any
) -> TrainingJob:
    """The standard training of `genrecon train hkgm`, with other options of it."""
    standard = HkgmTraining()
    settings = replace(standard.settings, steps=steps, batch=batch, crop=crop)
    return TrainingJob(
        kind="hkgm", data=(scan,), out=out, options=replace(standard, settings=settings, **options), device=device
    )


def scans_of(data: Path) -> list[Scan]:
    kspace, masks = brain(data)
    return [Scan(name, kspace, masks[name]) for name in CASES]


def scored(scans: list[Scan], reconstruct: Callable[[Scan], Tensor]) -> list[str]:
    """PSNR / SSIM of every scan."""
    return ["{:.2f} / {:.4f}".format(*scan.score(reconstruct(scan))[:2]) for scan in scans]


def learnt(name: str, scan: Path, out: Path, steps: int, **changes: Any) -> tuple[Prior, float]:
    """Prior of a training that is run unless its weights are there, and the seconds it took (0: it was there)."""
    path = out / f"{name}.safetensors"
    start = time.perf_counter()
    if not path.exists():
        train(job(scan, path, steps, **changes))
    return load_prior(path)[0], time.perf_counter() - start


# --- tables ----------------------------------------------------------------------------------------------------------


def ship(data: Path, out: Path, cache: Path, steps: int) -> None:
    """Train weights of a licence that allows to include them; the included ones learnt from one test image."""
    start = time.perf_counter()
    scan = one_scan(data, SLICES[19], cache)
    description = (
        f"one T2-weighted scan of a head without its noise ({SCAN} of open_ms_data, M. Lesjak et al., CC-BY), phases "
        "synthesised, seen by simulated birdcage coils"
    )
    train(
        replace(job(scan, out / "hkgm.safetensors", steps), description=description, licence="MIT"), log_lines("hkgm")
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(f"{time.perf_counter() - start:.0f} s, peak memory {peak:.2f} GiB, {torch.get_num_threads()} threads")


def slices(data: Path, out: Path, cache: Path, steps: int) -> None:
    """HKGM by number of slices learnt from, svd_wkgm and SAKE."""
    scans = scans_of(data)
    table = Table(
        title=f"4-coil T1 brain: PSNR / SSIM; HKGM learnt in {steps} steps from slices of a T2 scan, {COILS} coils"
    )
    for heading in ("method", *CASES, "calibrationless, " + CASES[0], "training [s]"):
        table.add_column(heading)
    wkgm = load_prior(shipped_checkpoint("wkgm"))[0]
    methods: list[tuple[str, Prior, float]] = [("svd_wkgm (18 T2 slices)", wkgm, 0.0)]
    for count, numbers in SLICES.items():
        scan = one_scan(data, numbers, cache)
        methods.append((f"hkgm, {count} slices", *learnt(f"slices_{count}", scan, out, steps)))
    for name, prior, seconds in methods:
        cells = scored(scans, lambda scan, prior=prior: ours(scan, prior, True)[0])
        calibrationless = scored(scans[:1], lambda scan, prior=prior: _calibrationless(scan, prior))
        table.add_row(name, *cells, *calibrationless, f"{seconds:.0f}" if seconds > 1 else "")
    table.add_row("sake", *scored(scans, _sake), "", "")
    console.print(table)


def _calibrationless(scan: Scan, prior: Prior) -> Tensor:
    return ours(scan, prior, True, data_consistency="low_rank")[0]


def _sake(scan: Scan) -> Tensor:
    return root_sum_of_squares(sake(scan.measured[None], scan.mask[None, None])[0])


@dataclass(frozen=True)
class Variant:
    """A row of the ablation."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)


LARGE = {"crop": 128, "batch": 4}
VARIANTS = (
    Variant("image patches 128, batch 4, p = 1/2, 1.3 M weights", LARGE),
    Variant("image patches 64, batch 16 (shipped)"),
    Variant("image patches 256, batch 1", {"crop": 256, "batch": 1}),
    Variant("k-space patches 128", {**LARGE, "patches": "kspace"}),
    Variant("Hankel patches 128, window 8", {**LARGE, "patches": "hankel"}),
    Variant("Hankel patches 256, batch 1, window 8 (published)", {"patches": "hankel", "crop": 256, "batch": 1}),
    Variant("image patches 128, p = 0 (no weighting)", {**LARGE, "power": 0.0}),
    Variant("image patches 128, p = 1", {**LARGE, "power": 1.0}),
    Variant("image patches 128, denoised first", {**LARGE, "denoise": True}),
    Variant("image patches 128, 3.9 M weights", {**LARGE, "architecture": Architecture(32, (1, 2, 4, 8))}),
    Variant("image patches 128, 0.3 M weights", {**LARGE, "architecture": Architecture(16, (1, 2, 2, 4))}),
    Variant("image patches 32, batch 64", {"crop": 32, "batch": 64}),
)


def ablation(data: Path, out: Path, cache: Path, steps: int) -> None:
    """What the prior learns best from, with as many steps for all."""
    scans = scans_of(data)
    table = Table(title=f"HKGM learnt from one T2 slice in {steps} steps; 4-coil T1 brain: PSNR / SSIM")
    for heading in ("variant", *CASES, "calibrationless, " + CASES[0], "training [s]"):
        table.add_column(heading)
    scan = one_scan(data, SLICES[1], cache)
    for number, variant in enumerate(VARIANTS):
        prior, seconds = learnt(f"ablation_{number}", scan, out, steps, **variant.changes)
        cells = scored(scans, lambda scan, prior=prior: ours(scan, prior, True)[0])
        cells += scored(scans[:1], lambda scan, prior=prior: _calibrationless(scan, prior))
        table.add_row(variant.name, *cells, f"{seconds:.0f}")
        console.print(variant.name, *cells, f"{seconds:.0f} s", soft_wrap=True)
    console.print(table)


def published(data: Path, out: Path, cache: Path, steps: int) -> None:
    """Predictor, Hankel low rank, data consistency, corrector, Hankel low rank, data consistency; zero-filled start."""
    scan = scans_of(data)[0]
    table = Table(title=f"published sampler, {scan.name}: PSNR / SSIM")
    for heading in ("prior", "window 8, rank 115", "few steps, calibrationless", "s"):
        table.add_column(heading)
    files = {"image patches": shipped_checkpoint("hkgm"), "Hankel patches": out / "ablation_5.safetensors"}
    for name, path in files.items():
        if not path.exists():
            console.print(f"{path} is not there: run the ablation first")
            continue
        prior = load_prior(path)[0]
        start = time.perf_counter()
        options: dict[str, Any] = {"sampler": "predictor_corrector", "start": "measured", "steps": steps}
        image = ours(scan, prior, True, data_consistency="low_rank", window=8, rank=115, **options)[0]
        seconds = time.perf_counter() - start
        few = scored([scan], lambda scan, prior=prior: _calibrationless(scan, prior))
        table.add_row(name, "{:.2f} / {:.4f}".format(*scan.score(image)[:2]), *few, f"{seconds:.0f}")
    console.print(table)


def self_calibration(data: Path, budget: float) -> None:
    """training=self on every case: quality without and with it, seconds, and those of the second scan."""
    table = Table(title=f"training=self, training_budget_s = {budget:g}: PSNR / SSIM, seconds of the gadget")
    for heading in ("case", "shipped weights", "first scan", "second scan", "what was done"):
        table.add_column(heading)
    for scan in scans_of(data):
        cells, notes = [], ""
        with tempfile.TemporaryDirectory() as folder:
            learning = {"training": "self", "training_budget_s": str(budget), "training_cache": folder}
            for properties in ({}, learning, learning):
                gadgets = ArrayReconstruction({"method": "hkgm", **properties})
                item = gadgets.with_maps(scan.measured.numpy())
                result = gadgets(item)
                psnr, ssim, _ = scan.score(torch.from_numpy(result.image))
                cells.append(f"{psnr:.2f} / {ssim:.4f}, {result.seconds:.1f} s")
                if len(cells) == 2:
                    notes = result.notes.get("GenreconTraining", "")
        table.add_row(scan.name, *cells, notes)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("ship", "slices", "ablation", "published", "self"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the arrays")
    parser.add_argument("--out", type=Path, default=Path("hkgm"), help="folder of weights")
    parser.add_argument("--cache", type=Path, default=Path("training_data"), help="folder of the prepared arrays")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=0, help="optimiser steps, or steps of the published sampler")
    parser.add_argument("--budget", type=float, default=60.0, help="training_budget_s")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.table == "self":
        self_calibration(arguments.data, arguments.budget)
        return
    tables = {
        "ship": (ship, STEPS),
        "slices": (slices, STEPS),
        "ablation": (ablation, ABLATION_STEPS),
        "published": (published, 1000),
    }
    run, steps = tables[arguments.table]
    run(arguments.data, arguments.out, arguments.cache, arguments.steps or steps)


if __name__ == "__main__":
    main()
