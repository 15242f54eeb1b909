"""Training of denoisers of images: one for all noise levels, or one for each of a few."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from priors.denoiser import DenoiserPrior
from priors.domains import ImageDomain, ReplicaDomain
from priors.fixed_levels import FixedLevelDenoiser, FixedLevelOptions
from priors.image_denoiser import ImageDenoiserOptions
from priors.learning.augmentation import Augmentation
from priors.learning.networks import Architecture, EdmDenoiser
from priors.learning.noise_schedule import FixedSigmas, LogNormalSigma
from priors.learning.recipe import Run, Trained, TrainingSet
from priors.learning.trainer import Trainer
from priors.learning.training import MULTIPLIERS, Denoising, ImageCrops, TrainingSettings, small_crops
from priors.prior import Prior, SigmaLevels, expand_sigma
from priors.signal.fourier import fft2c, ifft2c, low_resolution_phase
from priors.signal.weighting import Weighting
from priors.typicality import typical_gains

JUDGED = 16  # training images whose quality goes into the card where none are held out
PLAIN = Weighting(slope=1.0, p=0.0)  # leaves k-space as it is
# Published networks see images as they are, at full scale.
PUBLISHED_AUGMENTATION = Augmentation(affine=0.0, removed_phase=0.0, shading=0.0, contrast=0.0, resolution=0.0)


class Crops:
    """Examples of a prior of images: varied, cropped images; arguments as of `ImageCrops`."""

    def __init__(self, images: Tensor, settings: TrainingSettings) -> None:
        self._crops = ImageCrops(images, PLAIN, settings)
        self.sha256 = self._crops.sha256
        self.description: dict[str, Any] = {"domain": "image"}

    def to(self, device: torch.device) -> None:
        """Move the images to a device."""
        self._crops.to(device)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Random examples, complex64, shape (batch, y, x)."""
        return ifft2c(self._crops.draw(batch, generator))


