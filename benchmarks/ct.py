"""The same prior learnt from photographs, MR images or CT images, on sparse-view CT: the comparison of REDAEP.

genrecon train edaep:published --data photographs.npy -o photographs.safetensors    # complex images (slice, y, x)
genrecon train edaep:published --data heads.npy -o heads.safetensors
python -m benchmarks.ct --weights photographs.safetensors heads.safetensors
python -m benchmarks.ct --weights photographs.safetensors --images ct.npy --size 256

64 views of a parallel beam, the norm's exponent p = 0.8, 1, 1.5 and 2 (Zhang et al., IEEE TRPMS 2021). The data step is
that of any linear operator (`priors.data_steps.linear`), here the projections. Without --images the slices are the CT
image of pydicom and scikit-image's phantom. The last iterate is scored, never the best by the truth.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import torch
from pydicom.data import get_testdata_file
from rich.console import Console
from rich.table import Table
from skimage.data import shepp_logan_phantom
from skimage.metrics import structural_similarity
from skimage.transform import iradon, resize
from torch import Tensor
from torch.nn import functional

from pipelines.evaluation.metrics import psnr
from priors.data_steps.linear import LinearStep
from priors.data_steps.step import DataStep
from priors.prior import Prior
from priors.reconstruct import Loop
from priors.registry import load_prior
from priors.rules.noise import SliceNoise
from priors.rules.rule import check_rule

VIEWS = 64
EXPONENTS = (0.8, 1.0, 1.5, 2.0)
SIGMA = 15 / 255  # noise level that the prior is asked at
PRIOR_WEIGHT = 0.005  # of the prior's image against the projections
ROUNDS = 200  # published: up to 1000
# PSNR [dB] for p of EXPONENTS, of priors learnt from: the seed's table of this comparison, other images and views.
PUBLISHED = {
    "CT": (47.47, 47.44, 47.18, 46.69),
    "photographs (DIV2K)": (47.54, 47.52, 47.24, 46.71),
    "MRI": (46.69, 46.65, 46.41, 45.82),
}
console = Console(width=150)


class ParallelBeam:
    """Projections of images along parallel beams, as scikit-image's `radon(circle=False)`, with their exact adjoint.

    Parameters
    ----------
    size : pixels of an image along y and x
    views : at equal angles over half a turn

    Notes
    -----
    The image is turned by bilinear interpolation and summed along y. scikit-image has no adjoint of it; here it is that
    of torch's automatic differentiation, to rounding.
    """

    def __init__(self, size: int, views: int = VIEWS) -> None:
        self.size = size
        self.bins = math.ceil(math.sqrt(2) * size)
        self.angles = np.arange(views) * 180 / views
        self._before = self.bins // 2 - size // 2
        centre = self.bins // 2
        x, y = torch.meshgrid(*2 * [torch.arange(self.bins, dtype=torch.float64)], indexing="xy")
        grids = []
        for angle in np.deg2rad(self.angles):
            cos, sin = math.cos(angle), math.sin(angle)
            column = cos * x + sin * y - centre * (cos + sin - 1)
            row = -sin * x + cos * y - centre * (cos - sin - 1)
            grids.append(torch.stack((column, row), -1) * (2 / (self.bins - 1)) - 1)
        self._grid = torch.stack(grids).float()

    def forward(self, images: Tensor) -> Tensor:
        """Projections, complex64 (batch, array, view, bin), of images (batch, array, y, x)."""
        planes = torch.view_as_real(images).movedim(-1, 0)
        found = self._project(planes.reshape(-1, *images.shape[-2:])).unflatten(0, planes.shape[:-2])
        return torch.complex(found[0], found[1])

    def adjoint(self, projections: Tensor) -> Tensor:
        """Back projections, complex64 (batch, array, y, x)."""
        planes = torch.view_as_real(projections).movedim(-1, 0)
        flat = planes.reshape(-1, *planes.shape[-2:])
        with torch.inference_mode(False), torch.enable_grad():
            image = torch.zeros(len(flat), self.size, self.size, requires_grad=True)
            (found,) = torch.autograd.grad(self._project(image), image, flat.detach().clone())
        pair = found.unflatten(0, planes.shape[:-2])
        return torch.complex(pair[0], pair[1])

    def _project(self, planes: Tensor) -> Tensor:
        """Projections (plane, view, bin) of real planes (plane, y, x)."""
        after = self.bins - self.size - self._before
        padded = functional.pad(planes, (self._before, after, self._before, after))
        turned = functional.grid_sample(
            padded[None].expand(len(self._grid), -1, -1, -1), self._grid, mode="bilinear", align_corners=True
        )
        return turned.sum(2).movedim(0, 1)


class PositiveStep(DataStep):
    """A data step of real images that are not negative, before and after it."""

    def __init__(self, step: LinearStep) -> None:
        self._step = step

    def begin(self) -> Tensor:
        """First estimate."""
        self.moved = True
        return _positive(self._step.begin())

    def __call__(self, images: Tensor, variance: Tensor) -> Tensor:
        """See `DataStep.__call__`."""
        self.moved = False
        return _positive(self._step(_positive(images), variance))


def _positive(images: Tensor) -> Tensor:
    return images.real.clamp_min(0).to(images.dtype)


def reconstructed(prior: Prior, beam: ParallelBeam, projections: Tensor, exponent: float, rounds: int) -> Tensor:
    """Image (y, x) of projections (view, bin), real, by the rule of REDAEP.

    Raises
    ------
    ValueError
        If the prior does not know the noise level.
    """
    check_rule("momentum", prior)
    # The weight is that of the squared distance to the prior's image: sigma_y^2 / sigma^2 in the data step.
    noise = torch.full((1,), math.sqrt(PRIOR_WEIGHT) * SIGMA)
    data = projections.to(torch.complex64)[None, None]
    step = PositiveStep(LinearStep(beam.forward, beam.adjoint, data, noise, prior.domain))
    loop = Loop(prior, step)
    sigma = prior.sigma_levels.nearest(torch.tensor(SIGMA, dtype=torch.float64))
    if prior.sigma_levels:
        prior.sigma_levels.check(sigma)
    sigmas = sigma.expand(rounds).clone()
    options = {"momentum": 0.0, "draws": 1, "jacobian": True, "exponent": exponent}
    draw = SliceNoise(0, 0, [0], torch.device("cpu"))
    return loop.run("momentum", loop.begin(), sigmas, draw, **options)[0, 0].real


def slices_of(path: Path | None, size: int) -> Tensor:
    """Images (slice, y, x) from 0 to 1: of a file (.npy), or those of the packages that are used anyway."""
    if path is not None:
        images = list(np.abs(np.load(path)).astype(np.float64))
    else:
        ct = pydicom.dcmread(get_testdata_file("CT_small.dcm")).pixel_array.astype(np.float64)
        images = [ct - ct.min(), shepp_logan_phantom()]
    resized = [resize(image / image.max(), (size, size), anti_aliasing=True) for image in images]
    return torch.from_numpy(np.stack(resized).astype(np.float32)).clamp(0, 1)


def filtered_back_projection(projections: Tensor, beam: ParallelBeam) -> Tensor:
    """Image (y, x) by scikit-image's `iradon`."""
    found = iradon(projections.numpy().T.astype(np.float64), beam.angles, output_size=beam.size, circle=False)
    return torch.from_numpy(found.astype(np.float32)).clamp(0, 1)


