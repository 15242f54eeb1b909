"""A noise-conditional denoiser of images, which the modern variants of the denoising systems share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from priors.denoiser import DenoiserPrior
from priors.domains import ImageDomain, ReplicaDomain, WaveletDomain
from priors.learning.cards import ModelCard, from_table
from priors.learning.checkpoints import load_weights
from priors.learning.networks import Architecture, EdmDenoiser
from priors.prior import SigmaLevels


@dataclass(frozen=True)
class ImageDenoiserOptions:
    """What a card of a denoiser of images says besides its weights.

    Parameters
    ----------
    architecture : Architecture
        Network; its copies are those of the image that it takes as channels.
    phase_width : int
        Width of the k-space window whose low-resolution phase the training images had lost; 0: none.
    levels : tuple of float
        Noise levels of the training, in each of the real and imaginary parts of a channel, ascending; the lowest and
        the highest where they are continuous.
    continuous : bool
        Whether the levels are the ends of a range.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    architecture: Architecture
    phase_width: int
    levels: tuple[float, ...]
    continuous: bool

    def __post_init__(self) -> None:
        if type(self.phase_width) is not int or self.phase_width < 0:
            raise ValueError(f"card: phase_width {self.phase_width!r} is not a whole number, 0 or more")
        object.__setattr__(self, "levels", tuple(self.levels))
        if type(self.continuous) is not bool or not self.levels:
            raise ValueError("card: continuous is not true or false, or there are no levels")
        SigmaLevels(self.levels, self.continuous)

    def as_table(self) -> dict[str, Any]:
        """For a card."""
        return asdict(self)


def load_image_denoiser(card: ModelCard, tensors: Mapping[str, Tensor]) -> DenoiserPrior:
    """Prior of a card whose options are `ImageDenoiserOptions`, and its weights.

    Raises
    ------
    ValueError
        If options or weights are not those of such a prior.
    """
    options: ImageDenoiserOptions = from_table(ImageDenoiserOptions, card.options)
    model = EdmDenoiser(options.architecture)
    load_weights(model, tensors)
    copies = options.architecture.copies
    return DenoiserPrior(
        model,
        ImageDomain() if copies == 1 else ReplicaDomain(copies),
        SigmaLevels(options.levels, options.continuous),
        phase_width=options.phase_width,
        typical_gain=card.typical_gain,
    )


class OfBands(nn.Module):
    r"""A denoiser of images as one of the bands of the undecimated Haar transform.

    Parameters
    ----------
    model : nn.Module
        Denoiser of images, (batch, 1, y, x).

    Notes
    -----
    For a tight frame, :math:`W^H W = 4`, :math:`W^H m / 4` is all that noisy bands m tell about the image, with noise
    of half their level: :math:`E[W x | m] = W D(W^H m / 4, \sigma / 2)`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self._domain = model, WaveletDomain()

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Denoised bands, complex64 (batch, 4, y, x), noise levels (batch,)."""
        images = self._domain.decode(noisy, noisy[:, 0])
        return self._domain.encode(self.model(images[:, None], sigma / 2)[:, 0])


def load_of_bands(card: ModelCard, tensors: Mapping[str, Tensor]) -> DenoiserPrior:
    """Prior of wavelet bands, of the card and weights of a denoiser of images; see `load_image_denoiser`."""
    prior = load_image_denoiser(card, tensors)
    if not isinstance(prior.domain, ImageDomain):
        raise ValueError("a denoiser of several copies does not see one image")
    lowest, highest = prior.sigma_levels.values
    return DenoiserPrior(
        OfBands(prior.model), WaveletDomain(), SigmaLevels((2 * lowest, 2 * highest), True),
        phase_width=prior.phase_width,
    )  # fmt: skip
