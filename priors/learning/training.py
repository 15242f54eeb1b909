"""Training of a denoiser of weighted k-space by denoising score matching."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn import functional

from priors.learning.cards import images_sha256
from priors.learning.networks import EdmDenoiser, channels_last
from priors.learning.noise_schedule import LogNormalSigma
from priors.signal.fourier import fft2c, ifft2c, low_resolution_phase, radial_frequency
from priors.signal.weighting import Weighting


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; a value of zero leaves a variation out.

    Parameters
    ----------
    flips_and_turns : bool
        Mirror images and quarter turns.
    affine : float
        Fraction of the images that are turned by any angle and magnified.
    zoom : tuple of float
        Range of the magnification.
    scale : tuple of float
        Range of a random factor.
    smooth_phase : float
        Largest coefficient, in radians, of a random smooth phase, as coils and field inhomogeneity make it, on top of
        a random phase of the whole image.
    removed_phase : float
        Fraction of the images whose low-resolution phase is taken away, as the reconstruction does
        (`phase_width`); the others keep it, so that the network knows images whose phase is not known.
    shading : float
        Strength of a random smooth magnitude, as the sensitivity of a coil is: the exponent of its logarithm.
    contrast : float
        Fraction of the images whose magnitudes go through a random curve, so that other contrasts are seen.
    resolution : float
        Fraction of the images whose k-space is apodised, as scanners do to images of fewer samples than pixels.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    flips_and_turns: bool = True
    affine: float = 0.5
    zoom: tuple[float, float] = (0.8, 1.25)
    scale: tuple[float, float] = (0.3, 1.2)
    smooth_phase: float = 2.0
    removed_phase: float = 0.75
    shading: float = 1.0
    contrast: float = 0.5
    resolution: float = 0.4

    def __post_init__(self) -> None:
        for name in ("zoom", "scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise ValueError(f"augmentation: {name} {low} to {high} is not a range of finite numbers above zero")
        for name in ("affine", "smooth_phase", "removed_phase", "shading", "contrast", "resolution"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"augmentation: {name} {getattr(self, name)} is not a finite number, zero or more")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training run.

    Parameters
    ----------
    steps : int
        Optimiser steps.
    batch : int
        Arrays in a batch (of each process).
    crop : int
        Width and height of the crops of the weighted image; images that are smaller are used as they are.
    learning_rate : float
        Peak learning rate of AdamW, reached after `warm_up` steps.
    weight_decay : float
        Weight decay of AdamW.
    warm_up : int
        Steps of linearly growing learning rate.
    decay : float
        Last fraction of the run in which the learning rate falls linearly to zero: until then a run does not depend
        on how long it is to be.
    ema : float
        Decay of the moving average of the weights in a step; less in the first steps.
    bf16 : bool
        Convolutions in bfloat16.
    phase_width : int
        Width of the k-space window whose low-resolution phase is taken from the images; 0: none.
    sigma : LogNormalSigma
        Distribution of the noise levels.
    augmentation : Augmentation
        Variation of the images.
    seed : int
        Seed; two runs with the same seed, settings and images do the same.
    save_every_s : float
        Seconds between two saved states.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    steps: int = 8000
    batch: int = 4
    crop: int = 128
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    warm_up: int = 100
    decay: float = 0.3
    ema: float = 0.999
    bf16: bool = True
    phase_width: int = 24
    sigma: LogNormalSigma = field(default_factory=lambda: LogNormalSigma(-4.2, 1.2))
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    save_every_s: float = 120.0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.crop) < 1 or min(self.warm_up, self.phase_width) < 0:
            raise ValueError("training: steps, batch, crop: one or more; warm_up and phase_width: zero or more")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.ema < 1 or self.weight_decay < 0:
            raise ValueError("training: learning_rate above 0, ema from 0 to below 1 and weight_decay 0 or more")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"training: decay {self.decay} is not from 0 to 1")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from zero."""
        warm = min(1.0, (step + 1) / (self.warm_up + 1))
        left = (self.steps - step) / max(self.decay * self.steps, 1)
        return self.learning_rate * min(warm, left)


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


