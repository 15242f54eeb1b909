"""What a denoiser of weighted k-space is trained with: settings, examples, loss, and a measure of its quality."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from priors.learning.augmentation import Augmentation, augmented_batch
from priors.learning.cards import images_sha256
from priors.learning.networks import Architecture, EdmDenoiser
from priors.learning.noise_schedule import FixedSigmas, LogNormalSigma
from priors.learning.trainer import OptimiserSettings, Trainer
from priors.signal.fourier import fft2c, ifft2c, low_resolution_phase
from priors.signal.weighting import Weighting

MULTIPLIERS = (1, 2, 2, 4)  # of the network of denoisers that are trained with default settings, 1.3 M weights


@dataclass(frozen=True)
class TrainingSettings(OptimiserSettings):
    """Settings of the training of a denoiser.

    Parameters
    ----------
    crop : int
        Width and height of the crops of the weighted image; images that are smaller are used as they are.
    crops_of_each : int
        Crops of each varied image in a batch, at different noise levels: with small crops and more than one, a step
        sees as many pixels for less work on whole images.
    phase_width : int
        Width of the k-space window whose low-resolution phase is taken from the images; 0: none.
    sigma : LogNormalSigma
        Distribution of the noise levels.
    augmentation : Augmentation
        Variation of the images.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    crop: int = 128
    crops_of_each: int = 1
    phase_width: int = 24
    sigma: LogNormalSigma = field(default_factory=lambda: LogNormalSigma(-4.2, 1.2))
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.crop, self.crops_of_each) < 1 or self.phase_width < 0:
            raise ValueError("training: crop and crops_of_each: one or more; phase_width: zero or more")


def small_crops(**settings: Any) -> TrainingSettings:
    """Settings with sixteen crops of 64 x 64, four of each varied image.

    With these and a small network at full resolution, 1,300 steps were worth as much on the T1 brain of the tables as
    8,900 with four crops of 128 x 128 and a network of three times the weights at half the resolution.
    """
    return TrainingSettings(**{"batch": 16, "crop": 64, "crops_of_each": 4, **settings})


def normalised(images: Tensor) -> Tensor:
    """Images divided by their maxima, each by its own.

    Parameters
    ----------
    images : Tensor
        Complex images, shape (slice, y, x).

    Returns
    -------
    Tensor
        complex64, of the same shape and maximum 1.

    Raises
    ------
    ValueError
        If they are not such images, or one is empty or not finite.
    """
    return (images / _peaks(images)).to(torch.complex64)


class Examples(Protocol):
    """Where a training gets its noise-free weighted k-space from.

    Attributes
    ----------
    sha256 : str
        Hash of the data that examples are made of, see `images_sha256`.
    description : dict
        What else the examples depend on, as JSON takes it; a run goes on only with the same.
    """

    sha256: str
    description: dict[str, Any]

    def to(self, device: torch.device) -> None:
        """Move the data to a device."""

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Random examples, complex64, shape (batch, y, x), on the device; `generator` is on the CPU."""


class ImageCrops:
    """Examples that see the image: varied images, their weighted versions cropped (see `augmented_batch`).

    Parameters
    ----------
    images : Tensor
        Complex images, shape (slice, y, x), on any device; for a prior of maximum 1, see `normalised`.
    weighting : Weighting
        Weighting of k-space.
    settings : TrainingSettings
        Of which `augmentation`, `crop`, `crops_of_each` and `phase_width` are looked at.

    Raises
    ------
    ValueError
        If the images are not usable.
    """

    def __init__(self, images: Tensor, weighting: Weighting, settings: TrainingSettings) -> None:
        _peaks(images)
        self.sha256 = images_sha256(images)
        self.description: dict[str, Any] = {"weighting": asdict(weighting)}
        self._images, self._weighting, self._settings = images, weighting, settings

    def to(self, device: torch.device) -> None:
        """Move the images to a device."""
        self._images = self._images.to(device, torch.complex64)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Random examples, complex64, shape (batch, y, x)."""
        settings = self._settings
        return augmented_batch(
            self._images,
            self._weighting,
            settings.augmentation,
            batch,
            settings.crop,
            generator,
            settings.phase_width,
            settings.crops_of_each,
        )


