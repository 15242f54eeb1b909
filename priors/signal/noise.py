"""Noise level of undersampled multi-coil k-space, from the data themselves."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from priors.signal.espirit import calibration_region
from priors.signal.fourier import radial_frequency

_RING = 0.05  # width of a ring of k-space in cycles per sample
_MODULUS_QUANTILE = math.sqrt(2 * math.log(2))  # median modulus of complex noise of unit variance in each part
_PATCHES = 1.5  # least number of patches in units of the unknowns of each
_SMALLEST_SHARE = 0.25  # of the eigenvalues are taken as those of noise


def noise_level(kspace: Tensor, mask: Tensor, largest_region: int = 24) -> float:
    r"""Standard deviation of the noise of k-space, in each of the real and imaginary parts.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x).
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x).
    largest_region : int
        Most samples of the calibration region that are looked at, along each axis.

    Returns
    -------
    float
        Median over (at most eight of) the batch, in the units of the k-space; the root mean square over all of k-space
        where a scanner's filter made it uneven; 0 where nothing was measured. With fewer than three coils, or without
        a fully sampled centre, an upper bound: that of the least energetic ring of k-space.

    Notes
    -----
    At the centre of k-space from the smallest eigenvalues of the Gram matrix of the calibration region's patches: the
    coils' redundancy leaves nothing but noise there. White noise of the same shape tells how much smaller than the
    noise variance those are. Further out, where a filter may have made it less, not more than the median of a ring.
    """
    looked_at = torch.linspace(0, len(kspace) - 1, min(len(kspace), 8)).round().long().tolist()
    levels = [_slice_level(kspace[index], mask[index, 0], largest_region) for index in looked_at]
    found = [level for level in levels if level > 0]
    return float(torch.tensor(found).median()) if found else 0.0


def _slice_level(kspace: Tensor, mask: Tensor, largest_region: int) -> float:
    """Noise level of one slice, k-space (coil, y, x) and mask (y, x)."""
    rings = _ring_levels(kspace, mask)
    if not rings:
        return 0.0
    centre = _centre_level(kspace, mask, largest_region)
    if centre is None:
        return min(level for level, _ in rings)
    total = sum(area for _, area in rings)
    return math.sqrt(sum(min(level, centre) ** 2 * area for level, area in rings) / total)


def _ring_levels(kspace: Tensor, mask: Tensor) -> list[tuple[float, int]]:
    """Median noise level that would explain each ring of k-space, and the ring's number of samples."""
    number = (radial_frequency(mask.shape[0], mask.shape[1], mask.device) / _RING).long()
    levels = []
    for ring in range(int(number.max()) + 1):
        inside = number == ring
        samples = kspace[:, inside & mask]
        if samples.shape[1] >= 30:
            levels.append((float(samples.abs().median(1).values.mean()) / _MODULUS_QUANTILE, int(inside.sum())))
        elif levels:
            levels.append((levels[-1][0], int(inside.sum())))
    return levels


def _centre_level(kspace: Tensor, mask: Tensor, largest: int) -> float | None:
    """Noise level of the calibration region; None where there is none or its coils are not redundant."""
    coils = kspace.shape[0]
    rows, columns = (_shortened(part, largest) for part in calibration_region(mask.cpu()))
    calibration = kspace[:, rows, columns]
    height, width = calibration.shape[1:]
    # A window of about 130 unknowns, large enough for redundancy; less where patches are not more than those.
    window = max(2, round(math.sqrt(130 / coils)))
    while window > 1 and (height - window + 1) * (width - window + 1) < _PATCHES * coils * window**2:
        window -= 1
    if coils < 3 or window < 2 or min(height, width) < 2 * window:
        return None
    expected = _expected_share(coils, height, width, window)
    return math.sqrt(_smallest_eigenvalues(calibration, window, _SMALLEST_SHARE) / expected)


def _smallest_eigenvalues(calibration: Tensor, window: int, share: float) -> float:
    """Mean of a share of the eigenvalues of the patches' Gram matrix, a patch, in each of the two parts."""
    patches = calibration.unfold(1, window, 1).unfold(2, window, 1).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    values = torch.linalg.eigvalsh(patches.mH @ patches).clamp_min(0) / (2 * len(patches))
    return float(values[: max(1, round(share * len(values)))].mean())


@lru_cache(maxsize=64)
def _expected_share(coils: int, height: int, width: int, window: int) -> float:
    """What `_smallest_eigenvalues` gives for white noise of unit variance.

    The signal takes about half of the eigenvalues away, so the share is that of the other half.
    """
    generator = torch.Generator().manual_seed(0)
    noise = math.sqrt(2) * torch.randn(coils, height, width, dtype=torch.complex64, generator=generator)
    return _smallest_eigenvalues(noise, window, 2 * _SMALLEST_SHARE)


def _shortened(part: slice, largest: int) -> slice:
    """The middle of a range."""
    spare = max(part.stop - part.start - largest, 0)
    return slice(part.start + spare // 2, part.stop - (spare - spare // 2))
