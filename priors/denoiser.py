"""A prior that is known through a trained denoiser of complex arrays."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from priors.domains import Domain
from priors.learning.networks import bf16_is_fast, channels_last
from priors.prior import Prior, SigmaLevels

if TYPE_CHECKING:
    from typing_extensions import Self


class DenoiserPrior(Prior):
    """Density of arrays of a domain, known through a trained denoiser.

    Parameters
    ----------
    model : nn.Module
        Maps noisy arrays, complex64 (batch, band, y, x), and their noise levels (batch,) to denoised arrays; it is
        switched to evaluation.
    domain : Domain
        Where it works.
    sigma_levels : SigmaLevels
        Noise levels that it was trained with.
    phase_width : int
        Width of the k-space window whose low-resolution phase the images of the training had lost; 0: none.
    typical_gain : tuple of float, optional
        Range of `denoising_gain` of images like those of the training; nothing is said of images without it.
    batch_size : int
        Most arrays that are denoised at a time, to bound memory.
    bf16 : bool, optional
        Evaluate the convolutions in bfloat16; if not given, where the processor multiplies in it.

    Raises
    ------
    ValueError
        If the batch size or the phase width is out of bounds.
    """

    def __init__(
        self,
        model: nn.Module,
        domain: Domain,
        sigma_levels: SigmaLevels,
        *,
        phase_width: int = 0,
        typical_gain: tuple[float, float] | None = None,
        batch_size: int = 16,
        bf16: bool | None = None,
    ) -> None:
        if batch_size < 1 or phase_width < 0:
            raise ValueError(f"prior: batch size {batch_size} and phase width {phase_width}; one or more, zero or more")
        self.model: Any = channels_last(model).eval().requires_grad_(False)
        self.domain = domain
        self.sigma_levels = sigma_levels
        self.phase_width = phase_width
        self.typical_gain = typical_gain
        self.batch_size = batch_size
        self.bf16 = bf16

    def with_model(self, model: nn.Module) -> Self:
        """The same prior with another network of the same architecture and training range."""
        other = copy.copy(self)
        other.model = channels_last(model).eval().requires_grad_(False)
        return other

    def to(self, device: torch.device) -> Self:
        """The prior with its network moved to a device."""
        self.model.to(device)
        return self

    def denoise(self, m: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoised arrays.

        Parameters
        ----------
        m : Tensor
            Complex, shape (batch, ..., y, x), with the bands of the domain before y and x where it has several.
        sigma : float or Tensor
            Noise level in each of the real and imaginary parts: one value or one for each batch entry.

        Returns
        -------
        Tensor
            Array of the shape and type of `m`; it has a gradient where `m` wants one.

        Raises
        ------
        ValueError
            If the array is not complex, has fewer than three axes or does not fit to `sigma`.
        """
        if not m.is_complex() or m.ndim < 3:
            raise ValueError(f"prior: {m.dtype} array of {tuple(m.shape)} is not complex (batch, ..., y, x)")
        level = torch.as_tensor(sigma, dtype=torch.float32, device=m.device).reshape(-1)
        if len(level) not in (1, len(m)):
            raise ValueError(f"sigma: {len(level)} values are neither one nor {len(m)}, one a batch entry")
        noisy = m.to(torch.complex64).reshape(-1, self.domain.bands, *m.shape[-2:])
        level = level.expand(len(m)).repeat_interleave(len(noisy) // max(len(m), 1))
        with torch.set_grad_enabled(m.requires_grad and torch.is_grad_enabled()):
            parts = []
            for part in zip(noisy.split(self.batch_size), level.split(self.batch_size), strict=True):
                with torch.autocast(m.device.type, torch.bfloat16, enabled=self._uses_bf16(m.device)):
                    parts.append(self._estimate(*part))
            return torch.cat(parts).reshape(m.shape).to(m.dtype)

    def _estimate(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Denoised arrays (batch, band, y, x) of one network batch, levels (batch,)."""
        estimate: Tensor = self.model(noisy, sigma)
        return estimate

    def _uses_bf16(self, device: torch.device) -> bool:
        return bf16_is_fast(device) if self.bf16 is None else self.bf16
