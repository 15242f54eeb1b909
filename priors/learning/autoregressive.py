"""PixelCNN: the density of an image as a product over its pixels, each given those above and to the left."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from priors.learning.networks import check_whole_numbers


@dataclass(frozen=True)
class PixelArchitecture:
    """Shapes of a `PixelNetwork`.

    Parameters
    ----------
    width : int
        Filters; published: 128 to 160.
    blocks : int
        Gated blocks of each of the two scales; published: three scales of three.
    components : int
        Logistic distributions in the mixture of a pixel; published: 10.
    dropout : float
        Fraction of features that training leaves out; published: 0.5.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    width: int = 48
    blocks: int = 4
    components: int = 5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_whole_numbers(self, width=512, blocks=32, components=32)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"architecture: dropout {self.dropout!r} is not 0 to below 1")


class PixelNetwork(nn.Module):
    r"""Two streams of causal convolutions, above and to the left, and a mixture of logistic densities for each pixel.

    Parameters
    ----------
    architecture : PixelArchitecture
        Shapes.

    Notes
    -----
    :math:`\log p(x) = \sum_i \log p(x_i | x_{<i})` with pixels of real and imaginary part, the mean of the imaginary
    one shifted by :math:`\tanh(c)` times the real one (Salimans et al., ICLR 2017; Luo et al., MRM 2020). The
    continuous logistic density, as one of bins has no gradient. Dilated convolutions stand for the coarser scales.
    """

    def __init__(self, architecture: PixelArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        width, count = architecture.width, architecture.components
        self.above = _Causal(2, width, (2, 3), first=True)
        self.left = _Causal(2, width, (1, 2), first=True)
        dilations = [1] * architecture.blocks + [2] * architecture.blocks
        self.above_blocks = nn.ModuleList(
            [_Gated(width, (2, 3), dilation, architecture.dropout) for dilation in dilations]
        )
        self.left_blocks = nn.ModuleList(
            [_Gated(width, (2, 2), dilation, architecture.dropout, width) for dilation in dilations]
        )
        # Of each component: weight, two means, two scales, the coupling of the parts.
        self.leave = nn.Conv2d(width, 6 * count, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Log density of complex images (batch, y, x), shape (batch,)."""
        picture = 10 * torch.stack((images.real, images.imag), 1)  # parts of about 1
        above, left = self.above(picture), self.left(picture)
        left = left + above
        for of_above, of_left in zip(self.above_blocks, self.left_blocks, strict=True):
            above = of_above(above)
            left = of_left(left, above)
        weight, mean_re, mean_im, scale_re, scale_im, coupling = self.leave(functional.elu(left)).chunk(6, 1)
        re, im = picture[:, :1], picture[:, 1:]
        shifted = mean_im + coupling.tanh() * re
        log_p = _log_logistic(re, mean_re, scale_re) + _log_logistic(im, shifted, scale_im)
        mixture = torch.logsumexp(log_p + weight.log_softmax(1), 1)
        return mixture.flatten(1).sum(1) + images[0].numel() * 2 * math.log(10.0)


def _log_logistic(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log density of the logistic distribution, its scale at least exp(-5)."""
    log_scale = log_scale.clamp_min(-5.0)
    z = (x - mean) * (-log_scale).exp()
    return -z - log_scale - 2 * functional.softplus(-z)


class _Causal(nn.Module):
    """Convolution over rows above and, in kernels of even width, columns to the left; `first`: not the pixel itself."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], dilation: int = 1, first: bool = False
    ) -> None:
        super().__init__()
        rows, columns = kernel
        self.conv = nn.Conv2d(inputs, outputs, kernel, dilation=dilation)
        right = dilation * (columns // 2) if columns % 2 else 0
        left = dilation * (columns - 1) - right
        top = dilation * (rows - 1)
        self.padding = (left, right, top, 0)
        # The stream from above sees whole rows above; that from the left sees its own row before the pixel.
        self.shift = (0, 0, 1, 0) if first and columns % 2 else (1, 0, 0, 0) if first else None

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        if self.shift is not None:
            features = functional.pad(features, self.shift)[..., :height, :width]
        result: Tensor = self.conv(functional.pad(features, self.padding))
        return result


class _Gated(nn.Module):
    """Residual block with a gate."""

    def __init__(self, width: int, kernel: tuple[int, int], dilation: int, dropout: float, other: int = 0) -> None:
        super().__init__()
        self.first = _Causal(width, width, kernel, dilation)
        self.other = nn.Conv2d(other, width, 1) if other else None
        self.dropout = nn.Dropout2d(dropout)
        self.second = _Causal(width, 2 * width, kernel, dilation)
        nn.init.zeros_(self.second.conv.weight)

    def forward(self, features: Tensor, other: Tensor | None = None) -> Tensor:
        hidden = self.first(functional.elu(features))
        if self.other is not None and other is not None:
            hidden = hidden + self.other(functional.elu(other))
        a, b = self.second(self.dropout(functional.elu(hidden))).chunk(2, 1)
        return features + a * b.sigmoid()
