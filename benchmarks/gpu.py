"""The generative methods on a GPU: time, memory, agreement with the CPU, training; and which of some priors is better.

python -m benchmarks.gpu speed      # wkgm, svd_wkgm, hkgm through the gadget, 1, 4 and 16 slices at once, CPU beside it
python -m benchmarks.gpu profile    # where the time of a batch goes, and how often the host waits for the GPU
python -m benchmarks.gpu train      # genrecon train hkgm of the shipped kind; steps of wkgm a second by batch and crop
python -m benchmarks.gpu held_out --prior A.safetensors B.safetensors   # on T2 slices that were not trained on

`--device cpu` runs any of them without a GPU, to try it; on a GPU none of them was run yet.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gadgetron.types import ReconData
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.profiler import ProfilerActivity

from benchmarks.hkgm import SLICES, STEPS, job, one_scan
from benchmarks.wkgm import CASES, HELD_OUT, Scan, brain, ours, poisson, simulated
from gadgets.images import WARNINGS, meta_of, meta_values
from gadgets.stream import ReconError
from pipelines.evaluation import metrics
from pipelines.evaluation.arrays import ArrayReconstruction, resize_header
from pipelines.train import train as run_training
from priors.learning.checkpoints import shipped_checkpoint
from priors.learning.networks import Architecture, EdmDenoiser, compute_device
from priors.learning.training import ImageCrops, TrainingSettings, denoising_trainer, normalised
from priors.registry import load_prior
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.weighting import Weighting

TARGET_S = 0.3  # seconds a slice, 16 at once
TRAINING_TARGET_S = 60.0
WARM_STEPS, TIMED_STEPS = 20, 100  # of training; fewer on a CPU
CPU_STEPS = 3
SHAPE = (256, 256)
console = Console(width=170)


class Together(ArrayReconstruction):
    """The gadget for several slices at once, on a device.

    Parameters
    ----------
    method : of the gadget
    count : slices at once
    device : "cuda" or "cpu"
    **properties : of the gadget
    """

    def __init__(self, method: str, count: int, device: str, **properties: str) -> None:
        super().__init__({"method": method, "slices_at_once": str(count), "device": device, **properties})
        self._device = device

    def together(self, items: list[ReconData]) -> tuple[Tensor, float]:
        """Images (slice, y, x) of what `with_maps` gave, and the seconds of the gadget, the device's work done.

        Raises ReconError when another method had to stand in: its time is not that of the method.
        """
        width, height = items[0].bits[0].data.data.shape[:2]
        resize_header(self._header, width, height)
        synchronise(self._device)
        start = time.perf_counter()
        arrays = list(self._recon.process(iter(items)))
        synchronise(self._device)
        seconds = time.perf_counter() - start
        for array in arrays:
            if meta_values(meta_of(array.meta[0]), "GenreconFallback"):
                raise ReconError("; ".join(meta_values(meta_of(array.meta[0]), WARNINGS)))
        images = [np.ascontiguousarray(array.data[:, :, 0, 0, 0, 0, 0].T) for array in arrays]
        return torch.from_numpy(np.stack(images)), seconds


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


@contextlib.contextmanager
def peak_memory(device: str) -> Iterator[list[float]]:
    """GiB of a GPU's memory that tensors took at most, in the list after the block; nothing of a CPU."""
    found: list[float] = []
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    yield found
    if device != "cpu":
        found.append(torch.cuda.max_memory_allocated() / 2**30)


def turned(scan: Scan, kind: int) -> Scan:
    """The scan with its image turned by quarters and, from kind 4 on, mirrored: another slice, as hard as it."""
    images = torch.rot90(ifft2c(scan.truth), kind % 4, (-2, -1))
    return Scan(f"{scan.name}, {kind}", fft2c(images.flip(-1) if kind >= 4 else images), scan.mask)


def psnr(one: Tensor, other: Tensor) -> float:
    """PSNR in dB of two images whose maximum is 1, at most 200."""
    return metrics.psnr(one.abs().cpu().numpy(), other.abs().cpu().numpy())


def named(device: str) -> str:
    """What a device is called."""
    return torch.cuda.get_device_name() if device != "cpu" else f"CPU, {torch.get_num_threads()} threads"


