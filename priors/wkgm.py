"""WKGM: a score model of weighted k-space as a prior."""

from __future__ import annotations

import copy
import math
import struct
import zlib

import torch
from torch import Tensor

from priors.learning.networks import EdmDenoiser, channels_last
from priors.prior import Prior
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.weighting import Weighting


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
    symmetries : bool
        Look at the image mirrored or turned by quarters, another way at every noise level: the errors of the network
        then average out over the steps of a sampler.

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
        symmetries: bool = True,
    ) -> None:
        lowest, highest = sigma_range
        if not 0 < lowest < highest < math.inf:
            raise ValueError(f"prior: sigma range {lowest} to {highest} is not 0 < lowest < highest")
        if batch_size < 1 or phase_width < 0:
            raise ValueError(f"prior: batch size {batch_size} and phase width {phase_width}; one or more, zero or more")
        self.model = channels_last(model).eval().requires_grad_(False)
        self.weighting = weighting
        self.copies = model.architecture.copies
        # The levels that an array may have are those of the network's channels without the noise of the embedding.
        self.sigma_range = (lowest / math.sqrt(self.copies), highest / math.sqrt(self.copies))
        self.phase_width = phase_width
        self.typical_gain = typical_gain
        self.batch_size = batch_size
        self.bf16 = bf16
        self.seed = seed
        self.symmetries = symmetries

    def with_model(self, model: EdmDenoiser) -> WeightedKspacePrior:
        """The same prior with another network of the same architecture and training range."""
        other = copy.copy(self)
        other.model = channels_last(model).eval().requires_grad_(False)
        return other

    def check_sigmas(self, sigmas: Tensor) -> None:
        """Make sure that the network knows the noise levels of a schedule.

        Parameters
        ----------
        sigmas : Tensor
            Noise levels, any shape.

        Raises
        ------
        ValueError
            If a level is outside the trained range.
        """
        lowest, highest = self.sigma_range
        least, most = float(sigmas.min()), float(sigmas.max())
        if not (0.999 * lowest <= least and most <= 1.001 * highest):
            raise ValueError(
                f"noise levels: {least:.3g} to {most:.3g} leave the range {lowest:.3g} to {highest:.3g} of the prior"
            )

    @torch.no_grad()
    def denoise(self, image: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoised weighted k-space.

        Parameters
        ----------
        image : Tensor
            Weighted k-space, complex, shape (batch, ..., y, x); all axes before (y, x) are single coils.
        sigma : float or Tensor
            Noise level in each of the real and imaginary parts: one value or one for each batch entry.

        Returns
        -------
        Tensor
            Array of the shape and type of `image`.

        Raises
        ------
        ValueError
            If the array is not complex, has fewer than three axes or does not fit to `sigma`.
        """
        if not image.is_complex() or image.ndim < 3:
            raise ValueError(f"prior: {image.dtype} array of {tuple(image.shape)} is not complex (batch, ..., y, x)")
        level = torch.as_tensor(sigma, dtype=torch.float32, device=image.device).reshape(-1)
        if len(level) not in (1, len(image)):
            raise ValueError(f"sigma: {len(level)} values are neither one nor {len(image)}, one a batch entry")
        kind = _symmetry_of(level) if self.symmetries else 0
        noisy = _transformed(image.to(torch.complex64).flatten(0, -3), kind)
        level = level.expand(len(image)).repeat_interleave(len(noisy) // max(len(image), 1))
        parts = [
            self._denoise(*part)
            for part in zip(noisy.split(self.batch_size), level.split(self.batch_size), strict=True)
        ]
        return _transformed(torch.cat(parts), kind, back=True).reshape(image.shape).to(image.dtype)

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
        """White noise of the copies without its mean over them, unit variance in each part, (batch, copies, y, x)."""
        generator = torch.Generator(noisy.device).manual_seed(self.seed)
        shape = (len(noisy), self.copies, *noisy.shape[-2:])
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


def _symmetry_of(level: Tensor) -> int:
    """One of the eight symmetries of a square for a noise level, another one for the next."""
    return zlib.crc32(struct.pack("<f", float(level[0]))) % 8


def _transformed(kspace: Tensor, kind: int, back: bool = False) -> Tensor:
    """K-space (batch, y, x) of images that are turned by quarters and mirrored, or turned back."""
    if not kind:
        return kspace
    image = ifft2c(kspace)
    if kind >= 4 and back:
        image = image.flip(-1)
    image = torch.rot90(image, -(kind % 4) if back else kind % 4, (-2, -1))
    if kind >= 4 and not back:
        image = image.flip(-1)
    return fft2c(image)
