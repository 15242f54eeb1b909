"""Networks that give one number to an image: its energy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from priors.learning.networks import check_whole_numbers


@dataclass(frozen=True)
class EnergyArchitecture:
    """Shapes of a convolutional energy.

    Parameters
    ----------
    width : int
        Filters of the first level; 2, 4, 8 and 8 times as many on the next ones. Published: 64.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    width: int = 32

    def __post_init__(self) -> None:
        check_whole_numbers(self, width=256)


class EnergyNetwork(nn.Module):
    """Residual blocks with spectral normalisation, each at half the size of the one before; a sum over the image.

    Parameters
    ----------
    architecture : EnergyArchitecture
        Shapes.
    """

    def __init__(self, architecture: EnergyArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        widths = [architecture.width * factor for factor in (1, 2, 4, 8, 8)]
        self.enter = spectral_norm(nn.Conv2d(2, widths[0], 3, padding=1))
        inputs = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList([_Block(before, after) for before, after in zip(inputs, widths, strict=True)])
        self.last = _Block(widths[-1], widths[-1], shrink=False)
        self.leave = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Energy of complex images (batch, y, x), shape (batch,)."""
        features = self.enter(torch.stack((images.real, images.imag), 1))
        for block in self.blocks:
            features = block(features)
        energy: Tensor = self.leave(functional.silu(self.last(features)).sum((-2, -1)))
        return energy[:, 0]


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, shrink: bool = True) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = spectral_norm(nn.Conv2d(inputs, outputs, 1)) if inputs != outputs else nn.Identity()
        self.shrink = shrink

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.second(functional.silu(self.first(functional.silu(features))))
        result: Tensor = hidden + self.skip(features)
        return functional.avg_pool2d(result, 2, ceil_mode=True) if self.shrink else result