# --- tables ----------------------------------------------------------------------------------------------------------


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds a slice by slices at once, and the same on the CPU; agreement of the two."""
    kspace, masks = brain(arguments.data)
    device, found = arguments.device, {}
    most = max(arguments.slices)
    scans = [turned(Scan(CASES[0], kspace, masks[CASES[0]]), number % 8) for number in range(most)]
    maker = ArrayReconstruction({"method": "zero_filled"})
    items = [maker.with_maps(scan.measured.numpy()) for scan in scans]
    table = Table(title=f"{CASES[0]}, 256 x 256 x 4, seconds a slice; {named(device)}, median of {arguments.repeats}")
    for heading in ("method", "at once", "first call, s", "s a slice", "slowest", "peak GiB", "CPU, one, s"):
        table.add_column(heading)
    for heading in (
        "PSNR / SSIM",
        "CPU",
        f"dB against the CPU (at most {arguments.compare} at once)",
        "twice the same",
    ):
        table.add_column(heading)
    for method in arguments.methods:
        alone = Together(method, 1, "cpu")
        alone.together(items[:1])
        cpu_s = statistics.median(alone.together(items[:1])[1] for _ in range(arguments.cpu_repeats))
        for count in arguments.slices:
            some = items[:count]
            with peak_memory(device) as gigabytes:
                gadget = Together(method, count, device)
                first, first_s = gadget.together(some)
                runs = [gadget.together(some) for _ in range(arguments.repeats)]
            times = [seconds / count for _, seconds in runs]
            row: dict[str, Any] = {
                "first_call_s": first_s,
                "slice_s": statistics.median(times),
                "slowest_slice_s": max(times),
                "peak_gib": gigabytes[0] if gigabytes else None,
                "cpu_slice_s": cpu_s,
                "difference_of_two_runs": max(float((images - first).abs().max()) for images, _ in runs),
                "scores": _mean_score(scans, first),
            }
            if count <= arguments.compare:
                reference, _ = Together(method, count, "cpu").together(some)
                row["cpu_scores"] = _mean_score(scans, reference)
                row["psnr_against_cpu"] = min(psnr(a, b) for a, b in zip(first, reference, strict=True))
            found[f"{method}, {count}"] = row
            table.add_row(
                method, str(count), f"{first_s:.2f}", f"{row['slice_s']:.3f}", f"{row['slowest_slice_s']:.3f}",
                f"{gigabytes[0]:.2f}" if gigabytes else "", f"{cpu_s:.2f}", "{:.2f} / {:.4f}".format(*row["scores"]),
                "{:.2f} / {:.4f}".format(*row["cpu_scores"]) if "cpu_scores" in row else "",
                f"{row['psnr_against_cpu']:.1f}" if "psnr_against_cpu" in row else "",
                f"{row['difference_of_two_runs']:.1e}",
            )  # fmt: skip
    console.print(table)
    console.print(f"target: {TARGET_S:g} s a slice, 16 at once; no column has the coil maps (gadget Espirit) in it")
    return found


def _mean_score(scans: list[Scan], images: Tensor) -> tuple[float, float]:
    """Mean PSNR and SSIM of images against the truth of as many scans."""
    scores = [scan.score(image)[:2] for scan, image in zip(scans, images, strict=False)]
    return float(np.mean([one[0] for one in scores])), float(np.mean([one[1] for one in scores]))


def profile(arguments: argparse.Namespace) -> dict[str, Any]:
    """Where the time of a batch goes: by kernel, and by stage with every launch waited for."""
    kspace, masks = brain(arguments.data)
    device, count, method = arguments.device, max(arguments.slices), arguments.methods[-1]
    scans = [turned(Scan(CASES[0], kspace, masks[CASES[0]]), number % 8) for number in range(count)]
    gadget = Together(method, count, device)
    items = [gadget.with_maps(scan.measured.numpy()) for scan in scans]
    gadget.together(items)
    plain_s = statistics.median(gadget.together(items)[1] for _ in range(arguments.repeats))
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device != "cpu" else [])
    with torch.profiler.profile(activities=activities) as profiler:
        gadget.together(items)
    averages = profiler.key_averages()
    order = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    console.print(averages.table(sort_by=order, row_limit=25, max_name_column_width=70), soft_wrap=True)
    on_device = sum(entry.self_device_time_total for entry in averages) / 1e6
    waits = {entry.key: entry.count for entry in averages if entry.key.startswith(("cudaStreamSync", "cudaMemcpy"))}
    launches = sum(entry.count for entry in averages if entry.key.startswith(("cudaLaunchKernel", "cuLaunchKernel")))
    console.print(
        f"{method}, {count} slices: {plain_s:.3f} s without the profiler, {on_device:.3f} s of kernels, {launches} "
        f"launches, {waits}"
    )
    stages = _stages(gadget, items)
    table = Table(title=f"{method}, {count} slices on {named(device)}: stages, every launch waited for if it was asked")
    for heading in ("function", "calls", "s"):
        table.add_column(heading)
    for name, (calls, seconds) in stages.items():
        table.add_row(name, str(calls), f"{seconds:.3f}")
    console.print(table)
    if device != "cpu" and os.environ.get("CUDA_LAUNCH_BLOCKING") != "1":
        console.print("launches were not waited for: set CUDA_LAUNCH_BLOCKING=1 for seconds that are each stage's own")
    return {"seconds": plain_s, "kernels_s": on_device, "launches": launches, "waits": waits, "stages": stages}


def _stages(gadget: Together, items: list[ReconData]) -> dict[str, tuple[int, float]]:
    """Calls and seconds of the functions that a reconstruction consists of."""
    names = (
        "choose", "image_scale", "noise_level", "cg_sense", "denoise", "sense_proximal", "low_rank_maps",
        "measured_share", "denoising_gain", "reconstruct", "_arrays", "together",
    )  # fmt: skip
    profiler = cProfile.Profile()
    profiler.enable()
    gadget.together(items)
    profiler.disable()
    found: dict[str, tuple[int, float]] = {}
    for (file, _, name), values in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        # The prior's own denoise counts, not the wrapper that counts evaluations.
        if name in names and not (name == "denoise" and file.endswith("reconstruct.py")):
            found[name] = values[1], values[3]
    return {name: found[name] for name in names if name in found}


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """`genrecon train hkgm` of the shipped kind, and the speed of a WKGM training."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan, out = one_scan(arguments.data, SLICES[1], folder), folder / "hkgm.safetensors"
        start = time.perf_counter()
        run_training(job(scan, out, arguments.steps, device=arguments.device))
        found["hkgm_s"] = time.perf_counter() - start
        prior = load_prior(out)[0]
    kspace, masks = brain(arguments.data)
    scans = [Scan(case, kspace, masks[case]) for case in CASES]
    found["hkgm_scores"] = {scan.name: scan.score(ours(scan, prior, True)[0])[:2] for scan in scans}
    scores = ", ".join("{} {:.2f} / {:.4f}".format(name, *values) for name, values in found["hkgm_scores"].items())
    console.print(
        f"genrecon train hkgm, {arguments.steps} steps on {named(arguments.device)}: {found['hkgm_s']:.0f} s (target "
        f"{TRAINING_TARGET_S:g} for {STEPS}); reconstructed on the CPU with it: {scores}"
    )
    images = normalised(torch.from_numpy(np.load(arguments.data / "t2_brain_slices.npy"))[:-HELD_OUT])
    table = Table(
        title=f"training wkgm on {named(arguments.device)}: a mean over {TIMED_STEPS} steps ({CPU_STEPS} on a CPU)"
    )
    for heading in ("base channels", "batch", "crop", "steps a second", "crops a second", "peak GiB"):
        table.add_column(heading)
    for channels, batch, crop in ((32, 4, 128), (32, 16, 128), (32, 64, 128), (32, 16, 256), (48, 16, 128)):
        if arguments.device == "cpu" and batch * crop**2 > 4 * 128**2:
            continue
        with peak_memory(arguments.device) as gigabytes:
            a_second = _steps_a_second(images, Architecture(channels), batch, crop, arguments.device)
        found[f"wkgm, {channels} channels, batch {batch}, crop {crop}"] = {
            "steps_a_second": a_second,
            "peak_gib": gigabytes[0] if gigabytes else None,
        }
        cells = (f"{a_second:.2f}", f"{a_second * batch:.0f}", f"{gigabytes[0]:.2f}" if gigabytes else "")
        table.add_row(str(channels), str(batch), str(crop), *cells)
    console.print(table)
    return found


