"""Noise-conditional networks and the preconditioning that makes denoisers of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from priors.signal.fourier import fft2c, ifft2c

Network = TypeVar("Network", bound=nn.Module)
Parameterisation = Literal["kspace", "image", "fourier_conjugate"]


def check_whole_numbers(architecture: Any, **highest: int) -> None:
    """Raise ValueError where a field of an architecture is no whole number from 1 to its highest."""
    for name, most in highest.items():
        value = getattr(architecture, name)
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"architecture: {name} {value!r} is not a whole number from 1 to {most}")


@dataclass(frozen=True)
class Architecture:
    """Everything that decides the shapes and the meaning of the weights of an `EdmDenoiser`.

    Parameters
    ----------
    base_channels : int
        Channels of the finest level, a multiple of `groups`.
    multipliers : tuple of int
        Channels of every level, finest first, in units of `base_channels`.
    blocks : int
        Residual blocks a level on the way down and again on the way up.
    groups : int
        Groups of every group normalisation.
    copies : int
        Complex input channels: 1, or 3 for the published high-dimensional embedding.
    parameterisation : {"fourier_conjugate", "kspace", "image"}
        Where the network looks: at the inverse Fourier transform of its input, or at the input itself, k-space or
        image.
    sigma_data : float
        Standard deviation of the noise-free data in each of the real and imaginary parts.
    shuffle : int
        Width of the squares of pixels that become channels where the picture enters; 1: none. With 2 the finest level
        has a quarter of the pixels, and an evaluation takes about a quarter of the time.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    base_channels: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    blocks: int = 1
    groups: int = 8
    copies: int = 1
    parameterisation: Parameterisation = "fourier_conjugate"
    sigma_data: float = 0.03
    shuffle: int = field(default=1, metadata={"missing_in_old_cards": True})

    def __post_init__(self) -> None:
        check_whole_numbers(self, base_channels=512, blocks=8, groups=512, copies=16, shuffle=4)
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        if not 1 <= len(self.multipliers) <= 7 or any(type(m) is not int or not 1 <= m <= 16 for m in self.multipliers):
            raise ValueError(f"architecture: multipliers {self.multipliers} are not 1 to 7 whole numbers from 1 to 16")
        if self.base_channels % self.groups:
            raise ValueError(f"architecture: base_channels {self.base_channels} is no multiple of groups {self.groups}")
        if self.parameterisation not in get_args(Parameterisation):
            raise ValueError(f"architecture: unknown parameterisation {self.parameterisation!r}")
        if not isinstance(self.sigma_data, (int, float)) or not 0 < self.sigma_data < math.inf:
            raise ValueError(f"architecture: sigma_data {self.sigma_data!r} is not above zero")


class NoiseEmbedding(nn.Module):
    """Sinusoids of the logarithm of the noise level, then two linear layers.

    Parameters
    ----------
    channels : int
        Width of the embedding, even.
    """

    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # c_noise = ln(sigma) / 4 spans about 2: periods from 4 down to 1/8 tell any two levels apart.
        octaves = torch.linspace(-2, 3, channels // 2)
        self.register_buffer("frequencies", 2 * math.pi * 2**octaves, persistent=False)
        self.layers = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU())

    def forward(self, noise: Tensor) -> Tensor:
        """Embedding of c_noise of shape (batch,), shape (batch, channels)."""
        angle = noise[:, None] * self.frequencies
        embedding: Tensor = self.layers(torch.cat((angle.cos(), angle.sin()), dim=1))
        return embedding


class ResidualBlock(nn.Module):
    """Two convolutions with group normalisation, the second one scaled and shifted by the noise embedding.

    Parameters
    ----------
    inputs, outputs : int
        Channels in and out.
    embedding : int
        Width of the noise embedding.
    groups : int
        Groups of the normalisations.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.norm_out = nn.GroupNorm(groups, outputs)
        self.conv_out = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        # A block begins as its skip connection.
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Features of the same size with `outputs` channels."""
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = self.conv_in(functional.silu(self.norm_in(features), inplace=True))
        hidden = functional.silu(torch.addcmul(shift, self.norm_out(hidden), 1 + scale), inplace=True)
        result: Tensor = self.conv_out(hidden).add_(self.skip(features))
        return result


