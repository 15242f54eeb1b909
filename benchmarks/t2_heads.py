"""The published single-coil test of this line of work: T2 heads, complex, retrospectively undersampled.

python -m benchmarks.t2_heads baselines    # zero filling and positivity: the loader and the measure, before any prior
python -m benchmarks.t2_heads systems --methods sigpy hggdp wkgm=wkgm_contrasts --masks radial_020
python -m benchmarks.t2_heads systems      # every system, published and modern, the last iterate; weights of --weights
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sigpy.mri
import torch
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_laplace
from skimage.metrics import structural_similarity
from torch import Tensor

from pipelines.evaluation.metrics import psnr
from priors.learning.checkpoints import shipped_checkpoint, weights_file
from priors.prior import Prior
from priors.reconstruct import reconstruct
from priors.registry import METHODS, generative_method, load_prior, with_variant
from priors.settings import ReconstructionSettings
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.scale import image_scale

MASKS = ("radial_030", "radial_025", "radial_020", "radial_015", "radial_010", "random_015", "cart_085")
POSITIVITY_ROUNDS = 100
LAMBDAS = (1e-3, 3e-3, 5e-3, 1e-2)
TUNED = "sigpy"  # the name of SigPy's L1-wavelet, tuned on the truth
TRAINED_ON_THEM = ("wkgm", "svd_wkgm", "hkgm")  # the included weights have seen 18 of the images
console = Console(width=150)
log = logging.getLogger("genrecon")

# Means over all 31 published images (22 of them are here): zero-filled complex, zero-filled magnitude, and magnitude
# made positive again and again; PSNR, SSIM, HFEN.
REFERENCE = {
    "radial_030": ((29.75, 0.814, 1.55), (29.89, 0.821, 1.55), (33.06, 0.894, 0.85)),
    "radial_025": ((28.81, 0.783, 1.85), (28.91, 0.790, 1.85), (32.05, 0.873, 1.08)),
    "radial_020": ((27.32, 0.728, 2.34), (27.38, 0.735, 2.35), (30.42, 0.833, 1.49)),
    "radial_015": ((25.69, 0.658, 2.90), (25.70, 0.663, 2.91), (28.57, 0.775, 2.01)),
    "radial_010": ((24.02, 0.577, 3.43), (24.01, 0.579, 3.43), (26.70, 0.700, 2.61)),
    "random_015": ((23.70, 0.569, 3.36), (23.71, 0.574, 3.36), (26.75, 0.699, 2.61)),
    "cart_085": ((24.31, 0.633, 3.19), (24.33, 0.638, 3.18), (26.82, 0.746, 2.65)),
}


@dataclass(frozen=True)
class Scores:
    """PSNR (dB), SSIM and HFEN of one image, as this line of work gives them."""

    psnr: float
    ssim: float
    hfen: float


def score(image: Tensor, reference: Tensor) -> Scores:
    """Scores of the magnitude of an image (y, x) against that of a reference of maximum 1.

    Notes
    -----
    SSIM with scikit-image's defaults; HFEN is the norm, not relative, of the difference after a Laplacian of Gaussian
    (15 x 15, sigma 1.5 pixels, zero beyond the border).
    """
    found, true = image.abs().numpy().astype(np.float64), reference.abs().numpy().astype(np.float64)
    edges = gaussian_laplace(found - true, 1.5, truncate=7 / 1.5, mode="constant")
    ssim = structural_similarity(true, found, data_range=1.0)
    return Scores(psnr(found, true), float(ssim), float(np.linalg.norm(edges)))


def load_images(data: Path) -> Tensor:
    """The test images, complex64 (slice, y, x), each of maximum 1."""
    images = torch.from_numpy(np.load(data / "t2_brain_slices.npy"))
    return images / images.abs().amax((1, 2), keepdim=True)


def load_masks(data: Path) -> dict[str, Tensor]:
    """Masks (y, x) by name. Raises ValueError for one that does not hold the centre of k-space."""
    masks = {name: torch.from_numpy(np.load(data / "masks.npz")[name]) for name in MASKS}
    for name, mask in masks.items():
        if not mask[mask.shape[0] // 2, mask.shape[1] // 2]:
            raise ValueError(f"mask {name} does not hold the centre of k-space: is it stored with it in the corner?")
    return masks


def zero_filled(image: Tensor, mask: Tensor) -> Tensor:
    """Image of the measured samples alone."""
    return ifft2c(fft2c(image) * mask)


def positivity(image: Tensor, mask: Tensor) -> Tensor:
    """Magnitude image of which only is known that it is real and not negative: |data consistency|, repeated."""
    measured = fft2c(image) * mask
    found = ifft2c(measured).abs()
    for _ in range(POSITIVITY_ROUNDS):
        found = ifft2c(torch.where(mask, measured, fft2c(found.to(measured.dtype)))).abs()
    return found


def baselines(data: Path) -> None:
    """Scores without a prior."""
    images = load_images(data)
    rows: list[tuple[str, Callable[[Tensor, Tensor], Tensor], bool]] = [
        ("zero-filled, complex", zero_filled, False),
        ("zero-filled, magnitude", zero_filled, True),
        (f"magnitude, {POSITIVITY_ROUNDS} x |data consistency|", positivity, True),
    ]
    table = Table(
        title=f"{len(images)} T2 heads without a prior: mean PSNR / SSIM / HFEN (means of all 31 in brackets)"
    )
    for heading in ("mask", "sampled", *(name for name, _, _ in rows)):
        table.add_column(heading)
    for name, mask in load_masks(data).items():
        cells = []
        for (_, method, magnitude), known in zip(rows, REFERENCE[name], strict=True):
            truth = images.abs().to(images.dtype) if magnitude else images
            scores = [score(method(image, mask), image) for image in truth]
            mean = np.mean([(one.psnr, one.ssim, one.hfen) for one in scores], axis=0)
            cells.append("{:.2f} / {:.3f} / {:.2f}".format(*mean) + "  ({:.2f} / {:.3f} / {:.2f})".format(*known))
        table.add_row(name, f"{mask.float().mean():.3f}", *cells)
    console.print(table)


def tuned_l1_wavelet(images: Tensor, mask: Tensor) -> tuple[str, list[Scores]]:
    """SigPy's L1-wavelet with the regularisation that is best for a mask by the truth, and its scores."""
    found = {}
    for value in LAMBDAS:
        scores = []
        for image in images:
            measured = (fft2c(image) * mask)[None].numpy()
            app = sigpy.mri.app.L1WaveletRecon(
                measured, np.ones_like(measured), value, weights=mask.numpy().astype(np.float32), max_iter=200,
                show_pbar=False,
            )  # fmt: skip
            scores.append(score(torch.from_numpy(np.asarray(app.run())), image))
        found[value] = scores
    best = max(found, key=lambda value: np.mean([one.psnr for one in found[value]]))
    return f"SigPy L1-wavelet, lambda {best:g} (tuned on the truth)", found[best]


