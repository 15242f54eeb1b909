"""The prior of WKGM and HKGM: a score model of weighted k-space."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from priors.domains import WeightedKspaceDomain
from priors.learning.cards import ModelCard, checked_range, from_table
from priors.learning.checkpoints import load_weights
from priors.learning.networks import Architecture, EdmDenoiser, channels_last
from priors.prior import Prior, SigmaLevels
from priors.signal.weighting import Weighting


@dataclass(frozen=True)
class WeightedKspaceOptions:
    """What a card of weighted k-space says beside its weights.

    Parameters
    ----------
    architecture : Architecture
        Network.
    weighting : Weighting
        Weighting of k-space.
    phase_width : int
        Width of the k-space window whose low-resolution phase the training images had lost; 0: none.
    sigma_range : tuple of float
        Lowest and highest noise level of the training.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    architecture: Architecture
    weighting: Weighting
    phase_width: int
    sigma_range: tuple[float, float]

    def __post_init__(self) -> None:
        if type(self.phase_width) is not int or self.phase_width < 0:
            raise ValueError(f"card: phase_width {self.phase_width!r} is not a whole number, 0 or more")
        object.__setattr__(self, "sigma_range", checked_range("sigma_range", self.sigma_range))

    def as_table(self) -> dict[str, Any]:
        """For a card."""
        return asdict(self)


