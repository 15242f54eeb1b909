"""Denoisers of one noise level each, as the published denoising priors of this line have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from priors.denoiser import DenoiserPrior
from priors.domains import Domain, ReplicaDomain, WaveletDomain
from priors.learning.cards import ModelCard, from_table
from priors.learning.checkpoints import load_weights
from priors.learning.convolutional import ConvolutionalArchitecture, convolutional_network
from priors.prior import SigmaLevels

DomainName = Literal["replicas", "wavelet"]


@dataclass(frozen=True)
class FixedLevelOptions:
    """What a card of denoisers of fixed levels says besides their weights.

    Parameters
    ----------
    architecture : ConvolutionalArchitecture
        Network of each level.
    levels : tuple of float
        Noise levels, in each of the real and imaginary parts, ascending.
    domain : {"replicas", "wavelet"}
        Equal copies, one for each channel of the network, whose real and imaginary parts the network sees one after
        the other; or the bands of the undecimated Haar transform, real and imaginary parts as channels.

    Raises
    ------
    ValueError
        If a value is out of bounds, or the network does not have the channels of the domain.
    """

    architecture: ConvolutionalArchitecture
    levels: tuple[float, ...]
    domain: DomainName

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        if self.domain not in get_args(DomainName):
            raise ValueError(f"card: unknown domain {self.domain!r}")
        if not SigmaLevels(self.levels):
            raise ValueError("card: there are no noise levels")
        if self.domain == "wavelet" and self.architecture.channels != 8:
            raise ValueError(f"card: a network of {self.architecture.channels} channels; wavelet bands have 8")

    def as_table(self) -> dict[str, Any]:
        """For a card."""
        return asdict(self)

    def make_domain(self) -> Domain:
        """The domain."""
        return ReplicaDomain(self.architecture.channels) if self.domain == "replicas" else WaveletDomain()


class FixedLevelDenoiser(nn.Module):
    """Denoisers of one noise level each; every array goes to the one of the nearest level.

    Parameters
    ----------
    options : FixedLevelOptions
        Networks, levels, domain.
    """

    def __init__(self, options: FixedLevelOptions) -> None:
        super().__init__()
        self.architecture = options
        self.networks = nn.ModuleList([convolutional_network(options.architecture) for _ in options.levels])
        self._levels = SigmaLevels(options.levels)

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Denoised arrays.

        Parameters
        ----------
        noisy : Tensor
            complex64, shape (batch, band, y, x).
        sigma : Tensor
            Noise level of each, float32, shape (batch,).

        Returns
        -------
        Tensor
            complex64, of the same shape.
        """
        nearest = self._levels.nearest(sigma)
        result = torch.zeros_like(noisy)
        for level, network in zip(self._levels.values, self.networks, strict=True):
            chosen = torch.isclose(nearest, torch.tensor(level, dtype=nearest.dtype, device=nearest.device))
            if bool(chosen.any()):
                result = result.index_put((chosen.nonzero().flatten(),), self.of_level(network, noisy[chosen]))
        return result

    def of_level(self, network: nn.Module, noisy: Tensor) -> Tensor:
        """Arrays denoised by one of the networks; arguments and result as of `forward`."""
        parts = torch.view_as_real(noisy)
        if self.architecture.domain == "replicas":  # real and imaginary parts are arrays of their own
            planes = parts.movedim(-1, 1).flatten(0, 1)
            found = network(planes.contiguous()).float()
            pair = found.unflatten(0, (-1, 2))
            return torch.complex(pair[:, 0], pair[:, 1])
        planes = parts.movedim(-1, 2).flatten(1, 2)
        pair = network(planes.contiguous()).float().unflatten(1, (-1, 2))
        return torch.complex(pair[:, :, 0], pair[:, :, 1])


def load_fixed_levels(card: ModelCard, tensors: Mapping[str, Tensor]) -> DenoiserPrior:
    """Prior of a card whose options are `FixedLevelOptions`, and its weights.

    Raises
    ------
    ValueError
        If options or weights are not those of such a prior.
    """
    options: FixedLevelOptions = from_table(FixedLevelOptions, card.options)
    model = FixedLevelDenoiser(options)
    load_weights(model, tensors)
    return DenoiserPrior(model, options.make_domain(), SigmaLevels(options.levels), typical_gain=card.typical_gain)