@dataclass(frozen=True)
class ImageDenoiserTraining:
    """What can be set.

    Parameters
    ----------
    architecture : Architecture
        Network.
    settings : TrainingSettings
        Optimiser, crops, noise levels, augmentation.
    levels : int
        Train at this many noise levels at equal distances of their logarithm, from `highest` to `lowest`, instead of
        at those of `settings.sigma`; 0: do not.
    lowest, highest : float
        Ends of these levels.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    architecture: Architecture = field(
        default_factory=lambda: Architecture(multipliers=MULTIPLIERS, parameterisation="image", sigma_data=0.15)
    )
    settings: TrainingSettings = field(default_factory=lambda: small_crops(sigma=LogNormalSigma(-3.2, 1.1)))
    levels: int = 0
    lowest: float = 0.01
    highest: float = 1.0

    def __post_init__(self) -> None:
        if self.levels:
            FixedSigmas.geometric(self.lowest, self.highest, self.levels)


def train_image_denoiser(options: ImageDenoiserTraining, data: TrainingSet, run: Run) -> Trained:
    """Train a noise-conditional denoiser of images.

    Raises
    ------
    ValueError
        If the images are not usable, or a saved state is of another run.
    """
    settings = options.settings
    sigma: LogNormalSigma | FixedSigmas = settings.sigma
    if options.levels:
        sigma = FixedSigmas.geometric(options.lowest, options.highest, options.levels)
    torch.manual_seed(settings.seed)
    model = run.begin(EdmDenoiser(options.architecture))
    objective = Denoising(Crops(data.images, settings), options.architecture, sigma)
    trainer = Trainer(model, objective, settings, run.folder / "state.safetensors", falling=True)
    trainer.run(run.report("training", settings.steps))
    copies = options.architecture.copies
    levels = SigmaLevels(sigma.levels) if isinstance(sigma, FixedSigmas) else SigmaLevels(sigma.range, True)
    prior = DenoiserPrior(
        trainer.average,
        ImageDomain() if copies == 1 else ReplicaDomain(copies),
        levels,
        phase_width=settings.phase_width,
    )
    known = ImageDenoiserOptions(options.architecture, settings.phase_width, levels.values, levels.continuous)
    return Trained(
        weights=trainer.average.state_dict(),
        options=known.as_table(),
        typical_gain=_gains(prior, data, run) if copies == 1 else None,
        steps=trainer.step,
        quality=denoising_errors(prior, data, settings.seed, run.device),
        losses=trainer.losses,
    )


def _gains(prior: Prior, data: TrainingSet, run: Run) -> tuple[float, float]:
    images = data.typical(data.images).to(run.device)
    return typical_gains(prior, images, images)


@dataclass(frozen=True)
class FixedLevelTraining:
    """What can be set.

    Parameters
    ----------
    options : FixedLevelOptions
        Networks, noise levels, domain.
    settings : TrainingSettings
        Optimiser, crops, augmentation.
    """

    options: FixedLevelOptions
    settings: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(phase_width=0, augmentation=PUBLISHED_AUGMENTATION)
    )


class FixedLevelObjective:
    """Mean squared error of each network at its own noise level, relative to that level.

    Parameters
    ----------
    examples : Crops
        What to learn from.
    options : FixedLevelOptions
        Levels and domain.
    """

    def __init__(self, examples: Crops, options: FixedLevelOptions) -> None:
        self.sha256, self.description = examples.sha256, examples.description
        self._examples, self._levels, self._domain = examples, options.levels, options.make_domain()

    def to(self, device: torch.device) -> None:
        """Move the data to a device."""
        self._examples.to(device)

    def loss(
        self, network: nn.Module, batch: int, generator: torch.Generator, noise_generator: torch.Generator
    ) -> Tensor:
        """See `Objective.loss`."""
        clean = self._domain.encode(self._examples.draw(batch, generator))
        losses = []
        for level in self._levels:
            noise = math.sqrt(2) * torch.randn(
                clean.shape, dtype=clean.dtype, generator=noise_generator, device=clean.device
            )
            found = network(clean + level * noise, torch.full((len(clean),), level, device=clean.device))
            losses.append(torch.view_as_real(found - clean).square().mean() / level**2)
        return torch.stack(losses).mean()


def train_fixed_levels(options: FixedLevelTraining, data: TrainingSet, run: Run) -> Trained:
    """Train a denoiser for each of a few noise levels, all in one run.

    Raises
    ------
    ValueError
        If the images are not usable, or a saved state is of another run.
    """
    settings, known = options.settings, options.options
    torch.manual_seed(settings.seed)
    model = run.begin(FixedLevelDenoiser(known))
    objective = FixedLevelObjective(Crops(data.images, settings), known)
    trainer = Trainer(model, objective, settings, run.folder / "state.safetensors", falling=True)
    trainer.run(run.report("training", settings.steps))
    prior = DenoiserPrior(trainer.average, known.make_domain(), SigmaLevels(known.levels))
    return Trained(
        weights=trainer.average.state_dict(),
        options=known.as_table(),
        typical_gain=None,
        steps=trainer.step,
        quality=denoising_errors(prior, data, settings.seed, run.device),
        losses=trainer.losses,
    )


@torch.no_grad()
def denoising_errors(prior: Prior, data: TrainingSet, seed: int, device: torch.device) -> dict[str, float]:
    """How well a prior of images denoises, for its card.

    Parameters
    ----------
    prior : Prior
        Prior.
    data : TrainingSet
        Its held-out images, or its training images where there are none.
    seed : int
        Seed of the noise.
    device : torch.device
        Where to compute.

    Returns
    -------
    dict
        "error / sigma at sigma S" for up to five noise levels: root-mean-square error in the domain relative to the
        noise.
    """
    judged, where = data.judged(JUDGED)
    images = judged.to(device)
    if prior.phase_width:
        images = images * low_resolution_phase(fft2c(images), prior.phase_width).conj()
    lowest, highest = prior.sigma_levels.lowest, prior.sigma_levels.highest
    levels = prior.sigma_levels.values
    if prior.sigma_levels.continuous or len(levels) > 5:
        levels = tuple(
            math.exp(math.log(lowest) + place * math.log(highest / lowest)) for place in (0.2, 0.4, 0.6, 0.8)
        )
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for level in prior.sigma_levels.nearest(torch.tensor(levels)).tolist():
        squares = []
        for one in images:
            m = prior.domain.encode(one[None])
            noise = math.sqrt(2) * torch.randn(m.shape, dtype=m.dtype, generator=generator).to(device)
            error = prior.denoise(m + expand_sigma(level, m) * noise, level) - m
            squares.append(float(torch.view_as_real(error).square().mean()))
        name = f"error / sigma at sigma {level:.4f}, {where} images as measured"
        result[name] = round(math.sqrt(sum(squares) / len(squares)) / level, 4)
    return result