class WeightedKspacePrior(Prior):
    r"""Density of weighted single-coil k-space, known through a trained denoiser.

    Parameters
    ----------
    model : EdmDenoiser
        Trained network; it is switched to evaluation.
    weighting : Weighting
        Weighting that the network was trained with.
    sigma_range : tuple of float
        Lowest and highest noise level that the network was trained with, per complex channel of its input.
    phase_width : int
        Width of the k-space window whose low-resolution phase the images of the training had lost; 0: none.
    typical_gain : tuple of float, optional
        Range of `denoising_gain` of images like those of the training; nothing is said of images without it.
    batch_size : int
        Most single-coil arrays that are denoised at a time, to bound memory.
    bf16 : bool, optional
        Evaluate the convolutions in bfloat16; if not given, where the processor multiplies in it.
    seed : int
        Seed of the noise that tells the channels of a high-dimensional embedding apart.

    Raises
    ------
    ValueError
        If the range or the batch size is out of bounds.

    Notes
    -----
    Units: k-space of the centred orthonormal Fourier transform of images with maximum 1, times the weights. Every
    coil is one entry of the batch, so any number of coils will do.

    With c > 1 copies (the high-dimensional embedding of Tu et al., NMR in Biomedicine 2022: c = 3) the network takes
    c channels with independent noise and its outputs are averaged. An array m of noise level :math:`\sigma` becomes
    :math:`m_j = m + \sqrt c \, \sigma (n_j - \bar n)` with white :math:`n_j`: these have independent noise of level
    :math:`\sqrt c \, \sigma` and the mean m, which is all that they tell about the clean array.
    """

    def __init__(
        self,
        model: EdmDenoiser,
        weighting: Weighting,
        sigma_range: tuple[float, float],
        *,
        phase_width: int = 0,
        typical_gain: tuple[float, float] | None = None,
        batch_size: int = 16,
        bf16: bool | None = None,
        seed: int = 0,
    ) -> None:
        lowest, highest = sigma_range
        if not 0 < lowest < highest < math.inf:
            raise ValueError(f"prior: sigma range {lowest} to {highest} is not 0 < lowest < highest")
        if batch_size < 1 or phase_width < 0:
            raise ValueError(f"prior: batch size {batch_size} and phase width {phase_width}; one or more, zero or more")
        self.model = channels_last(model).eval().requires_grad_(False)
        self.domain: WeightedKspaceDomain = WeightedKspaceDomain(weighting)
        self.copies = model.architecture.copies
        # The levels that an array may have are those of the network's channels without the noise of the embedding.
        self.sigma_levels = SigmaLevels((lowest / math.sqrt(self.copies), highest / math.sqrt(self.copies)), True)
        self.phase_width = phase_width
        self.typical_gain = typical_gain
        self.batch_size = batch_size
        self.bf16 = bf16
        self.seed = seed

    def with_model(self, model: EdmDenoiser) -> WeightedKspacePrior:
        """The same prior with another network of the same architecture and training range."""
        other = copy.copy(self)
        other.model = channels_last(model).eval().requires_grad_(False)
        return other

    @property
    def weighting(self) -> Weighting:
        """Weighting of k-space."""
        return self.domain.weighting

    def to(self, device: torch.device) -> WeightedKspacePrior:
        """The prior with its network moved to a device."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def denoise(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoised weighted k-space.

        Parameters
        ----------
        m : Tensor
            Weighted k-space, complex, shape (batch, ..., y, x); all axes before (y, x) are single coils.
        sigma : float or Tensor
            Noise level in each of the real and imaginary parts: one value or one for each batch entry.

        Returns
        -------
        Tensor
            Array of the shape and type of `m`.

        Raises
        ------
        ValueError
            If the array is not complex, has fewer than three axes or does not fit to `sigma`.
        """
        if not m.is_complex() or m.ndim < 3:
            raise ValueError(f"prior: {m.dtype} array of {tuple(m.shape)} is not complex (batch, ..., y, x)")
        level = torch.as_tensor(sigma, dtype=torch.float32, device=m.device).reshape(-1)
        if len(level) not in (1, len(m)):
            raise ValueError(f"sigma: {len(level)} values are neither one nor {len(m)}, one a batch entry")
        noisy = m.to(torch.complex64).flatten(0, -3)
        level = level.expand(len(m)).repeat_interleave(len(noisy) // max(len(m), 1))
        parts = [
            self._denoise(*part)
            for part in zip(noisy.split(self.batch_size), level.split(self.batch_size), strict=True)
        ]
        return torch.cat(parts).reshape(m.shape).to(m.dtype)

    def _denoise(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Denoised arrays of one network batch, (batch, y, x), levels (batch,)."""
        channels = noisy[:, None]
        if self.copies > 1:
            sigma = math.sqrt(self.copies) * sigma
            channels = channels + sigma[:, None, None, None] * self._embedding_noise(noisy)
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self._uses_bf16(noisy.device)):
            estimate: Tensor = self.model(channels, sigma)
        return estimate.mean(1)

    def _embedding_noise(self, noisy: Tensor) -> Tensor:
        """White noise of the copies without its mean over them, unit variance in each part, (1, copies, y, x)."""
        generator = torch.Generator(noisy.device).manual_seed(self.seed)
        shape = (1, self.copies, *noisy.shape[-2:])
        noise = math.sqrt(2) * torch.randn(shape, dtype=noisy.dtype, generator=generator, device=noisy.device)
        return noise - noise.mean(1, keepdim=True)

    def _uses_bf16(self, device: torch.device) -> bool:
        if self.bf16 is not None:
            return self.bf16
        if device.type == "cuda":
            return torch.cuda.get_device_capability(device) >= (8, 0)
        # Without instructions for it bfloat16 is slower than float32 on a processor; older torch cannot tell.
        tests = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
        return device.type == "cpu" and any(test is not None and test() for test in tests)


def load_weighted_kspace(card: ModelCard, tensors: Mapping[str, Tensor], **options: Any) -> WeightedKspacePrior:
    """Prior of a card and its weights.

    Parameters
    ----------
    card : ModelCard
        Card whose options are `WeightedKspaceOptions`.
    tensors : mapping of Tensor
        Weights by name.
    **options
        Keyword arguments of `WeightedKspacePrior`.

    Returns
    -------
    WeightedKspacePrior
        On the CPU, float32.

    Raises
    ------
    ValueError
        If options or weights are not those of such a prior.
    """
    known: WeightedKspaceOptions = from_table(WeightedKspaceOptions, card.options)
    model = EdmDenoiser(known.architecture)
    load_weights(model, tensors)
    options = {"phase_width": known.phase_width, "typical_gain": card.typical_gain, **options}
    return WeightedKspacePrior(model, known.weighting, known.sigma_range, **options)
