"""Whether an image is like those a prior was trained on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priors.prior import Prior
from priors.signal.fourier import fft2c, ifft2c, low_resolution_phase, radial_frequency
from priors.signal.scale import SIGNAL_LEVEL

SIGMA = 0.03  # noise level of the test
FAINT = 0.1  # of the signal level: slices below it are not judged to be like or unlike the training images
BANDS = 40  # rings of k-space
MOST_TYPICAL = 128  # training images that the typical gain is taken from


def signal_level(images: Tensor) -> Tensor:
    """99.9th percentile of the magnitude of images (batch, y, x), shape (batch,)."""
    magnitude = images.abs().flatten(1)
    return magnitude.kthvalue(max(1, round(0.999 * magnitude.shape[1])), dim=1).values


def denoising_gain(prior: Prior, images: Tensor, seed: int = 0) -> Tensor:
    r"""Squared error of the prior's denoiser against that of the best linear filter for an image's own spectrum.

    Parameters
    ----------
    prior : Prior
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

    Raises
    ------
    ValueError
        If the domain of the prior has no spectrum.

    Notes
    -----
    :math:`|D(m + \sigma n, \sigma) - m|^2 / \sum_q \tfrac{P_q \sigma^2}{P_q + \sigma^2}` with the mean power P of the
    ring of the array's spectrum that a sample q lies in (for weighted k-space, of itself). One evaluation of the prior.
    """
    level = signal_level(images)
    scale = SIGNAL_LEVEL / torch.where(level > 0, level, 1)
    kspace = fft2c(images * scale[:, None, None])
    if prior.phase_width:
        kspace = fft2c(ifft2c(kspace) * low_resolution_phase(kspace, prior.phase_width).conj())
    m = prior.domain.encode(ifft2c(kspace)[:, None])
    spectrum = prior.domain.spectrum(m)
    if spectrum is None:
        raise ValueError(f"typicality: {type(prior.domain).__name__} has no spectrum to compare with")
    generator = torch.Generator().manual_seed(seed)
    noise = math.sqrt(2) * torch.randn(m.shape, dtype=torch.complex64, generator=generator).to(images.device)
    estimate = prior.denoise(m + SIGMA * noise, SIGMA)
    error = (estimate - m).abs().square().flatten(1).sum(1) / 2
    power = spectrum.abs().square().flatten(1) / 2
    ring = (BANDS * radial_frequency(images.shape[-2], images.shape[-1], images.device)).long().flatten()
    count = torch.bincount(ring, minlength=int(ring.max()) + 1)
    mean = torch.zeros(len(images), len(count), device=images.device).index_add_(1, ring, power) / count.clamp_min(1)
    linear = (count * mean * SIGMA**2 / (mean + SIGMA**2)).sum(1)
    return torch.where(linear > 0, error / linear.clamp_min(torch.finfo(linear.dtype).tiny), 1)


def typical_gains(prior: Prior, clean: Tensor, noisy: Tensor) -> tuple[float, float]:
    """Range of `denoising_gain` of images like the training images, for the prior's card.

    Parameters
    ----------
    prior : Prior
        Prior.
    clean : Tensor
        Complex images that it learnt from, shape (slice, y, x).
    noisy : Tensor
        The same images as they were measured.

    Returns
    -------
    (float, float)
        Three fifths of the least gain, as other contrasts and smoother reconstructions have, and twice the largest, of
        at most 128 of the images.
    """
    chosen = torch.linspace(0, len(clean) - 1, min(len(clean), MOST_TYPICAL), device=clean.device).round().long()
    least, largest = denoising_gain(prior, clean[chosen]).min(), denoising_gain(prior, noisy[chosen]).max()
    return round(0.6 * float(least), 4), round(2 * float(largest), 4)


def unlike_training(prior: Prior, images: Tensor, weighted: Tensor) -> list[list[str]]:
    """Warnings for images whose denoising gain is not like that of the training images.

    Parameters
    ----------
    prior : Prior
        With a `typical_gain`.
    images : Tensor
        Complex images as they are, shape (batch, y, x), in which noise and artefacts are looked for.
    weighted : Tensor
        The same with measured samples weighted by their noise, which would hide that there is little structure.

    Returns
    -------
    list of list of str
        Warnings of each image.
    """
    assert prior.typical_gain is not None
    lowest, highest = prior.typical_gain
    if prior.domain.spectrum(images[:1]) is None:
        return [[] for _ in images]  # there is nothing to compare the denoiser with
    text = "the data are unlike those that the prior was trained on"
    warnings: list[list[str]] = [[] for _ in images]
    levels = signal_level(images).tolist()
    gains = denoising_gain(prior, images).tolist(), denoising_gain(prior, weighted).tolist()
    for found, level, as_it_is, of_structure in zip(warnings, levels, *gains, strict=True):
        if level < FAINT * SIGNAL_LEVEL:
            continue
        if of_structure < lowest:
            found.append(f"{text} (less structure, as a phantom)")
        elif as_it_is > highest:
            found.append(f"{text} (more noise or artefacts)")
    return warnings
