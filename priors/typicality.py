"""Whether an image is like those a prior was trained on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priors.signal.fourier import fft2c, ifft2c, low_resolution_phase, radial_frequency
from priors.wkgm import WeightedKspacePrior

SIGMA = 0.03
SIGNAL_LEVEL = 0.6  # of the 99.9th percentile of an image, in the units of the priors, whose images have maximum 1
BANDS = 40  # rings of k-space


def signal_level(images: Tensor) -> Tensor:
    """99.9th percentile of the magnitude of images (batch, y, x), shape (batch,)."""
    magnitude = images.abs().flatten(1)
    return magnitude.kthvalue(max(1, round(0.999 * magnitude.shape[1])), dim=1).values


def denoising_gain(prior: WeightedKspacePrior, images: Tensor, seed: int = 0) -> Tensor:
    r"""Squared error of the prior's denoiser against that of the best linear filter for an image's own spectrum.

    Parameters
    ----------
    prior : WeightedKspacePrior
        Prior.
    images : Tensor
        Complex images of any scale, shape (batch, y, x).
    seed : int
        Seed of the noise that is added.

    Returns
    -------
    Tensor
        float32, shape (batch,): far below those of the training images for images of less structure (geometric
        phantoms), far above for images without any (noise, aliasing); 1 for an empty image.

    Notes
    -----
    :math:`|D(k_w + \sigma n, \sigma) - k_w|^2 / \sum_q \tfrac{P_q \sigma^2}{P_q + \sigma^2}` with the mean power P of
    the ring of weighted k-space that a sample q lies in. One evaluation of the prior.
    """
    level = signal_level(images)
    scale = SIGNAL_LEVEL / torch.where(level > 0, level, 1)
    kspace = fft2c(images * scale[:, None, None])
    if prior.phase_width:
        kspace = fft2c(ifft2c(kspace) * low_resolution_phase(kspace, prior.phase_width).conj())
    weighted = prior.weighting.weight(kspace)
    generator = torch.Generator().manual_seed(seed)
    noise = math.sqrt(2) * torch.randn(weighted.shape, dtype=torch.complex64, generator=generator).to(images.device)
    estimate = prior.denoise(weighted + SIGMA * noise, SIGMA)
    error = (estimate - weighted).abs().square().sum((-2, -1)) / 2
    power = weighted.abs().square().flatten(1) / 2
    ring = (BANDS * radial_frequency(images.shape[-2], images.shape[-1], images.device)).long().flatten()
    count = torch.bincount(ring, minlength=int(ring.max()) + 1)
    mean = torch.zeros(len(images), len(count), device=images.device).index_add_(1, ring, power) / count.clamp_min(1)
    linear = (count * mean * SIGMA**2 / (mean + SIGMA**2)).sum(1)
    return torch.where(linear > 0, error / linear.clamp_min(torch.finfo(linear.dtype).tiny), 1)


def typical_gains(prior: WeightedKspacePrior, clean: Tensor, noisy: Tensor) -> tuple[float, float]:
    """Range of `denoising_gain` of images like the training images, for the prior's card.

    Parameters
    ----------
    prior : WeightedKspacePrior
        Prior.
    clean : Tensor
        Complex images that it learnt from, shape (slice, y, x).
    noisy : Tensor
        The same images as they were measured.

    Returns
    -------
    (float, float)
        Three fifths of the least gain, as other contrasts and smoother reconstructions have, and twice the largest.
    """
    return round(0.6 * float(denoising_gain(prior, clean).min()), 4), round(
        2 * float(denoising_gain(prior, noisy).max()), 4
    )
