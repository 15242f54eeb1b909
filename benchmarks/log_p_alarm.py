"""log p of a prior as an alarm for data unlike its training data, compared with today's warning.

python -m benchmarks.log_p_alarm --weights glow.safetensors pixelcnn.safetensors vae.safetensors ebm.safetensors
python -m benchmarks.log_p_alarm --weights glow.safetensors --warning image.safetensors

For every set of other images: the area under the curve (1: always told from test brains, 0.5: never) of three scores:
low log p, as an alarm is usually set; its distance from that of the training's held-out heads, for simple images may
have a high log p; and the denoising gain of today's warning, with the fraction of images that the warning is given for.
The images are whole: no reconstruction is part of it. Test brains are the T2 heads that no training set holds; the
included weights of wkgm have seen 18 of these 22, so that their warning is looked at on the other four.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from skimage.data import shepp_logan_phantom
from skimage.transform import resize, rotate
from torch import Tensor

from benchmarks.train_t2_heads import HOLD_OUT, heads
from priors.learning.checkpoints import shipped_checkpoint
from priors.prior import Prior
from priors.registry import load_prior
from priors.signal.fourier import fft2c, ifft2c
from priors.typicality import denoising_gain, unlike_training

SIZE = 256
UNSEEN = 4  # of the test brains, the last ones, by the included weights of wkgm
NOISE = 0.01  # in each part, of the made-up images: about that of the measured ones
INCLUDED = "wkgm"
console = Console(width=150)


@dataclass(frozen=True)
class Scores:
    """What a prior says of some images.

    Parameters
    ----------
    log_p : log density of each real value, in bits, of each image
    gain : `denoising_gain` of each image; none for a prior without a typical one
    warned : whether each image would carry the warning; none as well
    """

    log_p: np.ndarray | None
    gain: np.ndarray | None
    warned: np.ndarray | None


def area(inside: np.ndarray, outside: np.ndarray) -> float:
    """Area under the curve of a score that is to be higher outside: how often it is, ties counting half."""
    difference = outside[:, None] - inside[None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def log_p(prior: Prior, images: Tensor) -> np.ndarray | None:
    """Log density of images (batch, y, x) a real value, in bits up to a constant; None where the prior has none."""
    found = []
    for image in images:
        with torch.no_grad():
            one = prior.log_prior(prior.domain.encode(image[None, None]))
        if one is None:
            return None
        found.append(float(one) / (2 * image.numel() * math.log(2)))
    return np.array(found)


def scores(prior: Prior, images: Tensor) -> Scores:
    """What a prior says of images (batch, y, x), of maximum 1."""
    density = log_p(prior, images)
    if prior.typical_gain is None:
        return Scores(density, None, None)
    gain = denoising_gain(prior, images).numpy()
    return Scores(density, gain, np.array([bool(texts) for texts in unlike_training(prior, images, images)]))


def atypical(gain: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Distance of denoising gains from the middle of the typical ones, on a logarithmic scale."""
    middle = math.sqrt(limits[0] * limits[1])
    return np.abs(np.log(gain / middle))


def image_sets(data: Path, count: int) -> dict[str, Tensor]:
    """Sets of complex images (image, y, x) of maximum 1 by name; the test brains first.

    Made-up images and magnitudes get noise, and the phase of the test brains, so that only magnitudes tell them apart.
    """
    brains = torch.from_numpy(np.load(data / "t2_brain_slices.npy"))[-count:]
    generator = torch.Generator().manual_seed(0)
    sets = {
        "test brains": brains,
        "phantom": _with_phase_of(brains, _phantoms(len(brains), brains.shape[-1]), generator),
        "noise": _noise(brains.shape, generator),
        "knee": _knees(data, len(brains), brains.shape[-1]),
        "T1 brains": _with_phase_of(brains, _other_contrast(data, len(brains), brains.shape[-1]), generator),
    }
    return {name: images / images.abs().amax((1, 2), keepdim=True) for name, images in sets.items()}


def _with_phase_of(images: Tensor, magnitudes: Tensor, generator: torch.Generator) -> Tensor:
    magnitudes = magnitudes / magnitudes.amax((1, 2), keepdim=True)
    return torch.polar(magnitudes, images.angle()) + NOISE * _noise(images.shape, generator)


def _noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return math.sqrt(2) * torch.randn(shape, dtype=torch.complex64, generator=generator)


