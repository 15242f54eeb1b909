"""The choice of the data step by what the coil maps explain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priors.settings import DataStepName
from priors.signal.espirit import calibration_region
from priors.signal.fourier import fft2c, hann, ifft2c

SMALLEST_WEIGHT = 1e-3  # of a coil map: below it there is none
UNEXPLAINED = 0.05  # fraction of the calibration signal from which on coil maps are not used


def choose_consistency(
    wanted: DataStepName, kspace: Tensor, mask: Tensor, maps: Tensor | None, noise: Tensor
) -> tuple[DataStepName, str]:
    """Data step that the settings mean for slices of one scan, and why.

    Parameters
    ----------
    wanted : {"auto", "sense", "low_rank", "replacement"}
        What the settings ask for.
    kspace, mask, maps : Tensor
        As `reconstruct` takes them.
    noise : Tensor
        Noise level of every slice, shape (batch,), in the units of `kspace`.

    Returns
    -------
    (str, str)
        "sense", "low_rank" or "replacement", and the reason.

    Raises
    ------
    ValueError
        If coil maps are asked for and there are none.
    """
    if wanted == "sense" and maps is None:
        raise ValueError("data_consistency is sense, but there are no coil maps")
    if wanted != "auto":
        return wanted, "as asked for"
    if maps is None:
        return "low_rank", "no coil maps"
    left = unexplained_fraction(kspace, mask, maps, noise)
    text = f"coil maps leave {left:.1%} of the calibration signal"
    return ("low_rank", text) if left > UNEXPLAINED else ("sense", text)


def unexplained_fraction(kspace: Tensor, mask: Tensor, maps: Tensor, noise: Tensor) -> float:
    r"""How much of the calibration signal coil maps leave unexplained.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x).
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x).
    maps : Tensor
        Coil maps, complex, shape (batch, set, coil, y, x).
    noise : Tensor
        Standard deviation of the noise of the data in each part, shape (batch,).

    Returns
    -------
    float
        Norm of what is left relative to the norm of the signal, of all slices together; 0 without a fully sampled
        centre.

    Notes
    -----
    :math:`\|(I - S S^+) c\| / \|c\|` with the low-resolution coil images c of the calibration region, less what its
    noise makes.
    """
    left_over, signal = 0.0, 0.0
    for one, sampled, sets, level in zip(kspace, mask, maps, noise.tolist(), strict=True):
        rows, columns = calibration_region(sampled[0].cpu())
        size = min(rows.stop - rows.start, columns.stop - columns.start)
        if size < 8:
            continue
        window = hann(one.shape[-2], size, one.device)[:, None] * hann(one.shape[-1], size, one.device)
        basis, factors = torch.linalg.qr(sets.permute(2, 3, 1, 0))  # (y, x, coil, set)
        # Sets that are cropped to zero explain nothing.
        weights = factors.diagonal(dim1=-2, dim2=-1).abs()
        basis = basis * (weights > SMALLEST_WEIGHT).unsqueeze(-2)
        vectors = ifft2c(one * window).permute(1, 2, 0).unsqueeze(-1)
        left = (vectors - basis @ (basis.mH @ vectors))[..., 0].permute(2, 0, 1)
        # Within the region again: the product of map and blurred image reaches beyond it, which is no fault of the map.
        of_noise = 2 * level**2 * float(window.pow(4).sum())
        directions = len(one) - float((weights > SMALLEST_WEIGHT).sum(-1).float().mean())
        left_over += float((fft2c(left) * window).abs().square().sum()) - of_noise * directions
        signal += float((one * window.square()).abs().square().sum()) - of_noise * len(one)
    return math.sqrt(max(left_over, 0.0) / signal) if signal > 0 else 0.0
