"""Training images without their noise, learnt from nothing but the noisy images themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from priors.learning.augmentation import Augmentation
from priors.learning.networks import Architecture, EdmDenoiser
from priors.learning.noise_schedule import LogNormalSigma
from priors.learning.training import ImageCrops, TrainingSettings, denoising_trainer
from priors.signal.fourier import fft2c, ifft2c, low_resolution_phase
from priors.signal.weighting import Weighting

PHASE_WIDTH = 24
NOISE_LEVEL = 0.012  # all images are brought to this one for the network
SIGMA_DATA = 0.15  # of images of maximum 1
PAIRS = 2  # of realisations of the noise and their negatives: what is linear in the noise cancels
OBJECT = 0.15  # of the brightest pixel of a magnitude image
ALL_INSIDE = 1.99  # of 2: the approximation of a mask of ones
ROUNDING = 1e-6  # of the brightest pixel
MEDIAN_OF_NORMAL = 0.6745  # of the modulus, in standard deviations


def noise_levels(images: Tensor) -> Tensor:
    """Standard deviation of the noise of complex images, in each of the real and imaginary parts.

    Parameters
    ----------
    images : Tensor
        Complex images of white noise, shape (slice, y, x); magnitudes have no imaginary part.

    Returns
    -------
    Tensor
        float32, shape (slice,), in the units of the images.

    Notes
    -----
    From the median modulus of the finest wavelet coefficients (Donoho and Johnstone, Biometrika 1994) of the imaginary
    part behind the low-resolution phase, which holds little else; of magnitudes those inside the object, as what is
    outside of it is often set to zero.
    """
    from skimage.restoration import estimate_sigma

    def level(image: Tensor) -> float:
        if not bool(image.imag.any()):
            return _level_of_magnitude(image.real.cpu().numpy())
        phase = low_resolution_phase(fft2c(image), PHASE_WIDTH)
        plane = np.ascontiguousarray((image * phase.conj()).imag.cpu().numpy())
        return float(estimate_sigma(plane)) if plane.any() else 0.0

    return torch.tensor([level(one) for one in images], dtype=torch.float32)


def _level_of_magnitude(image: np.ndarray) -> float:
    """Standard deviation of the noise inside the object of a magnitude image (y, x)."""
    import pywt

    diagonal = pywt.dwt2(image, "db2")[1][2]
    inside = pywt.dwt2((image > OBJECT * image.max()).astype(np.float32), "db2")[0] > ALL_INSIDE
    level = float(np.median(np.abs(diagonal[inside])) / MEDIAN_OF_NORMAL) if inside.any() else 0.0
    return level if level > ROUNDING * image.max() else 0.0


def self_denoised(
    images: Tensor,
    *,
    steps: int = 1500,
    seed: int = 0,
    device: torch.device | str = "cpu",
    bf16: bool = True,
    save_every_s: float = 120.0,
    architecture: Architecture | None = None,
    state_path: Path | None = None,
    progress: Callable[[int, float], None] | None = None,
    cleaned: Callable[[int], None] | None = None,
) -> Tensor:
    r"""Images less their white noise, by a network that is trained on these noisy images alone.

    Parameters
    ----------
    images : Tensor
        Complex images, shape (slice, y, x).
    steps : int
        Optimiser steps of the network.
    seed : int
        Seed of the training and of the added noise.
    device : torch.device or str
        Where to train.
    bf16 : bool
        Convolutions in bfloat16.
    save_every_s : float
        Seconds between saved states.
    architecture : Architecture, optional
        Network, for its size; the standard one if not given.
    state_path : Path, optional
        File that keeps the state of the training; taken up again where it exists.
    progress : callable, optional
        Called after every ten steps with the number of steps done and their mean loss.
    cleaned : callable, optional
        Called after every image with the number of images that have lost their noise.

    Returns
    -------
    Tensor
        Complex images of the same shape, on the CPU.

    Raises
    ------
    ValueError
        If the images are not usable or one of them has no noise that could be measured.

    Notes
    -----
    Noisier2Noise (Moran et al., CVPR 2020): a network that finds an image x of noise level s in :math:`y = x + s n`
    knows :math:`E[x | y]`, and as the noise that is in the image and the one that is added are alike,
    :math:`E[x_0 | y] = 2 E[x | y] - y`, averaged over realisations of n. A prior that is learnt from noisy images knows
    nothing below their noise level; from these it does.
    """
    levels = noise_levels(images)
    if not bool((levels > 0).all()):
        raise ValueError(
            "training: an image has no noise that could be measured; learn from them as they are (--no-denoise)"
        )
    gain = (NOISE_LEVEL / levels)[:, None, None]
    alike = images.cpu() * gain
    network = replace(
        architecture or Architecture(), copies=1, parameterisation="fourier_conjugate", sigma_data=SIGMA_DATA
    )
    torch.manual_seed(seed)
    model = EdmDenoiser(network).to(device)
    settings = TrainingSettings(
        steps=steps,
        bf16=bf16,
        save_every_s=save_every_s,
        learning_rate=7e-4,
        ema=0.995,
        phase_width=PHASE_WIDTH,
        sigma=LogNormalSigma(math.log(NOISE_LEVEL), 0.3, 2.0),
        augmentation=Augmentation(
            affine=0.0, scale=(1.0, 1.0), smooth_phase=0.0, removed_phase=1.0, shading=0.0, contrast=0.0, resolution=0.0
        ),
        seed=seed,
    )
    trainer = denoising_trainer(model, ImageCrops(alike, Weighting(slope=1.0, p=0.0), settings), settings, state_path)
    trainer.run(progress)
    network_of_average = trainer.average.eval()
    generator = torch.Generator().manual_seed(seed)
    found = []
    for one in alike:
        found.append(_denoised(network_of_average, one, generator, device))
        if cleaned is not None:
            cleaned(len(found))
    return torch.stack(found) / gain


@torch.no_grad()
def _denoised(model: EdmDenoiser, image: Tensor, generator: torch.Generator, device: torch.device | str) -> Tensor:
    """One image (y, x) of the common noise level."""
    phase = low_resolution_phase(fft2c(image), PHASE_WIDTH)
    shape = (PAIRS, *image.shape)
    noise = NOISE_LEVEL * math.sqrt(2) * torch.randn(shape, dtype=image.dtype, generator=generator)
    noisier = image * phase.conj() + torch.cat((noise, -noise))
    levels = torch.full((2 * PAIRS,), NOISE_LEVEL, device=device)
    estimates = ifft2c(model(fft2c(noisier.to(device))[:, None], levels)[:, 0]).cpu()
    # An estimate holds half of the noise: less this very realisation, hardly any of it is left.
    return phase * (2 * estimates - noisier).mean(0)
