"""Quality, time, robustness and uncertainty of WKGM and svd-WKGM, baselines beside them in the same run.

python -m benchmarks.wkgm quality       # 4-coil brain, Poisson R = 4 and 10, random R = 4
python -m benchmarks.wkgm single        # single-coil T2 slices that the shipped weights were not trained on
python -m benchmarks.wkgm robustness    # accelerations, patterns, noise, coils, matrices, a phantom
python -m benchmarks.wkgm uncertainty   # standard deviation of samples against the true error
python -m benchmarks.wkgm published     # the paper's 1000 predictor-corrector steps, once, on one slice
python -m benchmarks.wkgm profile       # seconds of every stage
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sigpy
import sigpy.mri
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from torch import Tensor

from pipelines.evaluation.metrics import OBJECT_THRESHOLD, measures
from pipelines.simulation import sampling as patterns
from pipelines.simulation.coils import birdcage_maps
from priors.classical.l1_wavelet import l1_wavelet
from priors.learning.checkpoints import shipped_checkpoint
from priors.prior import Prior
from priors.reconstruct import reconstruct
from priors.registry import load_prior
from priors.settings import Reconstruction, ReconstructionSettings
from priors.signal.combination import combine_sets
from priors.signal.espirit import calibration_region, espirit_maps
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.hankel import low_rank_completion
from priors.signal.scale import image_scale

CASES = ("poisson_4", "poisson_10", "random2D_4")
LAMBDAS = (1e-3, 3e-3, 1e-2)
SAKE_RANKS = (40, 54, 72)  # window 6
HELD_OUT = 4
console = Console(width=150)


@dataclass
class Scan:
    """A fully sampled scan, divided by the maximum of its root-sum-of-squares image, and a sampling mask.

    Parameters
    ----------
    name : of the case
    truth : complex64 k-space (coil, y, x) that images are compared with
    mask : bool (y, x)
    noise : standard deviation of noise that is added to the measured samples, in each part
    """

    name: str
    truth: Tensor
    mask: Tensor
    noise: float = 0.0

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        noise = self.noise * 2**0.5 * torch.randn(self.truth.shape, dtype=torch.complex64, generator=generator)
        self.measured = (self.truth + noise) * self.mask
        self.reference = root_sum_of_squares(self.truth).numpy()

    def maps(self, sets: int, size: int = 24) -> Tensor:
        """ESPIRiT maps (1, set, coil, y, x) of the fully sampled centre, at most `size` wide."""
        rows, columns = (
            slice(max(region.start, n // 2 - size // 2), min(region.stop, n // 2 + size // 2))
            for region, n in zip(calibration_region(self.mask), self.mask.shape, strict=True)
        )
        return espirit_maps(self.measured[None][..., rows, columns], tuple(self.mask.shape), sets=sets, crop=0.0)

    def score(self, image: Tensor) -> tuple[float, float, float]:
        """PSNR (dB) and SSIM of an image, and PSNR inside the object."""
        array = image.abs().numpy().astype(np.float32)
        found = measures(array, self.reference)
        return found["psnr"], found["ssim"], found["psnr_object"]


def root_sum_of_squares(kspace: Tensor) -> Tensor:
    """Image (..., y, x) of coil k-space (..., coil, y, x)."""
    return torch.linalg.vector_norm(ifft2c(kspace), dim=-3)


# --- methods ---------------------------------------------------------------------------------------------------------


def ours(
    scan: Scan, prior: Prior, low_rank: bool, maps: Tensor | None = None, **settings: object
) -> tuple[Tensor, Reconstruction]:
    """Root-sum-of-squares image of WKGM or (low_rank) svd-WKGM, maps included, and the result."""
    maps = scan.maps(2) if maps is None else maps
    level = image_scale(scan.measured[None], scan.mask)
    options = ReconstructionSettings(low_rank=low_rank, **settings)  # type: ignore[arg-type]
    result = reconstruct(scan.measured[None] / level[:, None, None, None], scan.mask, maps, prior, options)
    return root_sum_of_squares(result.kspace[:, 0] * level).mean(0), result


def own_l1_wavelet(scan: Scan) -> Tensor:
    """The gadget's method l1_wavelet with its defaults and two map sets, as the shipped chain has them."""
    maps, level = scan.maps(2), image_scale(scan.measured[None], scan.mask)
    images = l1_wavelet(scan.measured[None] / level[:, None, None, None], maps, scan.mask[None, None])
    return combine_sets(images, maps)[0] * level