def names_of_systems() -> list[str]:
    """SigPy's L1-wavelet, methods and variants; not those whose weights have seen the test images."""
    names = [name for name in METHODS if name not in TRAINED_ON_THEM]
    names += [with_variant(name, variant) for name in names for variant in generative_method(name).variants]
    return [TUNED, *sorted(names)]


def reconstructed(name: str, prior: Prior, image: Tensor, mask: Tensor) -> tuple[Tensor, float]:
    """Image by a system, one complex coil, as its method is set; and the seconds it took."""
    measured = (fft2c(image) * mask)[None, None]
    level = image_scale(measured, mask)
    ones = torch.ones(1, 1, 1, *mask.shape, dtype=torch.complex64)
    settings = ReconstructionSettings(**generative_method(name).settings)
    began = time.perf_counter()
    result = reconstruct(measured / level[:, None, None, None], mask, ones, prior, settings)
    return ifft2c(result.kspace[0, 0, 0]) * level[0], time.perf_counter() - began


def systems(data: Path, names: list[str], masks: list[str], count: int, out: Path, weights: Path) -> None:
    """Scores of every system that has weights in a folder; as a table and in a JSON file.

    Parameters
    ----------
    names : of `names_of_systems`, or NAME=WEIGHTS
    count : of the images
    """
    images = load_images(data)[:count]
    results: dict[str, dict[str, list[float]]] = {}
    for mask_name in masks:
        mask = load_masks(data)[mask_name]
        table = Table(title=f"{len(images)} T2 heads, {mask_name}: the last iterate, mean over the images")
        for heading in ("system", "PSNR (dB)", "SSIM", "HFEN", "standard deviation (dB)", "s an image"):
            table.add_column(heading)

        def add(
            name: str, scores: list[Scores], seconds: float, table: Table = table, mask_name: str = mask_name
        ) -> None:
            psnr, ssim, hfen = np.mean([(one.psnr, one.ssim, one.hfen) for one in scores], axis=0)
            spread = np.std([one.psnr for one in scores])
            table.add_row(name, f"{psnr:.2f}", f"{ssim:.3f}", f"{hfen:.2f}", f"{spread:.2f}", f"{seconds:.1f}")
            results.setdefault(mask_name, {})[name] = [float(psnr), float(ssim), float(hfen), seconds]
            out.write_text(json.dumps(results, indent=2))
            log.info("%s, %s: %.2f dB, SSIM %.3f, %.1f s an image", mask_name, name, psnr, ssim, seconds)

        add("zero-filled", [score(zero_filled(image, mask), image) for image in images], 0.0)
        for name in names:
            if name == TUNED:
                add(*tuned_l1_wavelet(images, mask), 0.0)
                continue
            method, _, given = name.partition("=")
            path = weights_file(given) if given else weights / f"{generative_method(method).weights}.safetensors"
            if not path.exists():
                table.add_row(name, *["not measured"] * 3, f"no {path.name}", "")
                continue
            prior, _ = load_prior(path, method)
            found = [reconstructed(method, prior, image, mask) for image in images]
            scores = [score(image, truth) for (image, _), truth in zip(found, images, strict=True)]
            add(name, scores, float(np.median([seconds for _, seconds in found])))
        console.print(table)


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("baselines", "systems"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the evaluation data")
    parser.add_argument("--methods", nargs="+", default=[], help="sigpy, NAME, NAME:VARIANT, NAME=WEIGHTS; all if none")
    parser.add_argument("--weights", type=Path, default=shipped_checkpoint("").parent, help="folder of the weights")
    parser.add_argument("--masks", nargs="+", choices=MASKS, default=["radial_020", "random_015", "cart_085"])
    parser.add_argument("--images", type=int, default=22, help="how many of the images")
    parser.add_argument("--out", type=Path, default=Path("t2_heads.json"), help="file of the scores")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.table == "baselines":
        baselines(arguments.data)
    else:
        names = arguments.methods or names_of_systems()
        systems(arguments.data, names, arguments.masks, arguments.images, arguments.out, arguments.weights)


if __name__ == "__main__":
    main()