def _phantoms(count: int, size: int) -> Tensor:
    """Shepp-Logan phantoms, turned and of several sizes."""
    whole = resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)
    found = []
    for index in range(count):
        turned = rotate(whole, 360 * index / count)
        small = resize(turned, [round(size * (1 - 0.3 * index / count))] * 2, anti_aliasing=True)
        before = (size - len(small)) // 2
        found.append(np.pad(small, (before, size - len(small) - before)))
    return torch.from_numpy(np.stack(found).astype(np.float32))


def _knees(data: Path, count: int, size: int) -> Tensor:
    """Parts of the image of a knee, at several places, some mirrored."""
    kspace = torch.from_numpy(np.load(data / "dev_knee_1ch.npy"))
    image = ifft2c(kspace)[0]
    if min(image.shape) < size:
        raise ValueError(f"the knee of {tuple(image.shape)} pixels is smaller than {size} x {size}")
    rows = np.linspace(0, image.shape[0] - size, count).astype(int)
    columns = np.linspace(0.3, 0.7, count) * (image.shape[1] - size)
    parts = [image[y : y + size, int(x) : int(x) + size] for y, x in zip(rows, columns, strict=True)]
    return torch.stack([part.flip(-1) if index % 2 else part for index, part in enumerate(parts)])


def _other_contrast(data: Path, count: int, size: int) -> Tensor:
    """Magnitudes of T1-weighted brains."""
    sources = (data / "mr_magnitude.txt").read_text().splitlines()
    chosen = [index for index, text in enumerate(sources) if "T1W" in text]
    chosen = [chosen[index] for index in np.linspace(0, len(chosen) - 1, count).astype(int)]
    images = np.load(data / "mr_magnitude.npy", mmap_mode="r")[chosen].astype(np.float32)
    kspace = fft2c(torch.from_numpy(images).to(torch.complex64))
    start = (images.shape[-1] - size) // 2
    return ifft2c(kspace[:, start : start + size, start : start + size]).abs()


def rows_of(
    found: dict[str, Scores], held_out: np.ndarray | None, limits: tuple[float, float] | None
) -> list[list[str]]:
    """Cells of a prior's row for every set of other images: areas under the curve, and the fraction warned of.

    Parameters
    ----------
    found : scores of the sets by name, test brains first
    held_out : log densities of the training's held-out images, whose mean is typical
    limits : typical range of the gain
    """
    names = list(found)
    brains = found[names[0]]
    cells = []
    for name in names[1:]:
        other = found[name]
        low = distance = warning = "-"
        if brains.log_p is not None and other.log_p is not None:
            low = f"{area(-brains.log_p, -other.log_p):.3f}"
            if held_out is not None:
                middle = held_out.mean()
                distance = f"{area(np.abs(brains.log_p - middle), np.abs(other.log_p - middle)):.3f}"
        if limits is not None and brains.gain is not None and other.gain is not None and other.warned is not None:
            warning = f"{area(atypical(brains.gain, limits), atypical(other.gain, limits)):.3f}"
            warning += f" ({other.warned.mean():.0%})"
        cells.append([low, distance, warning])
    return cells


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", type=Path, default=[], help="weights of priors that know log p")
    parser.add_argument(
        "--warning", type=Path, default=None, help="weights of today's warning; the included wkgm if none"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the evaluation data")
    parser.add_argument("--images", type=int, default=22, help="images of each set, at most")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    held_out = torch.from_numpy(heads(arguments.data)[-HOLD_OUT:])
    held_out = held_out / held_out.abs().amax((1, 2), keepdim=True)
    included = arguments.warning is None
    table = Table(
        title="other images told from test brains, area under the curve: low log p | distance from the typical log p "
        "| denoising gain (images warned of)"
    )
    for index, path in enumerate([arguments.warning or shipped_checkpoint(INCLUDED), *arguments.weights]):
        try:
            prior, card = load_prior(path)
        except ValueError as error:
            parser.error(str(error))
        count = min(arguments.images, UNSEEN) if index == 0 and included else arguments.images
        sets = image_sets(arguments.data, count)
        found = {name: scores(prior, images) for name, images in sets.items()}
        if not table.columns:
            for heading in ("weights", "test brains", *list(sets)[1:]):
                table.add_column(heading)
        typical = log_p(prior, held_out)
        brains = found["test brains"]
        warned = "" if brains.warned is None else f", {brains.warned.mean():.0%} warned of"
        cells = rows_of(found, typical, prior.typical_gain)
        table.add_row(f"{card.kind} ({card.name})", f"{count}{warned}", *(" | ".join(cell) for cell in cells))
    console.print(table)


if __name__ == "__main__":
    main()