def augmented_batch(
    images: Tensor,
    weighting: Weighting,
    augmentation: Augmentation,
    batch: int,
    crop: int,
    generator: torch.Generator,
    phase_width: int = 0,
) -> Tensor:
    """Random batch of varied, cropped, weighted k-space.

    Parameters
    ----------
    images : Tensor
        Complex images with maximum 1, shape (slice, y, x).
    weighting : Weighting
        Weighting of k-space.
    augmentation : Augmentation
        Variation of the images.
    batch : int
        Number of arrays.
    crop : int
        Width and height of the crops.
    generator : torch.Generator
        Source of randomness, on the CPU wherever the images are: the same batch on every device, and no wait for one.
    phase_width : int
        Width of the window whose low-resolution phase is taken away, see `low_resolution_phase`; 0: never.

    Returns
    -------
    Tensor
        Weighted k-space, complex64, shape (batch, y, x).

    Notes
    -----
    The weighted image is cropped, not the image: the edge of a crop then makes no steep edge in the weighted data.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(shape, generator=generator)).to(images.device)

    def chosen(fraction: float) -> Tensor:
        return uniform(0, 1, batch, 1, 1) < fraction

    height, width = images.shape[-2:]
    varied = images[torch.randint(len(images), (batch,), generator=generator).to(images.device)]
    if augmentation.affine:
        turned = _turn_and_zoom(varied, uniform(0, 2 * math.pi, batch), uniform(*augmentation.zoom, batch))
        varied = torch.where(chosen(augmentation.affine), turned, varied)
    if augmentation.contrast:
        curved = _contrast(varied, uniform(0.15, 1, batch, 4))
        varied = torch.where(chosen(augmentation.contrast), curved, varied)
    if augmentation.shading:
        field = _smooth_field(uniform(-1, 1, batch, 3, 3), height, width)
        # A coil sees no more than the full signal.
        varied = varied * (augmentation.shading * (field - field.amax((-2, -1), keepdim=True))).exp()
    if augmentation.smooth_phase:
        phase = augmentation.smooth_phase * _smooth_field(uniform(-1, 1, batch, 3, 3), height, width)
        phase = phase + uniform(0, 2 * math.pi, batch, 1, 1)
        varied = varied * torch.polar(torch.ones_like(phase), phase)
    kspace = fft2c(varied * uniform(*augmentation.scale, batch, 1, 1))
    if augmentation.resolution:
        filtered = kspace * _apodisation(uniform(0.3, 0.7, batch, 1, 1), uniform(0.05, 0.6, batch, 1, 1), height, width)
        kspace = torch.where(chosen(augmentation.resolution), filtered, kspace)
    if phase_width and augmentation.removed_phase:
        real = fft2c(ifft2c(kspace) * low_resolution_phase(kspace, phase_width).conj())
        kspace = torch.where(chosen(augmentation.removed_phase), real, kspace)
    weighted = ifft2c(weighting.weight(kspace))
    rows = torch.randint(max(height - crop, 0) + 1, (batch,), generator=generator).tolist()
    columns = torch.randint(max(width - crop, 0) + 1, (batch,), generator=generator).tolist()
    crops = [one[y : y + crop, x : x + crop] for one, y, x in zip(weighted, rows, columns, strict=True)]
    if augmentation.flips_and_turns:
        kinds = torch.randint(8, (batch,), generator=generator).tolist()
        crops = [_flip_and_turn(one, kind) for one, kind in zip(crops, kinds, strict=True)]
    return fft2c(torch.stack(crops))


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
        Of which `augmentation`, `crop` and `phase_width` are looked at.

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
            self._images, self._weighting, settings.augmentation, batch, settings.crop, generator, settings.phase_width
        )


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


def _turn_and_zoom(images: Tensor, angle: Tensor, zoom: Tensor) -> Tensor:
    """Images (batch, y, x) turned and magnified about their centres (batch,), empty where nothing was."""
    height, width = images.shape[-2:]
    cosine, sine, zero = angle.cos() / zoom, angle.sin() / zoom, torch.zeros_like(angle)
    rows = (cosine, -sine * height / width, zero, sine * width / height, cosine, zero)
    planes = torch.stack((images.real, images.imag), 1)
    grid = functional.affine_grid(torch.stack(rows, 1).reshape(-1, 2, 3), list(planes.shape), align_corners=False)
    turned = functional.grid_sample(planes, grid, mode="bicubic", align_corners=False)
    return torch.complex(turned[:, 0], turned[:, 1])


def _apodisation(edge: Tensor, roll_off: Tensor, height: int, width: int) -> Tensor:
    """Radial low-pass filters (batch, y, x): half at `edge` cycles per sample, falling over `roll_off` by a cosine."""
    position = (radial_frequency(height, width, edge.device) - edge) / roll_off + 0.5
    return 0.5 * (1 + (math.pi * position.clamp(0, 1)).cos())


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


def _contrast(images: Tensor, heights: Tensor) -> Tensor:
    """Images whose magnitudes (maximum 1) went through lines from 0 through equally spaced heights (batch, knot)."""
    magnitude = images.abs()
    knots = torch.cat((torch.zeros_like(heights[:, :1]), heights), dim=1)
    place = magnitude.clamp(max=1).flatten(1) * heights.shape[1]
    left = place.floor().long().clamp(max=heights.shape[1] - 1)
    curve = torch.lerp(knots.gather(1, left), knots.gather(1, left + 1), place - left)
    return images * (curve.reshape(images.shape) / magnitude.clamp_min(1e-6))


def _smooth_field(coefficients: Tensor, height: int, width: int) -> Tensor:
    """Sums of the products of Legendre polynomials along y and x, (batch, 3, 3) to (batch, y, x), about -1 to 1."""

    def polynomials(size: int) -> Tensor:
        u = torch.linspace(-1, 1, size, device=coefficients.device)
        return torch.stack((torch.ones_like(u), u, 1.5 * u.square() - 0.5))

    return polynomials(height).T @ coefficients @ polynomials(width) / 2


def _flip_and_turn(image: Tensor, kind: int) -> Tensor:
    """One of the eight symmetries of a square; pictures that are not square keep their shape."""
    turns = kind % 4 if image.shape[0] == image.shape[1] else 2 * (kind % 2)
    image = torch.rot90(image, turns, (0, 1))
    return image.flip(0) if kind >= 4 else image


class Trainer:
    """Training run that can be stopped at any time and taken up again as if nothing had happened.

    Parameters
    ----------
    model : EdmDenoiser
        Network to train, on the device to train on.
    examples : Examples
        What to learn from: `ImageCrops`, or the patches of one scan (`priors.hkgm`).
    settings : TrainingSettings
        Settings of the run.
    state_path : Path, optional
        File that keeps the state of the run (safetensors); taken up again where it exists.

    Attributes
    ----------
    average : EdmDenoiser
        Moving average of the weights: the result.
    step : int
        Steps done.
    losses : list of float
        Mean loss of every ten steps.

    Raises
    ------
    ValueError
        If the saved state is of another run.

    Notes
    -----
    All randomness of a step comes from the seed, the number of the step and the rank of the process, so that a
    resumed run is the uninterrupted one bit for bit. Under `torchrun` (an initialised default process group) the
    gradients are averaged by torch's DistributedDataParallel and the first process saves.
    """

    def __init__(
        self,
        model: EdmDenoiser,
        examples: Examples,
        settings: TrainingSettings,
        state_path: Path | None = None,
    ) -> None:
        self.model = channels_last(model).train()
        self.device = next(model.parameters()).device
        self.examples = examples
        self.examples.to(self.device)
        self.settings = settings
        self.state_path = state_path
        self.average = EdmDenoiser(model.architecture).to(self.device).requires_grad_(False)
        self.average.load_state_dict(model.state_dict())
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.step = 0
        self.losses: list[float] = []
        self._whole = True
        self._pending = torch.zeros((), dtype=torch.float64, device=self.device)
        self._rank = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else None
        if state_path is not None and state_path.exists():
            self._restore(state_path)
        self._network: nn.Module = model
        if self._rank is not None:
            self._network = nn.parallel.DistributedDataParallel(model)

    def run(
        self,
        progress: Callable[[int, float], None] | None = None,
        until: int | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Train up to the last step and save the state on the way and at the end, also at a keyboard interrupt.

        Parameters
        ----------
        progress : callable, optional
            Called after every ten steps with the number of steps done and their mean loss.
        until : int, optional
            Stop after this step instead of the last one.
        stop : callable, optional
            Asked before every step; the run ends where it says True.

        Raises
        ------
        ValueError
            If the loss is not finite.
        """
        last = min(self.settings.steps, self.settings.steps if until is None else until)
        saved = time.monotonic()
        try:
            while self.step < last and not (stop is not None and stop()):
                self._advance()
                if self.step % 10 == 0:
                    self._note_loss(progress)
                    if time.monotonic() - saved > self.settings.save_every_s:
                        self.save()
                        saved = time.monotonic()
        except KeyboardInterrupt:
            # In the middle of a step the weights are those of neither; the file keeps its last whole state.
            if self._whole:
                self.save()
            raise
        self.save()

    def save(self) -> None:
        """Write the state of the run to its file, all of it or nothing; nothing without a file."""
        if self.state_path is None or self._rank not in (None, 0):
            return
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        tensors["pending"] = self._pending
        temporary = self.state_path.with_name(self.state_path.name + ".part")
        contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(contiguous, temporary, {"run": self._description(), "step": str(self.step)})
        os.replace(temporary, self.state_path)

    def _advance(self) -> None:
        settings = self.settings
        # torch's CPU generator looks at 32 bits of a seed: a hash keeps seeds, steps and ranks apart in them.
        place = repr((settings.seed, self.step, self._rank or 0)).encode()
        digest = hashlib.sha256(place).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
        noise_generator = torch.Generator(self.device).manual_seed(int.from_bytes(digest[4:8], "little"))
        weighted = self.examples.draw(settings.batch, generator)
        sigma = settings.sigma.sample(len(weighted), generator).to(self.device)
        architecture = self.model.architecture
        shape = (len(weighted), architecture.copies, *weighted.shape[-2:])
        noise = math.sqrt(2) * torch.randn(shape, dtype=weighted.dtype, generator=noise_generator, device=self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.bf16):
            loss = denoising_loss(self._network, weighted, sigma, noise, architecture.sigma_data)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._whole = False
        self.optimizer.step()
        # A young average forgets faster, or it would remember the random start.
        decay = min(settings.ema, (self.step + 1) / (self.step + 11))
        with torch.no_grad():
            for average, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
                average.lerp_(weight, 1 - decay)
        self._pending += loss.detach()
        self.step += 1
        self._whole = True

    def _note_loss(self, progress: Callable[[int, float], None] | None) -> None:
        loss = float(self._pending) / 10
        self._pending.zero_()
        if not math.isfinite(loss):
            raise ValueError(f"training: the loss is {loss} at step {self.step}; lower the learning rate")
        self.losses.append(loss)
        if progress is not None:
            progress(self.step, loss)

    def _description(self) -> str:
        """What a saved state must have in common with this run, as JSON."""
        settings = asdict(self.settings)
        # How often a state is saved has no part in what is trained.
        del settings["save_every_s"]
        run = {
            "architecture": asdict(self.model.architecture),
            "examples": self.examples.description | {"sha256": self.examples.sha256},
            "settings": settings,
        }
        return json.dumps(run, sort_keys=True)

    def _restore(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: not a saved training state ({error}); remove it to start anew") from error
        if header.get("run") != self._description():
            raise ValueError(f"{path}: the state of a run with other settings or images; remove it to start anew")
        try:
            for module, prefix in ((self.model, "model."), (self.average, "average.")):
                module.load_state_dict({name: tensors[prefix + name] for name in module.state_dict()})
            state = self.optimizer.state_dict()
            names = ("step", "exp_avg", "exp_avg_sq")
            step = int(header["step"])
            count = len(state["param_groups"][0]["params"]) if step else 0
            state["state"] = {
                index: {name: tensors[f"optimizer.{index}.{name}"] for name in names} for index in range(count)
            }
            self.optimizer.load_state_dict(state)
            self.losses = tensors["losses"].tolist()
            self._pending = tensors["pending"].to(self.device)
            self.step = step
        except (KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: the saved training state is incomplete; remove it to start anew") from error
