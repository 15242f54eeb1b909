"""Training of energies: by the denoising of their gradient step, or by contrast with their own samples."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from priors.image_denoiser import ImageDenoiserOptions
from priors.learning.energy_networks import EnergyArchitecture, EnergyNetwork
from priors.learning.image_denoiser import JUDGED, PUBLISHED_AUGMENTATION, Crops
from priors.learning.networks import Architecture, EdmDenoiser
from priors.learning.noise_schedule import LogNormalSigma
from priors.learning.recipe import Run, Trained, TrainingSet
from priors.learning.trainer import Trainer
from priors.learning.training import TrainingSettings

LANGEVIN_NOISE = 0.005


def step_energy(model: nn.Module, m: Tensor, sigma: Tensor) -> Tensor:
    """|m - psi(m, sigma)|^2 / (2 sigma^2) of images (batch, 1, y, x) at levels (batch,), shape (batch,)."""
    return (m - model(m, sigma)).abs().square().flatten(1).sum(1) / (2 * sigma.square())


@dataclass(frozen=True)
class EnergyTraining:
    """What can be set.

    Parameters
    ----------
    architecture : Architecture
        Network psi.
    settings : TrainingSettings
        Optimiser, crops, noise levels, augmentation.
    """

    architecture: Architecture = field(
        default_factory=lambda: Architecture(base_channels=24, parameterisation="image", sigma_data=0.15)
    )
    settings: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(crop=96, sigma=LogNormalSigma(-3.2, 1.1), bf16=False)
    )


class GradientStepDenoising:
    """Denoising loss of the gradient step of an energy; see `priors.learning.training.denoising_loss`."""

    def __init__(self, examples: Crops, sigma: LogNormalSigma, sigma_data: float) -> None:
        self.sha256, self.description = examples.sha256, examples.description | {"loss": "gradient step"}
        self._examples, self._sigma, self._sigma_data = examples, sigma, sigma_data

    def to(self, device: torch.device) -> None:
        """Move the data to a device."""
        self._examples.to(device)

    def loss(
        self, network: nn.Module, batch: int, generator: torch.Generator, noise_generator: torch.Generator
    ) -> Tensor:
        """See `Objective.loss`."""
        clean = self._examples.draw(batch, generator)[:, None]
        sigma = self._sigma.sample(len(clean), generator).to(clean.device)
        noise = math.sqrt(2) * torch.randn(
            clean.shape, dtype=clean.dtype, generator=noise_generator, device=clean.device
        )
        level = sigma[:, None, None, None]
        noisy = (clean + level * noise).requires_grad_()
        (gradient,) = torch.autograd.grad(step_energy(network, noisy, sigma).sum(), noisy, create_graph=True)
        error = noisy - level.square() * gradient - clean
        squared = torch.view_as_real(error).square().mean(dim=(1, 2, 3, 4))
        return (squared * (sigma.square() + self._sigma_data**2) / (sigma * self._sigma_data).square()).mean()


def train_energy(options: EnergyTraining, data: TrainingSet, run: Run) -> Trained:
    """Train an energy whose gradient step is a denoiser.

    Raises
    ------
    ValueError
        If the images are not usable, or a saved state is of another run.
    """
    settings, architecture = options.settings, options.architecture
    torch.manual_seed(settings.seed)
    model = run.begin(EdmDenoiser(architecture))
    objective = GradientStepDenoising(Crops(data.images, settings), settings.sigma, architecture.sigma_data)
    trainer = Trainer(model, objective, settings, run.folder / "state.safetensors")
    trainer.run(run.report("training", settings.steps))
    known = ImageDenoiserOptions(architecture, settings.phase_width, settings.sigma.range, True)
    return Trained(
        weights=trainer.average.state_dict(),
        options=known.as_table(),
        typical_gain=None,
        steps=trainer.step,
        quality=_step_errors(trainer.average, data, settings),
        losses=trainer.losses,
    )


@dataclass(frozen=True)
class ContrastiveTraining:
    """What can be set.

    Parameters
    ----------
    architecture : EnergyArchitecture
        Network.
    settings : TrainingSettings
        Optimiser, crops, augmentation.
    langevin_steps : int
        Steps of a negative sample; published: 50.
    langevin_rate : float
        Step along the gradient of the energy; published: 100.
    buffer : int
        Samples that are kept and gone on with; published: 10000.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    architecture: EnergyArchitecture = field(default_factory=EnergyArchitecture)
    settings: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            steps=1000, batch=8, crop=64, learning_rate=3e-4, phase_width=0, bf16=False,
            augmentation=PUBLISHED_AUGMENTATION,
        )
    )  # fmt: skip
    langevin_steps: int = 20
    langevin_rate: float = 100.0
    buffer: int = 2000

    def __post_init__(self) -> None:
        if min(self.langevin_steps, self.buffer) < 1 or not self.langevin_rate > 0:
            raise ValueError("training: langevin_steps and buffer: one or more; langevin_rate: above zero")


