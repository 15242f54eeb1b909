"""Noise level of a scan's k-space: what prewhitening left, where the data agree, else what they say themselves."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from priors.signal.noise import noise_level

log = logging.getLogger("genrecon")

POSITIONS = 16  # readout positions of a volume that the noise level and the data step are taken from

# Prewhitened data have noise of level 1, less for averages. An estimate within this range of it is taken for that; one
# beyond it is that of a scanner's filter, which makes the noise of the outer k-space less.
LIKE_PREWHITENED = (0.75, 1.3)


def measured_noise(kspace: Tensor, mask: Tensor, prewhitened: float) -> float:
    """Noise level of an image or volume in each part.

    Parameters
    ----------
    kspace : complex64 (batch, coil, y, x), in the units of the scan
    mask : bool (batch, 1, y, x), or (1, 1, y, x) for all
    prewhitened : level that NoiseAdjustGadget and averaging left; 0 where nothing was prewhitened

    Returns
    -------
    float
        By prewhitening, else estimated from the data; 0 where that fails.
    """
    try:
        estimate = noise_level(*some_positions(kspace, mask))
    except Exception as error:  # the reconstruction will meet it too
        log.info("traceback", exc_info=error)
        return 0.0
    low, high = LIKE_PREWHITENED
    return prewhitened if low * prewhitened < estimate < high * prewhitened else estimate


def some_positions(kspace: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """K-space and masks of some positions of a volume, all of a slice."""
    return positions(kspace), positions(mask.expand(len(kspace), *mask.shape[1:]))


def positions(array: Tensor) -> Tensor:
    """Some positions of a volume, evenly over it, all of a slice."""
    return array[torch.linspace(0, len(array) - 1, min(len(array), POSITIONS)).round().long()]