def _steps_a_second(images: Tensor, architecture: Architecture, batch: int, crop: int, device: str) -> float:
    """Optimiser steps a second of a warm training."""
    torch.manual_seed(0)
    warm, timed = (1, CPU_STEPS) if device == "cpu" else (WARM_STEPS, TIMED_STEPS)
    settings = TrainingSettings(steps=warm + timed, batch=batch, crop=crop)
    trainer = denoising_trainer(
        EdmDenoiser(architecture).to(device), ImageCrops(images, Weighting(), settings), settings
    )
    trainer.run(until=warm)
    synchronise(device)
    start = time.perf_counter()
    trainer.run()
    synchronise(device)
    return timed / (time.perf_counter() - start)


def held_out(arguments: argparse.Namespace) -> dict[str, Any]:
    """Priors on the T2 slices that none of them was trained on, seen by simulated coils."""
    slices = torch.from_numpy(np.load(arguments.data / "t2_brain_slices.npy"))[-HELD_OUT:]
    masks = {name: torch.from_numpy(mask) for name, mask in np.load(arguments.data / "masks.npz").items()}
    masks = {name: masks[name] for name in CASES} | {"Poisson R=6": poisson(SHAPE, 6)}
    cases = [
        (f"{coils} coils, {name}, noise {noise:g}", [Scan(name, one, mask, noise) for one in seen])
        for coils in (4, 8)
        for seen in ([simulated(image, coils, SHAPE) for image in slices],)
        for name, mask in masks.items()
        for noise in (0.0, 0.01)
    ]
    method, found = arguments.methods[-1], {}
    table = Table(title=f"{method} on {HELD_OUT} held-out T2 slices, {named(arguments.device)}: mean PSNR / SSIM")
    table.add_column("case")
    maker = ArrayReconstruction({"method": "zero_filled"})
    everything = {name: [maker.with_maps(scan.measured.numpy()) for scan in scans] for name, scans in cases}
    columns: dict[str, list[tuple[float, float]]] = {}
    for path in arguments.prior:
        table.add_column(str(path))
        gadget = Together(method, 1, arguments.device, prior=str(path))
        columns[str(path)] = []
        for name, scans in cases:
            columns[str(path)].append(_mean_score(scans, gadget.together(everything[name])[0]))
            console.print(f"{path.name}, {name}: " + "{:.2f} / {:.4f}".format(*columns[str(path)][-1]), soft_wrap=True)
        found[str(path)] = dict(zip(everything, columns[str(path)], strict=True))
        found[str(path)]["mean"] = tuple(np.mean(columns[str(path)], axis=0).tolist())
    for name in (*everything, "mean"):
        table.add_row(name, *("{:.2f} / {:.4f}".format(*found[str(path)][name]) for path in arguments.prior))
    console.print(table)
    return found


TABLES = {"speed": speed, "profile": profile, "train": train, "held_out": held_out}


def main() -> None:
    """Print one table, and write its figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=tuple(TABLES))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the arrays")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument(
        "--methods", nargs="+", default=["wkgm", "hkgm", "svd_wkgm"], help="profile, held_out: the last"
    )
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 4, 16], help="slices at once; profile: the most")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls after the first one")
    parser.add_argument("--cpu-repeats", type=int, default=3, help="the same, of the CPU beside the GPU")
    parser.add_argument("--compare", type=int, default=4, help="most slices at once that the CPU computes too")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training of hkgm")
    parser.add_argument(
        "--prior", type=Path, nargs="+", default=[shipped_checkpoint("wkgm")], help="weights (held_out)"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    try:
        compute_device(arguments.device)
    except ValueError as error:
        sys.exit(f"error: {error}")
    result = TABLES[arguments.table](arguments)
    if arguments.out is not None:
        where = {"device": named(arguments.device), "torch": torch.__version__, arguments.table: result}
        arguments.out.write_text(json.dumps(where, indent=2) + "\n")


if __name__ == "__main__":
    main()
