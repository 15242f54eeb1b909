"""WKGM: a score model of weighted k-space as a prior, and its data consistency."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from priors.base import Prior
from priors.data_consistency import SenseOperator, replace_samples, sense_proximal
from priors.fourier import fft2c, ifft2c
from priors.hankel import low_rank_projection
from priors.networks import EdmDenoiser, channels_last
from priors.weighting import Weighting


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
        batch_size: int = 16,
        bf16: bool | None = None,
        seed: int = 0,
    ) -> None:
        lowest, highest = sigma_range
        if not 0 < lowest < highest < math.inf:
            raise ValueError(f"prior: sigma range {lowest} to {highest} is not 0 < lowest < highest")
        if batch_size < 1:
            raise ValueError(f"prior: batch size {batch_size}; take one or more")
        self.model = channels_last(model).eval().requires_grad_(False)
        self.weighting = weighting
        self.copies = model.architecture.copies
        # The levels that an array may have are those of the network's channels without the noise of the embedding.
        self.sigma_range = (lowest / math.sqrt(self.copies), highest / math.sqrt(self.copies))
        self.batch_size = batch_size
        self.bf16 = bf16
        self.seed = seed

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
        noisy = image.to(torch.complex64).flatten(0, -3)
        level = level.expand(len(image)).repeat_interleave(len(noisy) // max(len(image), 1))
        parts = [
            self._denoise(*part)
            for part in zip(noisy.split(self.batch_size), level.split(self.batch_size), strict=True)
        ]
        return torch.cat(parts).reshape(image.shape).to(image.dtype)

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
        # Without tile multiplication bfloat16 is slower than float32 on a processor; older torch cannot tell.
        tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
        return device.type == "cpu" and tiles is not None and tiles()


def low_rank_consistency(
    weighting: Weighting, measured: Tensor, mask: Tensor, centre: Tensor, window: int, rank: int
) -> Callable[[Tensor, float], Tensor]:
    r"""Calibrationless data consistency of svd-WKGM: Hankel low rank over the coils, then the measured samples.

    Parameters
    ----------
    weighting : Weighting
        Weighting of the prior.
    measured : Tensor
        Measured k-space, complex, shape (batch, coil, y, x), in the units of the prior.
    mask : Tensor
        Sampling mask (bool), broadcasting to the k-space.
    centre : Tensor
        K-space whose samples are taken where the weight is zero, shape (batch, coil, y, x).
    window, rank : int
        Window and rank of `low_rank_projection`; rank 0 leaves the low rank out (plain WKGM).

    Returns
    -------
    callable
        Maps an estimate of weighted k-space (batch, coil, y, x) and its noise level to one that agrees with the data.

    Notes
    -----
    :math:`k_w \mapsto w \, [P y + (1 - P) \, \mathcal L_r(k_w / w)]` (Tu et al., NMR in Biomedicine 2022).
    """

    def consistent(weighted: Tensor, sigma: float) -> Tensor:
        kspace = weighting.unweight(weighted, centre)
        if rank:
            kspace = low_rank_projection(kspace, window, rank)
        return weighting.weight(replace_samples(kspace, measured, mask))

    return consistent


def sense_consistency(
    weighting: Weighting, operator: SenseOperator, measured: Tensor, weight: float, centre: Tensor, iterations: int = 5
) -> Callable[[Tensor, float], Tensor]:
    r"""Data consistency by the SENSE proximal step with one or more sets of coil maps.

    Parameters
    ----------
    weighting : Weighting
        Weighting of the prior.
    operator : SenseOperator
        Encoding operator A = P E with the maps in E.
    measured : Tensor
        Measured k-space y, complex, shape (batch, coil, y, x), in the units of the prior.
    weight : float
        Weight of the estimate against the data, zero or above.
    centre : Tensor
        K-space whose samples are taken where the weight of k-space is zero, shape (batch, coil, y, x).
    iterations : int
        Conjugate gradient iterations.

    Returns
    -------
    callable
        Maps an estimate of weighted k-space (batch, coil, y, x) and its noise level to one that agrees with the data.

    Notes
    -----
    :math:`k_w \mapsto w E x` with :math:`x = \arg\min_x \|A x - y\|_2^2 + \lambda \|x - E^H(k_w / w)\|_2^2`.
    """

    def consistent(weighted: Tensor, sigma: float) -> Tensor:
        coil_images = ifft2c(weighting.unweight(weighted, centre))
        image = (operator.maps.conj() * coil_images.unsqueeze(1)).sum(2)
        image = sense_proximal(operator, measured, image, weight, iterations)
        return weighting.weight(fft2c((operator.maps * image.unsqueeze(2)).sum(1)))

    return consistent
