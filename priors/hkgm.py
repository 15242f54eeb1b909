"""HKGM: a prior that is learnt from one scan, by patches of its Hankel matrix, of its k-space or of its image."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from priors.learning.cards import images_sha256
from priors.learning.networks import Architecture, Parameterisation
from priors.learning.recipe import Recipe, Run, Trained, TrainingSet
from priors.learning.training import MULTIPLIERS, Examples, ImageCrops, TrainingSettings
from priors.learning.weighted_kspace import WeightedKspaceTraining, train_weighted_kspace
from priors.registry import GenerativeMethod
from priors.signal.fourier import fft2c
from priors.signal.weighting import Weighting
from priors.weighted_kspace import load_weighted_kspace

PatchKind = Literal["image", "kspace", "hankel"]
AUGMENTED_SPREAD = 0.6  # standard deviation of the varied training images in units of their own

_PATCHES = {"image": "patches of the image", "kspace": "patches of k-space", "hankel": "patches of the Hankel matrix"}


@dataclass(frozen=True)
class HkgmTraining:
    """What can be set.

    Parameters
    ----------
    patches : {"image", "kspace", "hankel"}
        What the network learns from: patches of the weighted image, which the network sees through the Fourier
        transform; of weighted k-space; or of its Hankel matrix, as published.
    window : int
        Width of the window of the Hankel matrix, for its patches.
    power : float
        Exponent p of the weighting; 0: none.
    denoise : bool
        Learn from the image without its noise; patches of images only.
    denoising_steps : int
        Optimiser steps of that.
    architecture : Architecture
        Network.
    settings : TrainingSettings
        Optimiser, size of the patches (`crop`; published: 256), noise levels, augmentation.

    Raises
    ------
    ValueError
        If the patches are of no known kind, or a value is out of bounds.
    """

    patches: PatchKind = "image"
    window: int = 8
    power: float = 0.5
    denoise: bool = False
    denoising_steps: int = 500
    architecture: Architecture = field(default_factory=lambda: Architecture(multipliers=MULTIPLIERS))
    settings: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(steps=1500, batch=16, crop=64, save_every_s=60.0)
    )

    def __post_init__(self) -> None:
        if self.patches not in get_args(PatchKind):
            raise ValueError(f"patches {self.patches!r} is not one of {', '.join(get_args(PatchKind))}")
        if self.window < 2:
            raise ValueError(f"window {self.window} is not two or more samples")
        if not 0 <= self.power < math.inf:
            raise ValueError(f"power {self.power} is not a finite number, zero or more")
        if self.denoising_steps < 1:
            raise ValueError(f"denoising_steps {self.denoising_steps} is not one or more")

    @property
    def weighting(self) -> Weighting:
        """Weighting of k-space."""
        return Weighting.of_power(self.power)


def train_hkgm(options: HkgmTraining, data: TrainingSet, run: Run) -> Trained:
    """Train on the slices of one multi-coil scan; see `priors.learning.recipe`.

    Raises
    ------
    ValueError
        For a scan of one coil, or a window that does not fit.
    """
    kspace = data.kspace
    if kspace is None or kspace.shape[1] < 2:
        raise ValueError("it has one coil; HKGM learns from multi-coil k-space, train wkgm from any number of coils")
    weighting, settings, denoise = options.weighting, options.settings, options.denoise
    sees: Parameterisation = "fourier_conjugate" if options.patches == "image" else "kspace"
    if options.patches != "image":  # these see coils, noise and phase as they are in k-space
        denoise, settings = False, replace(settings, phase_width=0)
    spread = torch.view_as_real(weighting.weight(fft2c(data.images))).std()
    architecture = replace(
        options.architecture, parameterisation=sees, sigma_data=round(AUGMENTED_SPREAD * float(spread), 4)
    )

    def examples(clean: Tensor) -> Examples:
        if options.patches == "image":
            return ImageCrops(clean, weighting, settings)
        return ScanPatches(kspace, weighting, settings, options.patches, options.window)

    common = WeightedKspaceTraining(denoise, options.denoising_steps, architecture, settings, weighting)
    trained = train_weighted_kspace(common, data, run, examples)
    text = f", {kspace.shape[1]} coils, {_PATCHES[options.patches]}"
    if options.patches == "hankel":
        text += f" with window {options.window}"
    return replace(trained, text=text + trained.text)


def hankel_patches(weighted: Tensor, window: int, first: Tensor, patch: tuple[int, int]) -> Tensor:
    r"""Patches of the Hankel matrix of multi-coil k-space, without the matrix.

    Parameters
    ----------
    weighted : Tensor
        Complex k-space, shape (coil, y, x).
    window : int
        Width w of the square window in samples.
    first : Tensor
        First row and first column of every patch, integer, shape (patch, 2).
    patch : tuple of int
        Rows and columns of a patch.

    Returns
    -------
    Tensor
        Complex, shape (patch, row, column).

    Raises
    ------
    ValueError
        If a patch is not within the matrix.

    Notes
    -----
    A row of the matrix holds the samples of all coils within the window at one position, columns ordered (coil, wy,
    wx); positions go along x first and do not wrap around: 256 x 256 samples of 8 coils and windows of 8 x 8 make a
    matrix of 62001 x 512. Row and column each decide a part of the place of a sample in memory, so that a patch is one
    indexing by the sums of the two (Peng et al., IEEE TMI 2023).
    """
    rows, columns = hankel_shape(weighted.shape, window)
    last = first + torch.tensor(patch)
    if min(patch) < 1 or int(first.min()) < 0 or int(last[:, 0].max()) > rows or int(last[:, 1].max()) > columns:
        raise ValueError(f"hankel: a patch of {patch[0]} x {patch[1]} leaves the matrix of {rows} x {columns}")
    height, width = weighted.shape[-2:]
    across = width - window + 1
    row = first[:, :1] + torch.arange(patch[0])
    column = first[:, 1:] + torch.arange(patch[1])
    of_row = row // across * width + row % across
    coil, place = column // window**2, column % window**2
    of_column = coil * height * width + place // window * width + place % window
    index = of_row[:, :, None] + of_column[:, None, :]
    return weighted.flatten()[index.to(weighted.device)]


def hankel_shape(shape: tuple[int, ...], window: int) -> tuple[int, int]:
    """Rows and columns of the Hankel matrix of k-space of shape (..., coil, y, x), whose window does not wrap around.

    Raises
    ------
    ValueError
        If the window does not fit.
    """
    coils, height, width = shape[-3:]
    if not 1 <= window <= min(height, width):
        raise ValueError(f"hankel: window {window} does not fit into k-space of {height} x {width} samples")
    return (height - window + 1) * (width - window + 1), coils * window**2


class ScanPatches:
    """Examples of one scan that see k-space itself: patches of its Hankel matrix, as published, or of its k-space.

    Parameters
    ----------
    kspace : Tensor
        Coil k-space of images of maximum 1, complex, shape (slice, coil, y, x).
    weighting : Weighting
        Weighting of k-space.
    settings : TrainingSettings
        Of which `crop` (rows and columns of a patch, at most those there are) and the scale of `augmentation` are
        looked at; every patch has a random phase.
    kind : {"hankel", "kspace"}
        What is cut into patches.
    window : int
        Width of the window of the Hankel matrix.

    Raises
    ------
    ValueError
        If the k-space is not usable or the window does not fit.
    """

    def __init__(
        self, kspace: Tensor, weighting: Weighting, settings: TrainingSettings, kind: PatchKind, window: int = 8
    ) -> None:
        if kspace.ndim != 4 or not kspace.is_complex() or not len(kspace):
            raise ValueError(f"training: {kspace.dtype} array of {tuple(kspace.shape)} is not (slice, coil, y, x)")
        self.sha256 = images_sha256(kspace)
        self.description: dict[str, Any] = {"weighting": asdict(weighting), "patches": kind, "window": window}
        self._weighted = weighting.weight(kspace.to(torch.complex64))
        self._settings, self._kind, self._window = settings, kind, window
        shape = hankel_shape(kspace.shape, window) if kind == "hankel" else tuple(kspace.shape[-2:])
        self._room = torch.tensor([max(size - settings.crop, 0) for size in shape]) + 1
        self._patch = (min(settings.crop, shape[0]), min(settings.crop, shape[1]))

    def to(self, device: torch.device) -> None:
        """Move the k-space to a device."""
        self._weighted = self._weighted.to(device)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Random examples, complex64, shape (batch, row, column)."""
        slices = torch.randint(len(self._weighted), (batch,), generator=generator).tolist()
        first = (torch.rand(batch, 2, generator=generator) * self._room).long()
        coils = torch.randint(self._weighted.shape[1], (batch,), generator=generator).tolist()
        low, high = self._settings.augmentation.scale
        factor = low + (high - low) * torch.rand(batch, generator=generator)
        factor = torch.polar(factor, 2 * math.pi * torch.rand(batch, generator=generator))
        patches = [
            hankel_patches(self._weighted[number], self._window, place[None], self._patch)[0]
            if self._kind == "hankel"
            else self._crop(self._weighted[number, coil], place)
            for number, coil, place in zip(slices, coils, first, strict=True)
        ]
        return torch.stack(patches) * factor[:, None, None].to(self._weighted.device)

    def _crop(self, plane: Tensor, place: Tensor) -> Tensor:
        y, x = place.tolist()
        return plane[y : y + self._patch[0], x : x + self._patch[1]]


HKGM = GenerativeMethod(
    "HKGM: a score model of Hankel k-space, learnt from one scan (Peng et al., IEEE TMI 2023)",
    load_weighted_kspace,
    weights="hkgm",
    settings={"low_rank": True, "start": "measured", "standard_steps": 25},  # 16 lose 0.2 dB at R = 10
    recipe=Recipe(HkgmTraining, train_hkgm, one_scan=True),
    self_training=True,
)