class Denoising:
    """Objective of a denoiser: `denoising_loss` at random noise levels.

    Parameters
    ----------
    examples : Examples
        What to learn from.
    architecture : Architecture
        Network.
    sigma : LogNormalSigma or FixedSigmas
        Distribution of the noise levels.
    """

    def __init__(self, examples: Examples, architecture: Architecture, sigma: LogNormalSigma | FixedSigmas) -> None:
        self.sha256, self.description = examples.sha256, examples.description
        self._examples, self._architecture, self._sigma = examples, architecture, sigma

    def to(self, device: torch.device) -> None:
        """Move the data to a device."""
        self._examples.to(device)

    def loss(
        self, network: nn.Module, batch: int, generator: torch.Generator, noise_generator: torch.Generator
    ) -> Tensor:
        """See `Objective.loss`."""
        clean = self._examples.draw(batch, generator)
        sigma = self._sigma.sample(len(clean), generator).to(clean.device)
        shape = (len(clean), self._architecture.copies, *clean.shape[-2:])
        noise = math.sqrt(2) * torch.randn(shape, dtype=clean.dtype, generator=noise_generator, device=clean.device)
        return denoising_loss(network, clean, sigma, noise, self._architecture.sigma_data)


def denoising_trainer(
    model: EdmDenoiser, examples: Examples, settings: TrainingSettings, state_path: Path | None = None
) -> Trainer[EdmDenoiser]:
    """Training run of a denoiser; see `Trainer`."""
    objective = Denoising(examples, model.architecture, settings.sigma)
    return Trainer(model, objective, settings, state_path, falling=True)


def denoising_loss(model: nn.Module, weighted: Tensor, sigma: Tensor, noise: Tensor, sigma_data: float) -> Tensor:
    r"""Denoising score-matching loss of EDM: 0 for a perfect denoiser, 1 for the best linear one of white data.

    Parameters
    ----------
    model : nn.Module
        `EdmDenoiser`, bare or in a wrapper for several processes.
    weighted : Tensor
        Noise-free weighted k-space, complex64, shape (batch, y, x).
    sigma : Tensor
        Noise levels, shape (batch,).
    noise : Tensor
        White noise of unit variance in each of the real and imaginary parts, shape (batch, copies, y, x).
    sigma_data : float
        Standard deviation of the data in each part, as the model has it.

    Returns
    -------
    Tensor
        Mean over batch and samples, shape ().

    Notes
    -----
    :math:`\lambda(\sigma) |D(k_w + \sigma n, \sigma) - k_w|^2` with :math:`\lambda = (\sigma^2 + \sigma_d^2) / (\sigma
    \sigma_d)^2`, which makes the target of the network one of unit variance (Karras et al., NeurIPS 2022).
    """
    level = sigma[:, None, None, None]
    clean = weighted[:, None]
    error = model(clean + level * noise, sigma) - clean
    squared = torch.view_as_real(error).square().mean(dim=(1, 2, 3, 4))
    return (squared * (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()).mean()


def _peaks(images: Tensor) -> Tensor:
    """Maxima of usable training images, (slice, 1, 1)."""
    if images.ndim != 3 or not images.is_complex() or not len(images):
        raise ValueError(f"training: {images.dtype} array of {tuple(images.shape)} is not complex (slice, y, x)")
    peaks = images.abs().amax((-2, -1), keepdim=True)
    if not bool(torch.isfinite(peaks).all()) or not bool((peaks > 0).all()):
        raise ValueError("training: an image is empty or has values that are not finite")
    return peaks


@torch.no_grad()
def denoising_quality(
    model: EdmDenoiser, images: Tensor, weighting: Weighting, settings: TrainingSettings
) -> dict[str, float]:
    """How well a denoiser does on whole images, for its card.

    Parameters
    ----------
    model : EdmDenoiser
        Trained network.
    images : Tensor
        Complex images with maximum 1, shape (slice, y, x).
    weighting : Weighting
        Weighting of k-space.
    settings : TrainingSettings
        Of which `phase_width`, `sigma` and `seed` are looked at.

    Returns
    -------
    dict
        "error / sigma at sigma S" for five noise levels within the middle of the training's: root-mean-square error
        of the denoised weighted k-space relative to the noise.
    """
    device = next(model.parameters()).device
    kspace = fft2c(images.to(device))
    if settings.phase_width:
        kspace = fft2c(ifft2c(kspace) * low_resolution_phase(kspace, settings.phase_width).conj())
    weighted = weighting.weight(kspace)
    generator = torch.Generator().manual_seed(settings.seed)
    result = {}
    for place in (-1.5, -0.75, 0.0, 0.75, 1.5):
        level = math.exp(settings.sigma.mean + place * settings.sigma.std)
        squares = []
        for one in weighted:
            shape = (1, model.architecture.copies, *one.shape)
            noise = level * math.sqrt(2) * torch.randn(shape, dtype=one.dtype, generator=generator).to(device)
            estimate = model(one + noise, torch.full((1,), level, device=device))
            squares.append(float(torch.view_as_real(estimate.mean(1)[0] - one).square().mean()))
        result[f"error / sigma at sigma {level:.4f}"] = round(math.sqrt(sum(squares) / len(squares)) / level, 4)
    return result