def sigpy_l1_wavelet(measured: Tensor, mask: Tensor, maps: Tensor, regularisation: float, iterations: int) -> Tensor:
    """SigPy's L1WaveletRecon: image (y, x) of k-space (coil, y, x)."""
    app = sigpy.mri.app.L1WaveletRecon(
        measured.numpy(), maps.numpy(), regularisation, weights=mask.numpy().astype(np.float32), max_iter=iterations,
        show_pbar=False,
    )  # fmt: skip
    return torch.from_numpy(np.asarray(app.run()))


def best(scan: Scan, images: Iterator[tuple[str, Tensor]]) -> tuple[str, Tensor]:
    """The one of the highest PSNR: what somebody would find who knew the truth."""
    return max(images, key=lambda entry: scan.score(entry[1])[0])


def tuned_sigpy(scan: Scan) -> tuple[str, Tensor]:
    """SigPy's L1-wavelet with one map set, and its best regularisation."""
    maps = scan.maps(1)[0, 0]

    def candidates() -> Iterator[tuple[str, Tensor]]:
        for value in LAMBDAS:
            image = sigpy_l1_wavelet(scan.measured, scan.mask, maps, value, 100)
            yield f"lambda {value:g}", root_sum_of_squares(fft2c(maps * image))

    return best(scan, candidates())


def tuned_sake(scan: Scan) -> tuple[str, Tensor]:
    """SAKE, 50 iterations, with the best of three ranks."""
    kspace, mask = scan.measured[None], scan.mask[None, None]
    found = ((f"rank {r}", root_sum_of_squares(low_rank_completion(kspace, mask, 6, r, 50)[0])) for r in SAKE_RANKS)
    return best(scan, found)