class Contrast:
    r"""Contrastive loss with negatives by Langevin steps from a buffer of earlier ones.

    Notes
    -----
    :math:`\overline{E(x^+)} - \sum_j w_j E(x_j^-) + \overline{E(x^+)^2} + \overline{E(x^-)^2}` with weights w the
    softmax of :math:`-E(x^-)` (Guan et al., NMR Biomed. 2022). The buffer is not part of a saved state: a resumed run
    begins with fresh samples.
    """

    def __init__(self, examples: Crops, options: ContrastiveTraining) -> None:
        self.sha256 = examples.sha256
        own = {name: value for name, value in asdict(options).items() if name not in ("settings", "architecture")}
        self.description: dict[str, Any] = examples.description | own
        self._examples, self._options = examples, options
        self._buffer: list[Tensor] = []

    def to(self, device: torch.device) -> None:
        """Move the data to a device."""
        self._examples.to(device)

    def loss(
        self, network: nn.Module, batch: int, generator: torch.Generator, noise_generator: torch.Generator
    ) -> Tensor:
        """See `Objective.loss`."""
        positive = self._examples.draw(batch, generator)
        negative = self._negatives(network, positive, generator, noise_generator)
        high, low = network(negative), network(positive)
        weights = torch.softmax(-high.detach(), 0)
        return low.mean() - (weights * high).sum() + low.square().mean() + high.square().mean()

    def _negatives(
        self, network: nn.Module, positive: Tensor, generator: torch.Generator, noise_generator: torch.Generator
    ) -> Tensor:
        def noise(scale: float) -> Tensor:
            white = torch.randn(positive.shape, dtype=positive.dtype, generator=noise_generator, device=positive.device)
            return scale * math.sqrt(2) * white

        fresh = positive + noise(0.3)
        old = torch.rand(len(positive), generator=generator) > 0.05
        picks = torch.randint(max(len(self._buffer), 1), (len(positive),), generator=generator).tolist()
        start = [
            self._buffer[pick] if keep and self._buffer and self._buffer[pick].shape == one.shape else one
            for pick, keep, one in zip(picks, old.tolist(), fresh, strict=True)
        ]
        x = torch.stack(start)
        for _ in range(self._options.langevin_steps):
            x = (x + noise(LANGEVIN_NOISE)).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(network(x).sum(), x)
            moved = (x - self._options.langevin_rate * gradient).detach()
            x = torch.complex(moved.real.clamp(-1, 1), moved.imag.clamp(-1, 1))
        self._buffer = [*x.unbind(0), *self._buffer][: self._options.buffer]
        return x


def train_contrastive(options: ContrastiveTraining, data: TrainingSet, run: Run) -> Trained:
    """Train an energy by contrast with its samples.

    Raises
    ------
    ValueError
        If the images are not usable, or a saved state is of another run.
    """
    settings = options.settings
    torch.manual_seed(settings.seed)
    model = run.begin(EnergyNetwork(options.architecture))
    trainer = Trainer(
        model, Contrast(Crops(data.images, settings), options), settings, run.folder / "state.safetensors"
    )
    trainer.run(run.report("training", settings.steps))
    step = natural_step(trainer.average, data.typical(data.images).to(run.device), settings.seed)
    return Trained(
        weights=trainer.average.state_dict(),
        options={"architecture": asdict(options.architecture), "sigma": LANGEVIN_NOISE, "step": step},
        typical_gain=None,
        steps=trainer.step,
        quality=_energy_gap(trainer.average, data, settings.seed),
        losses=trainer.losses,
    )


def _step_errors(network: EdmDenoiser, data: TrainingSet, settings: TrainingSettings) -> dict[str, float]:
    """Error of the gradient step relative to the noise, for the card."""
    images, where = data.judged(JUDGED)
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(settings.seed)
    result = {}
    for place in (-1.0, 0.0, 1.0):
        level = math.exp(settings.sigma.mean + place * settings.sigma.std)
        squares = []
        for image in images.to(device):
            noise = math.sqrt(2) * torch.randn(image.shape, dtype=image.dtype, generator=generator).to(device)
            noisy = (image + level * noise)[None, None].requires_grad_()
            sigma = torch.full((1,), level, device=device)
            (gradient,) = torch.autograd.grad(step_energy(network, noisy, sigma).sum(), noisy)
            error = noisy.detach() - level**2 * gradient - image
            squares.append(float(torch.view_as_real(error).square().mean()))
        root = math.sqrt(sum(squares) / len(squares))
        result[f"error / sigma at sigma {level:.4f}, {where} images as measured"] = round(root / level, 4)
    return result


@torch.no_grad()
def _energy_gap(network: EnergyNetwork, data: TrainingSet, seed: int) -> dict[str, float]:
    """Fraction of the images whose energy rises by noise, for the card."""
    images, where = data.judged(JUDGED)
    images = images.to(next(network.parameters()).device)
    generator = torch.Generator(images.device).manual_seed(seed)
    noise = torch.randn(images.shape, dtype=images.dtype, generator=generator, device=images.device)
    higher = torch.cat([network((x + 0.1 * n)[None]) > network(x[None]) for x, n in zip(images, noise, strict=True)])
    return {f"fraction of {where} images whose energy rises by noise": round(float(higher.float().mean()), 4)}


def natural_step(network: nn.Module, images: Tensor, seed: int, sigma: float = 0.01) -> float:
    """Step that moves images with noise of level 0.01 by about a tenth of that noise along the energy's gradient."""
    generator = torch.Generator(images.device).manual_seed(seed)
    some = images[:8]
    noise = torch.randn(some.shape, dtype=some.dtype, generator=generator, device=some.device)
    x = (some + sigma * math.sqrt(2) * noise).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    return float(0.1 * sigma / gradient.abs().square().mean().div(2).sqrt().clamp_min(1e-20))
