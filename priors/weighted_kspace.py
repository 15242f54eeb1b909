"""The prior of WKGM and HKGM: a score model of weighted k-space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from priors.denoiser import DenoiserPrior
from priors.domains import WeightedKspaceDomain
from priors.learning.cards import ModelCard, checked_range, from_table
from priors.learning.checkpoints import load_weights
from priors.learning.networks import Architecture, EdmDenoiser
from priors.prior import SigmaLevels
from priors.signal.weighting import Weighting


@dataclass(frozen=True)
class WeightedKspaceOptions:
    """What a card of weighted k-space says besides its weights.

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


class WeightedKspacePrior(DenoiserPrior):
    r"""Density of weighted single-coil k-space, known through a trained denoiser.

    Parameters
    ----------
    model : EdmDenoiser
        Trained network; it is switched to evaluation.
    weighting : Weighting
        Weighting that the network was trained with.
    sigma_range : tuple of float
        Lowest and highest noise level that the network was trained with, per complex channel of its input.
    seed : int
        Seed of the noise that tells the channels of a high-dimensional embedding apart.
    **options
        Further arguments of `DenoiserPrior`.

    Raises
    ------
    ValueError
        If the range or another argument is out of bounds.

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
        seed: int = 0,
        **options: Any,
    ) -> None:
        lowest, highest = sigma_range
        if not 0 < lowest < highest < math.inf:
            raise ValueError(f"prior: sigma range {lowest} to {highest} is not 0 < lowest < highest")
        self.copies = model.architecture.copies
        # The levels that an array may have are those of the network's channels without the noise of the embedding.
        levels = SigmaLevels((lowest / math.sqrt(self.copies), highest / math.sqrt(self.copies)), True)
        super().__init__(model, WeightedKspaceDomain(weighting), levels, **options)
        self.weighting = weighting
        # On half the matrix f doubles, and k-space of images of the same maximum halves: with w ~ f, w k stays.
        self.scale_free = weighting.p == 0.5
        self.seed = seed

    def _estimate(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        if self.copies == 1:
            return super()._estimate(noisy, sigma)
        sigma = math.sqrt(self.copies) * sigma
        channels = noisy + sigma[:, None, None, None] * self._embedding_noise(noisy)
        return super()._estimate(channels, sigma).mean(1, keepdim=True)

    def _embedding_noise(self, noisy: Tensor) -> Tensor:
        """White noise of the copies without its mean over them, unit variance in each part, (1, copies, y, x)."""
        generator = torch.Generator(noisy.device).manual_seed(self.seed)
        shape = (1, self.copies, *noisy.shape[-2:])
        noise = math.sqrt(2) * torch.randn(shape, dtype=noisy.dtype, generator=generator, device=noisy.device)
        return noise - noise.mean(1, keepdim=True)


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