def timed(function: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


# --- data ------------------------------------------------------------------------------------------------------------


def brain(data: Path) -> tuple[Tensor, dict[str, Tensor]]:
    """K-space (coil, y, x) of the fully sampled T1 brain, and the masks by name."""
    kspace = torch.from_numpy(np.load(data / "t1_ge_brain_4ch_kspace.npy"))
    masks = {name: torch.from_numpy(mask) for name, mask in np.load(data / "masks.npz").items()}
    return kspace / root_sum_of_squares(kspace).max(), masks


def poisson(shape: tuple[int, int], acceleration: float) -> Tensor:
    """Poisson-disc mask with a fully sampled centre."""
    return torch.from_numpy(patterns.poisson(shape, acceleration))


def lines(shape: tuple[int, int], acceleration: float, seed: int | None = None) -> Tensor:
    """Mask of phase-encoding lines: every `acceleration`-th one, or as many at random; the centre is full."""
    if seed is None:
        return torch.from_numpy(patterns.uniform(shape, acceleration))
    return torch.from_numpy(patterns.random_lines(shape, acceleration, seed))


def simulated(image: Tensor, coils: int, shape: tuple[int, int]) -> Tensor:
    """Noiseless k-space (coil, y, x) of an image, on another matrix, seen by birdcage coils."""
    kspace = fft2c(image)
    for axis, size in ((-2, shape[0]), (-1, shape[1])):
        now = kspace.shape[axis]
        if size <= now:
            kspace = kspace.narrow(axis, now // 2 - size // 2, size)
        else:
            before = size // 2 - now // 2
            padding = [0, 0, before, size - now - before] if axis == -2 else [before, size - now - before]
            kspace = torch.nn.functional.pad(kspace, padding)
    result = fft2c(torch.from_numpy(birdcage_maps(coils, shape)) * ifft2c(kspace))
    return result / root_sum_of_squares(result).max()


# --- tables ----------------------------------------------------------------------------------------------------------


def quality(data: Path, prior: Prior, pictures: Path | None, repeats: int) -> None:
    """The main table."""
    kspace, masks = brain(data)
    table = Table(
        title=f"4-coil T1 brain, 256 x 256: PSNR / SSIM (PSNR inside the object); {torch.get_num_threads()} threads"
    )
    for heading in ("method", *CASES, "evaluations", f"s a slice (median of {repeats}), {CASES[0]}"):
        table.add_column(heading)
    scans = [Scan(name, kspace, masks[name]) for name in CASES]
    methods: dict[str, Callable[[Scan], tuple[str, Tensor]]] = {
        "zero-filled": lambda scan: ("", root_sum_of_squares(scan.measured)),
        "L1-wavelet, SigPy, best of 3 lambdas": tuned_sigpy,
        "l1_wavelet": lambda scan: ("", own_l1_wavelet(scan)),
        "SAKE, best of 3 ranks, 50 iterations": tuned_sake,
        "wkgm": lambda scan: _with_evaluations(*ours(scan, prior, False)),
        "svd_wkgm": lambda scan: _with_evaluations(*ours(scan, prior, True)),
        "svd_wkgm, calibrationless": lambda scan: _with_evaluations(
            *ours(scan, prior, True, data_consistency="low_rank")
        ),
        "svd_wkgm, measured samples weighted": lambda scan: _with_evaluations(
            *ours(scan, prior, True, keep_measured="false")
        ),
    }
    for name, method in methods.items():
        cells, evaluations = [], ""
        for scan in scans:
            note, image = method(scan)
            cells.append(
                "{:.2f} / {:.4f} ({:.2f})".format(*scan.score(image)) + (f", {note}" if "=" not in note else "")
            )
            evaluations = note.removeprefix("n=") if "=" in note else evaluations
            if pictures is not None:
                _save(
                    pictures / f"{name.replace(', ', '-').replace(' ', '_')}-{scan.name}.png",
                    image.abs(),
                    scan.reference,
                )
        one_of = 3 if "best of 3" in name else 1
        seconds = timed(lambda method=method: method(scans[0]), repeats if one_of == 1 else 1) / one_of
        table.add_row(name, *(cell.rstrip(", ") for cell in cells), evaluations, f"{seconds:.2f}")
    console.print(table)


def _with_evaluations(image: Tensor, result: Reconstruction) -> tuple[str, Tensor]:
    return f"n={result.evaluations}", image


def _save(path: Path, image: Tensor, reference: np.ndarray) -> None:
    """PNG of an image and of five times its error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    both = np.concatenate([image.numpy(), 5 * np.abs(image.numpy() - reference)], 1)
    Image.fromarray((255 * both.clip(0, 1)).astype(np.uint8)).save(path)


def single(data: Path, prior: Prior, lambdas: tuple[float, ...]) -> None:
    """Single-coil slices that were held out of the training, against SigPy's L1-wavelet."""
    slices = torch.from_numpy(np.load(data / "t2_brain_slices.npy"))[-HELD_OUT:]
    slices = slices / slices.abs().amax((1, 2), keepdim=True)
    masks = {name: torch.from_numpy(mask) for name, mask in np.load(data / "masks.npz").items()}
    table = Table(title=f"single-coil complex T2, {HELD_OUT} slices not trained on: mean PSNR / SSIM")
    for heading in (
        "mask",
        "zero-filled",
        "SigPy L1-wavelet, lambda tuned",
        "wkgm",
        "gain [dB]",
        "of every slice [dB]",
    ):
        table.add_column(heading)
    for name, needed in (("radial_030", 2.8), ("radial_010", 3.5), ("cart_085", 2.6)):
        mask = masks[name]
        scans = [Scan(name, fft2c(one)[None], mask) for one in slices]
        one_coil = torch.ones(1, *mask.shape, dtype=torch.complex64)

        def mean(images: list[Tensor], scans: list[Scan] = scans) -> np.ndarray:
            return np.array([scan.score(image)[:2] for scan, image in zip(scans, images, strict=True)])

        zero = mean([root_sum_of_squares(scan.measured) for scan in scans])
        tuned = {
            value: mean([sigpy_l1_wavelet(scan.measured, mask, one_coil, value, 300) for scan in scans])
            for value in lambdas
        }
        chosen = max(tuned, key=lambda value: tuned[value][:, 0].mean())
        found = mean([ours(scan, prior, False, one_coil[None, None], steps=30)[0] for scan in scans])
        gains = found[:, 0] - tuned[chosen][:, 0]
        table.add_row(
            name,
            "{:.2f} / {:.3f}".format(*zero.mean(0)),
            "{:.2f} / {:.3f}".format(*tuned[chosen].mean(0)) + f" ({chosen:g})",
            "{:.2f} / {:.3f}".format(*found.mean(0)),
            f"{gains.mean():+.2f} (HGGDP over DLMRI: +{needed})",
            " ".join(f"{gain:+.2f}" for gain in gains),
        )
    console.print(table)


def robust_scans(data: Path) -> Iterator[Scan]:
    """The same brain under other conditions, and a phantom."""
    kspace, masks = brain(data)
    shape = (256, 256)
    for acceleration in (2, 3, 4, 5, 6, 8, 10, 12):
        yield Scan(f"Poisson R={acceleration}", kspace, poisson(shape, acceleration))
    yield Scan("Poisson R=4, mask shifted by (6, -9)", kspace, masks["poisson_4"].roll((6, -9), (0, 1)))
    yield Scan("random R=4, mask shifted by (-4, 5)", kspace, masks["random2D_4"].roll((-4, 5), (0, 1)))
    yield Scan("uniform 2 x 2", kspace, lines(shape, 2) & lines(shape, 2).T | poisson(shape, 100))
    for acceleration in (2, 3, 4):
        yield Scan(f"1D random R={acceleration}", kspace, lines(shape, acceleration, seed=2))
    for acceleration in (2, 3, 4):
        yield Scan(f"1D uniform R={acceleration} + 24 lines", kspace, lines(shape, acceleration))
    # Noise of the scan itself, from a corner without object, and added to it.
    level = float(ifft2c(kspace)[:, :24, :24].real.std())
    for factor in (2, 4):
        added = level * (factor**2 - 1) ** 0.5
        yield Scan(f"Poisson R=4, noise x {factor}", kspace, masks["poisson_4"], added)
    maps = Scan("", kspace, torch.ones(shape, dtype=torch.bool)).maps(1)[0, 0]
    image = (maps.conj() * ifft2c(kspace)).sum(0)
    for factor in (0.5, 1, 2, 4):
        yield Scan(
            f"simulated 4 coils, R=4, noise x {factor}", simulated(image, 4, shape), masks["poisson_4"], factor * level
        )
    for acceleration in (4, 8):
        name = f"simulated 8 coils, R={acceleration}"
        yield Scan(name, simulated(image, 8, shape), poisson(shape, acceleration), level)
    for size in ((192, 144), (320, 320)):
        name = f"simulated {size[0]} x {size[1]}, 4 coils, R=4"
        yield Scan(name, simulated(image, 4, size), poisson(size, 4), level)
    phantom = torch.from_numpy(sigpy.shepp_logan(shape).astype(np.complex64))
    yield Scan("Shepp-Logan phantom, 4 coils, R=4", simulated(phantom, 4, shape), masks["poisson_4"], level)


def robustness(data: Path, prior: Prior) -> None:
    """svd_wkgm with default settings against both L1-wavelet methods."""
    table = Table(title="robustness: PSNR / SSIM, defaults everywhere")
    for heading in ("case", "L1 SigPy, tuned", "l1_wavelet", "wkgm", "svd_wkgm", "margin [dB]", "s", "how"):
        table.add_column(heading)
    worst = (np.inf, "")
    for scan in robust_scans(data):
        baselines = [scan.score(tuned_sigpy(scan)[1]), scan.score(own_l1_wavelet(scan))]
        wkgm = scan.score(ours(scan, prior, False)[0])
        start = time.perf_counter()
        image, result = ours(scan, prior, True)
        seconds = time.perf_counter() - start
        found = scan.score(image)
        margin = min(found[0], wkgm[0]) - max(one[0] for one in baselines)
        if "phantom" not in scan.name:
            worst = min(worst, (margin, scan.name))
        cells = ["{:.2f} / {:.3f}".format(*one[:2]) for one in (*baselines, wkgm, found)]
        how = result.consistency + "".join(f"; {text}" for text in result.warnings[0])
        table.add_row(scan.name, *cells, f"{margin:+.2f}", f"{seconds:.1f}", how)
    console.print(table)
    console.print(
        f"smallest margin of the two over the better baseline: {worst[0]:+.2f} dB, {worst[1]}; none may be below -0.30"
    )


def uncertainty(data: Path, prior: Prior, samples: int) -> None:
    """Standard deviation over samples against the absolute error, inside the object."""
    kspace, masks = brain(data)
    table = Table(title=f"{samples} samples of svd_wkgm")
    for heading in (
        "case",
        "one estimate",
        "mean of the samples",
        "Spearman's rho inside the object",
        "std / error (rms)",
    ):
        table.add_column(heading)
    for name in CASES:
        scan = Scan(name, kspace, masks[name])
        maps = scan.maps(2)
        level = float(image_scale(scan.measured[None], scan.mask))
        alone, _ = ours(scan, prior, True, maps)
        _, result = ours(scan, prior, True, maps, samples=samples)
        magnitudes = root_sum_of_squares(result.kspace[:, 0] * level)
        mean, deviation = magnitudes.mean(0), magnitudes.std(0).numpy()
        inside = scan.reference > OBJECT_THRESHOLD
        error = np.abs(mean.numpy() - scan.reference)[inside]
        rho = spearmanr(deviation[inside], error).statistic
        ratio = np.sqrt(np.square(deviation[inside]).mean() / np.square(error).mean())
        scores = ["{:.2f} / {:.4f}".format(*scan.score(image)[:2]) for image in (alone, mean)]
        table.add_row(name, *scores, f"{rho:.3f}", f"{ratio:.2f}")
    console.print(table)


def published(data: Path, prior: Prior, steps: int) -> None:
    """The paper's setting beside the few steps, on one slice."""
    kspace, masks = brain(data)
    scan = Scan(CASES[0], kspace, masks[CASES[0]])
    table = Table(title=f"{scan.name}: svd_wkgm, coil by coil with Hankel low rank")
    for heading in ("sampler", "PSNR / SSIM", "evaluations", "s"):
        table.add_column(heading)
    for name, settings in (
        ("few steps, chosen data consistency", {}),
        ("few steps, coil by coil", {"data_consistency": "low_rank"}),
        (
            f"predictor-corrector, {steps} steps, window 8, rank 115, as published",
            {
                "data_consistency": "low_rank", "sampler": "predictor_corrector", "steps": steps, "window": 8,
                "rank": 115,
            },
        ),
    ):  # fmt: skip
        start = time.perf_counter()
        image, result = ours(scan, prior, True, **settings)
        seconds = time.perf_counter() - start
        table.add_row(name, "{:.2f} / {:.4f}".format(*scan.score(image)[:2]), str(result.evaluations), f"{seconds:.1f}")
    console.print(table)


def profile(data: Path, prior: Prior, repeats: int) -> None:
    """Where the time of a slice goes."""
    kspace, masks = brain(data)
    scan = Scan(CASES[0], kspace, masks[CASES[0]])
    ours(scan, prior, True)
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(repeats):
        ours(scan, prior, True)
    profiler.disable()
    stages = {
        "espirit_maps": "coil maps of the calibration",
        "noise_level": "noise of the data",
        "unexplained_fraction": "what the maps leave",
        "cg_sense": "first estimate",
        "denoise": "prior",
        "sense_proximal": "data consistency",
        "low_rank_maps": "coil maps of the Hankel low rank",
        "reconstruct": "reconstruct() in all, these included",
    }
    # The prior's own denoise counts, not the wrapper that counts evaluations.
    entries = {
        name: values
        for (file, _, name), values in pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
        if name in stages and "typicality" not in file and not (name == "denoise" and file.endswith("reconstruct.py"))
    }
    table = Table(
        title=f"svd_wkgm, {scan.name}, 256 x 256 x 4: a slice, mean of {repeats}, {torch.get_num_threads()} threads"
    )
    for heading in ("stage", "function", "calls", "s"):
        table.add_column(heading)
    for name, text in stages.items():
        if name not in entries:
            continue
        calls, seconds = entries[name][1], entries[name][3]
        table.add_row(text, name, f"{calls / repeats:g}", f"{seconds / repeats:.2f}")
    console.print(table)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = ("quality", "single", "robustness", "uncertainty", "published", "profile")
    parser.add_argument("table", choices=tables)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the evaluation data")
    parser.add_argument("--prior", type=Path, default=shipped_checkpoint("wkgm"), help="weights")
    parser.add_argument("--pictures", type=Path, help="folder for PNGs (quality)")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls")
    parser.add_argument("--samples", type=int, default=8, help="posterior samples (uncertainty)")
    parser.add_argument("--steps", type=int, default=1000, help="predictor-corrector steps (published)")
    parser.add_argument("--lambdas", type=float, nargs="+", default=[3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    prior, card = load_prior(arguments.prior)
    console.print(f"{card.name}: {card.training_data}, {card.steps} steps, {card.date}")
    if arguments.table == "quality":
        quality(arguments.data, prior, arguments.pictures, arguments.repeats)
    elif arguments.table == "single":
        single(arguments.data, prior, tuple(arguments.lambdas))
    elif arguments.table == "robustness":
        robustness(arguments.data, prior)
    elif arguments.table == "uncertainty":
        uncertainty(arguments.data, prior, arguments.samples)
    elif arguments.table == "published":
        published(arguments.data, prior, arguments.steps)
    else:
        profile(arguments.data, prior, arguments.repeats)


if __name__ == "__main__":
    main()
