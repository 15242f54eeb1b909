"""A prior that is known through a network which gives the log density of images."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from priors.prior import DensityPrior

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class DensityOptions:
    """What a card of a log density says besides its weights; each kind adds its architecture.

    Parameters
    ----------
    sigma_0 : float
        Noise of the training, in each part.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    sigma_0: float

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_0 < math.inf:
            raise ValueError(f"card: sigma_0 {self.sigma_0!r} is not 0 or more")

    def as_table(self) -> dict[str, Any]:
        """For a card."""
        return asdict(self)


class NetworkDensity(DensityPrior):
    """Log density, or a bound of it, that a network gives; its gradient is that of the network.

    Parameters
    ----------
    model : nn.Module
        Maps complex images (batch, y, x) to log densities (batch,); it is switched to evaluation.
    sigma_0 : float
        Noise that it was trained with, in each part.
    """

    inner_steps = 6  # with 5 the proximal rule stays 1.7e-4 from the Wiener solution of a Gaussian density

    def __init__(self, model: nn.Module, sigma_0: float) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.sigma_0 = sigma_0

    def log_prior(self, m: Tensor) -> Tensor:
        """Log density of images (batch, ..., y, x), shape (batch,)."""
        found: Tensor = self.model(m.reshape(-1, *m.shape[-2:]).to(torch.complex64))
        return found.reshape(len(m), -1).sum(1)

    def to(self, device: torch.device) -> Self:
        """The prior with its network moved to a device."""
        self.model.to(device)
        return self
