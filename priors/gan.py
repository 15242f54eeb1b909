"""GAN: the images that a generator can make, as a prior; the negative control among the systems."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from priors.learning.adversarial import (
    SHRINK,
    AdversarialArchitecture,
    AdversarialLoss,
    Adversaries,
    Generator,
)
from priors.learning.cards import ModelCard, from_table
from priors.learning.checkpoints import load_weights
from priors.learning.image_denoiser import PUBLISHED_AUGMENTATION, Crops
from priors.learning.recipe import Recipe, Run, Trained, TrainingSet
from priors.learning.trainer import Trainer
from priors.learning.training import TrainingSettings
from priors.prior import LatentPrior
from priors.registry import PUBLISHED_SETTINGS, GenerativeMethod

PENALTY = 1e-3  # of the latent's norm
LATENT_RATE, WEIGHT_RATE = 0.05, 1e-3  # of Adam


@dataclass(frozen=True)
class GanOptions:
    """What a card of a GAN says besides its weights.

    Parameters
    ----------
    architecture : AdversarialArchitecture
        Generator; the critic's weights are left out.
    """

    architecture: AdversarialArchitecture

    def as_table(self) -> dict[str, Any]:
        """For a card."""
        return asdict(self)


class GeneratorPrior(LatentPrior):
    r"""The image that a generator makes nearest to m.

    Parameters
    ----------
    model : Generator
        Generator G.
    steps : int
        Steps of Adam along z, from 0.
    weight_steps : int
        Steps of Adam along z and the weights together, after that; 0: the weights stay.

    Notes
    -----
    :math:`\min_z \|G(z) - m\|^2 + \lambda \|z\|^2` (Bora et al., ICML 2017), whose error does not fall below what G can
    make; the weights of a copy of G as well (image-adaptive GAN, Hussein et al., AAAI 2020), which is a deep image
    prior with a good start.
    """

    def __init__(self, model: Generator, steps: int = 60, weight_steps: int = 0) -> None:
        self.model = model.eval().requires_grad_(False)
        self.latents = model.latents
        self.steps, self.weight_steps = steps, weight_steps

    def prox(self, m: Tensor, weight: float | Tensor) -> Tensor:
        """See `Prior.prox`; what G can make decides, not the weight."""
        flat = m.reshape(-1, *m.shape[-2:]).to(torch.complex64)
        return torch.cat([self._nearest(one[None]) for one in flat]).reshape(m.shape).to(m.dtype)

    def _nearest(self, target: Tensor) -> Tensor:
        height, width = target.shape[-2:]
        size = [-(-height // SHRINK), -(-width // SHRINK)]
        padded = functional.pad(
            torch.stack((target.real, target.imag), 1),
            (0, SHRINK * size[1] - width, 0, SHRINK * size[0] - height),
            mode="circular",
        )
        with torch.inference_mode(False), torch.enable_grad():
            wanted = torch.complex(padded[:, 0], padded[:, 1]).detach().clone()
            z = torch.zeros(1, self.latents, *size, device=target.device, requires_grad=True)
            model = self.model
            self._descend(model, z, wanted, torch.optim.Adam([z], LATENT_RATE), self.steps)
            if self.weight_steps:
                model = copy.deepcopy(self.model).requires_grad_(True)
                groups = [{"params": [z], "lr": LATENT_RATE}, {"params": model.parameters(), "lr": WEIGHT_RATE}]
                self._descend(model, z, wanted, torch.optim.Adam(groups), self.weight_steps)
        with torch.no_grad():
            found: Tensor = model(z)[..., :height, :width]
        return found

    @staticmethod
    def _descend(model: Generator, z: Tensor, wanted: Tensor, optimiser: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            loss = (model(z) - wanted).abs().square().sum() + PENALTY * z.square().sum()
            loss.backward()
            optimiser.step()

    def to(self, device: torch.device) -> GeneratorPrior:
        """The prior with its network moved to a device."""
        self.model.to(device)
        return self


def _generator(card: ModelCard, tensors: Mapping[str, Tensor]) -> Generator:
    options: GanOptions = from_table(GanOptions, card.options)
    model = Generator(options.architecture)
    load_weights(model, tensors)
    return model


def load_gan(card: ModelCard, tensors: Mapping[str, Tensor]) -> GeneratorPrior:
    """Prior whose weights follow the image, of a card whose options are `GanOptions`; see `load_gan_latent`."""
    return GeneratorPrior(_generator(card, tensors), weight_steps=60)


def load_gan_latent(card: ModelCard, tensors: Mapping[str, Tensor]) -> GeneratorPrior:
    """Prior of a card whose options are `GanOptions`. Raises ValueError for other options or weights."""
    return GeneratorPrior(_generator(card, tensors), steps=100)


@dataclass(frozen=True)
class GanTraining:
    """What can be set.

    Parameters
    ----------
    architecture : AdversarialArchitecture
        Generator and critic.
    settings : TrainingSettings
        Optimiser, crops, augmentation.

    Raises
    ------
    ValueError
        If the crops are no multiple of 16 pixels.
    """

    architecture: AdversarialArchitecture = field(default_factory=AdversarialArchitecture)
    settings: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            steps=8000, batch=8, crop=64, learning_rate=2e-4, bf16=False, augmentation=PUBLISHED_AUGMENTATION
        )
    )

    def __post_init__(self) -> None:
        if self.settings.crop % SHRINK:
            raise ValueError(f"training: crop {self.settings.crop} is no multiple of {SHRINK}")


def train_gan(options: GanTraining, data: TrainingSet, run: Run) -> Trained:
    """Train a generator against a critic, whose weights are left out of the result.

    Raises
    ------
    ValueError
        If the images are not usable, or a saved state is of another run.
    """
    settings = options.settings
    torch.manual_seed(settings.seed)
    model = Adversaries(options.architecture).to(run.device)
    objective = AdversarialLoss(Crops(data.images, settings), options.architecture.latents)
    trainer = Trainer(model, objective, settings, run.folder / "state.safetensors")
    trainer.run(run.report("training", settings.steps))
    return Trained(
        weights=trainer.average.generator.state_dict(),
        options=GanOptions(options.architecture).as_table(),
        typical_gain=None,
        steps=trainer.step,
        quality=_range_error(trainer.average.generator, data),
        losses=trainer.losses,
    )


def _range_error(generator: Generator, data: TrainingSet) -> dict[str, float]:
    """How near the generator comes to images, for its card."""
    judged, where = data.judged()
    images = judged[:4].to(next(generator.parameters()).device)
    nearest = GeneratorPrior(copy.deepcopy(generator)).prox(images, 1.0)
    error = torch.linalg.vector_norm(nearest - images) / torch.linalg.vector_norm(images)
    return {f"relative error of the nearest generated image, {where} images": round(float(error), 4)}


GAN = GenerativeMethod(
    "GAN: what a generator can make when its weights follow the image (after Hussein et al., AAAI 2020)",
    load_gan,
    weights="gan",
    settings={"sampler": "proximal", "standard_steps": 10},
    recipe=Recipe(GanTraining, train_gan, refinable=False),
    variants={
        "published": GenerativeMethod(
            "GAN as published: what a generator can make, by its latent alone (Bora et al., ICML 2017)",
            load_gan_latent,
            weights="gan",
            takes="gan",
            settings={**PUBLISHED_SETTINGS, "sampler": "proximal", "steps": 10, "rule_options": {"dual": False}},
        )
    },
)