class NoiseConditionedUNet(nn.Module):
    """Compact noise-conditional U-Net in the line of NCSN++, for pictures of any size.

    Parameters
    ----------
    architecture : Architecture
        Channels, levels and blocks.

    Notes
    -----
    Residual blocks with the noise embedding as scale and shift (Song et al., ICLR 2021). Sizes that the levels do not
    divide are continued periodically, as pictures of a discrete Fourier transform are. Squares of pixels as channels
    at the entrance: Zhang et al., FFDNet, IEEE TIP 2018; Shi et al., CVPR 2016.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        base, groups = architecture.base_channels, architecture.groups
        widths = [base * multiplier for multiplier in architecture.multipliers]
        self.shuffle = architecture.shuffle
        embedding, picture = 4 * base, 2 * architecture.copies * self.shuffle**2
        self.multiple = self.shuffle * 2 ** (len(widths) - 1)
        self.embedding = NoiseEmbedding(embedding)
        self.enter = nn.Conv2d(picture, base, 3, padding=1)
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList([nn.Conv2d(w, w, 3, stride=2, padding=1) for w in widths[:-1]])
        self.up = nn.ModuleList()
        self.enlarge = nn.ModuleList([nn.Conv2d(low, high, 3, padding=1) for high, low in pairwise(widths)])
        for level, width in enumerate(widths):
            before = widths[max(level - 1, 0)]
            inputs = [before] + [width] * (architecture.blocks - 1)
            self.down.append(nn.ModuleList(ResidualBlock(n, width, embedding, groups) for n in inputs))
            inputs = [2 * width if level < len(widths) - 1 else width] + [width] * (architecture.blocks - 1)
            self.up.append(nn.ModuleList(ResidualBlock(n, width, embedding, groups) for n in inputs))
        self.norm = nn.GroupNorm(groups, base)
        self.leave = nn.Conv2d(base, picture, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, picture: Tensor, noise: Tensor) -> Tensor:
        """Picture of the shape of the input.

        Parameters
        ----------
        picture : Tensor
            Real, shape (batch, 2 * copies, y, x).
        noise : Tensor
            Noise condition c_noise, shape (batch,).

        Returns
        -------
        Tensor
            Real, shape (batch, 2 * copies, y, x).
        """
        height, width = picture.shape[-2:]
        embedding = self.embedding(noise)
        whole = _continue_periodically(picture, self.multiple)
        features = self.enter(functional.pixel_unshuffle(whole, self.shuffle))
        kept = []
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                features = block(features, embedding)
            if level < len(self.shrink):
                kept.append(features)
                features = self.shrink[level](features)
        for level in reversed(range(len(self.up))):
            if level < len(self.enlarge):
                features = self.enlarge[level](functional.interpolate(features, scale_factor=2.0, mode="nearest"))
                features = torch.cat((features, kept.pop()), dim=1)
            for block in self.up[level]:  # type: ignore[attr-defined]
                features = block(features, embedding)
        result: Tensor = self.leave(functional.silu(self.norm(features), inplace=True))
        return functional.pixel_shuffle(result, self.shuffle)[..., :height, :width]


class EdmDenoiser(nn.Module):
    r"""Denoiser of complex arrays: a U-Net with the preconditioning of EDM.

    Parameters
    ----------
    architecture : Architecture
        Shapes and meaning of the weights.

    Notes
    -----
    :math:`D(m, \sigma) = c_\mathrm{skip} m + c_\mathrm{out} F_\theta(c_\mathrm{in} m, \tfrac14 \ln \sigma)` with
    :math:`c_\mathrm{skip} = \sigma_d^2 / (\sigma^2 + \sigma_d^2)`, :math:`c_\mathrm{out} = \sigma \sigma_d /
    \sqrt{\sigma^2 + \sigma_d^2}`, :math:`c_\mathrm{in} = 1 / \sqrt{\sigma^2 + \sigma_d^2}` (Karras et al., NeurIPS
    2022, table 1). In the parameterisation `fourier_conjugate` the U-Net stands between an inverse and a forward
    orthonormal Fourier transform, which keep white noise white.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.network = NoiseConditionedUNet(architecture)

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Denoised arrays.

        Parameters
        ----------
        noisy : Tensor
            complex64, shape (batch, copies, y, x).
        sigma : Tensor
            Noise level in each of the real and imaginary parts, float32, shape (batch,).

        Returns
        -------
        Tensor
            complex64, shape (batch, copies, y, x).
        """
        c_skip, c_out, c_in = self.preconditioning(sigma)
        conjugated = self.architecture.parameterisation == "fourier_conjugate"
        picture = ifft2c(noisy) if conjugated else noisy
        channels = torch.view_as_real(picture * c_in).movedim(-1, 2).flatten(1, 2)
        output = self.network(channels, sigma.log() / 4).float()
        planes = output.unflatten(1, (-1, 2))
        estimate = torch.complex(planes[:, :, 0], planes[:, :, 1])
        return c_skip * noisy + c_out * (fft2c(estimate) if conjugated else estimate)

    def preconditioning(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factors c_skip, c_out and c_in of noise levels (batch,), each of shape (batch, 1, 1, 1)."""
        level, data = sigma.reshape(-1, 1, 1, 1), self.architecture.sigma_data
        total = level.square() + data**2
        return data**2 / total, level * data / total.sqrt(), 1 / total.sqrt()


def compute_device(name: str) -> torch.device:
    """Device to compute on.

    Parameters
    ----------
    name : str
        "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(f"{device.type} is not supported")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"device {name!r} is not there ({reason}); give auto, cpu or cuda") from None
    return device


def bf16_is_fast(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16.

    Without them convolutions in bfloat16 take ten times as long as in float32 on a processor. Versions of torch that
    cannot tell count as without.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    tests = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
    return device.type == "cpu" and any(test is not None and test() for test in tests)


def channels_last(model: Network) -> Network:
    """The same model with its convolution weights, and so all that it computes, channels last in memory.

    Fastest for bfloat16 and on a GPU; on a processor in float32 the gradients of convolutions take twice as long.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def _continue_periodically(picture: Tensor, multiple: int) -> Tensor:
    """Picture continued to the next multiple along y and x; a copy only where it is needed."""
    for axis in (-2, -1):
        size = picture.shape[axis]
        if size % multiple:
            index = torch.arange(-(-size // multiple) * multiple, device=picture.device) % size
            picture = picture.index_select(axis, index)
    return picture
