"""Convolutional denoisers of one noise level, as the published systems of this line have them, in small."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

NetworkName = Literal["red_net", "dn_cnn", "mwcnn"]


@dataclass(frozen=True)
class ConvolutionalArchitecture:
    """Shapes of a convolutional denoiser.

    Parameters
    ----------
    network : {"red_net", "dn_cnn", "mwcnn"}
        Encoder-decoder with skips (Mao et al., NeurIPS 2016), plain residual stack (Zhang et al., IEEE TIP 2017), or
        multi-level wavelet CNN (Liu et al., CVPR Workshops 2018).
    channels : int
        Real channels in and out.
    layers : int
        Convolutions; of `mwcnn` those of each scale on the way down and again on the way up.
    width : int
        Filters of a layer.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    network: NetworkName
    channels: int
    layers: int
    width: int

    def __post_init__(self) -> None:
        if self.network not in get_args(NetworkName):
            raise ValueError(f"architecture: unknown network {self.network!r}")
        for name, least, most in (("channels", 1, 64), ("layers", 2, 64), ("width", 1, 512)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"architecture: {name} {value!r} is not a whole number from {least} to {most}")
        if self.network == "red_net" and self.layers % 4:
            raise ValueError(f"architecture: a red_net of {self.layers} layers has no skips; take a multiple of 4")


def convolutional_network(architecture: ConvolutionalArchitecture) -> nn.Module:
    """Network of an architecture: real (batch, channel, y, x) to the same shape; any size."""
    kinds: dict[str, type[nn.Module]] = {"red_net": RedNet, "dn_cnn": DnCnn, "mwcnn": MultiLevelWaveletCnn}
    return kinds[architecture.network](architecture)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="circular")


class RedNet(nn.Module):
    """Convolutions, then as many deconvolutions; every second deconvolution adds the features it mirrors."""

    def __init__(self, architecture: ConvolutionalArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels, width, half = architecture.channels, architecture.width, architecture.layers // 2
        self.encoder = nn.ModuleList([_conv(channels if index == 0 else width, width) for index in range(half)])
        # With stride 1 a deconvolution is a convolution.
        self.decoder = nn.ModuleList([_conv(width, channels if index == half - 1 else width) for index in range(half)])

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoised arrays."""
        features, kept = noisy, []
        for index, layer in enumerate(self.encoder):
            features = functional.relu(layer(features))
            if index % 2:
                kept.append(features)
        kept.pop()  # the innermost features are what the decoder begins with
        for index, layer in enumerate(self.decoder):
            features = layer(features)
            if index % 2 and kept:
                features = features + kept.pop()
            if index < len(self.decoder) - 1:
                features = functional.relu(features)
        return noisy + features


class DnCnn(nn.Module):
    """A stack of convolutions that finds the noise, which is taken away."""

    def __init__(self, architecture: ConvolutionalArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels, width, layers = architecture.channels, architecture.width, architecture.layers
        stack: list[nn.Module] = [_conv(channels, width), nn.ReLU()]
        for _ in range(layers - 2):
            stack += [_conv(width, width), nn.GroupNorm(8 if width % 8 == 0 else 1, width), nn.ReLU()]
        self.layers = nn.Sequential(*stack, _conv(width, channels))

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoised arrays."""
        denoised: Tensor = noisy - self.layers(noisy)
        return denoised


class MultiLevelWaveletCnn(nn.Module):
    """A U-Net of two scales whose pooling is the Haar transform, so that nothing is lost in it."""

    def __init__(self, architecture: ConvolutionalArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels, width, layers = architecture.channels, architecture.width, architecture.layers

        def stack(inputs: int, outputs: int) -> nn.Sequential:
            widths = [inputs, *[width] * (layers - 1), outputs]
            parts = [_conv(before, after) for before, after in pairwise(widths)]
            active = [module for conv in parts[:-1] for module in (conv, nn.ReLU())]
            return nn.Sequential(*active, parts[-1])

        self.down_1, self.down_2 = stack(4 * channels, width), stack(4 * width, width)
        self.up_2, self.up_1 = stack(width, 4 * width), stack(width, 4 * channels)

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoised arrays."""
        height, width = noisy.shape[-2:]
        padded = functional.pad(noisy, (0, -width % 4, 0, -height % 4), mode="circular")
        first = functional.relu(self.down_1(haar_bands(padded)))
        second = functional.relu(self.down_2(haar_bands(first)))
        first = functional.relu(first + from_haar_bands(self.up_2(second)))
        denoised = padded - from_haar_bands(self.up_1(first))
        return denoised[..., :height, :width]


def haar_bands(array: Tensor) -> Tensor:
    """Orthonormal decimated Haar transform, (batch, channel, 2 y, 2 x) to (batch, 4 channel, y, x)."""
    a, b = array[..., ::2, ::2], array[..., ::2, 1::2]
    c, d = array[..., 1::2, ::2], array[..., 1::2, 1::2]
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2


def from_haar_bands(bands: Tensor) -> Tensor:
    """Inverse of `haar_bands`."""
    average, across, down, diagonal = bands.chunk(4, 1)
    top = torch.stack([average + across + down + diagonal, average - across + down - diagonal], -1).flatten(-2)
    bottom = torch.stack([average + across - down - diagonal, average - across - down + diagonal], -1).flatten(-2)
    return torch.stack([top, bottom], -2).flatten(-3, -2) / 2