def score(images: Sequence[Tensor], truth: Tensor) -> str:
    """Mean PSNR [dB] and SSIM of images against the truth (slice, y, x)."""
    values = []
    for image, true in zip(images, truth.numpy(), strict=True):
        found = image.numpy()
        values.append((psnr(found, true), structural_similarity(true, found, data_range=1.0)))
    mean = np.mean(values, axis=0)
    return f"{mean[0]:.2f} / {mean[1]:.4f}"


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", type=Path, default=[], help="priors of images, one a row")
    parser.add_argument("--images", type=Path, default=None, help="test images (.npy: slice, y, x)")
    parser.add_argument("--size", type=int, default=128, help="pixels along y and x")
    parser.add_argument("--views", type=int, default=VIEWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    truth = slices_of(arguments.images, arguments.size)
    beam = ParallelBeam(arguments.size, arguments.views)
    projections = [beam.forward(image.to(torch.complex64)[None, None])[0, 0].real for image in truth]
    names = [f"p = {exponent:g}" for exponent in EXPONENTS]
    table = Table(
        "prior", *names, "s an image", title=f"{len(truth)} slices, {arguments.views} views: PSNR (dB) / SSIM"
    )
    back = score([filtered_back_projection(one, beam) for one in projections], truth)
    table.add_row("none: filtered back projection", back, *[""] * len(EXPONENTS))
    for path in arguments.weights:
        try:
            prior, card = load_prior(path)
            cells, began = [], time.perf_counter()
            for exponent in EXPONENTS:
                found = [reconstructed(prior, beam, one, exponent, arguments.rounds) for one in projections]
                cells.append(score(found, truth))
        except ValueError as error:
            parser.error(str(error))
        seconds = (time.perf_counter() - began) / len(EXPONENTS) / len(truth)
        table.add_row(f"{card.name}: {card.training_data}", *cells, f"{seconds:.0f}")
    if not arguments.weights:
        table.add_row("of --weights", *["not measured"] * len(EXPONENTS), "")
    for name, values in PUBLISHED.items():
        table.add_row(f"published, other images: {name}", *(f"{value:.2f}" for value in values), "")
    console.print(table)


if __name__ == "__main__":
    main()
