"""One pixel scale for all images of a scan, so that clients that read no slope see them on one scale, too."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from gadgets.outputs import INTENSITY_OFFSET, MAGNITUDE, STANDARD_DEVIATION, Output

log = logging.getLogger("genrecon")

FULL_SCALE = 32000.0  # pixel values above this are kept out of, they would be cut on their way to 16 bit
FEWEST_LEVELS = 64.0  # pixel value of the brightest pixel, below which 16 bit show little or nothing of an image
FEW_LEVELS = "few levels"  # key of the warning of it
MOST_WITHOUT_SIGNAL = 16  # images of noise that wait for one with signal
QUANTITIES = "quantities are"  # of fixed scale
CENTRE = 5  # samples of the centre of k-space along each axis
SIGNAL = 8.0  # mean energy there over the median of all samples: 1 to 2 for noise, hundreds for an object


class PixelScale:
    """What the images of a scan are multiplied by.

    In a stream it is taken from the first image that holds signal: its 99.9th percentile gets the value `intensity`,
    which leaves room for images 16 times as bright. Images of noise that come before wait for it. An image that does
    not fit has its scale halved until it does, with a warning.

    Parameters
    ----------
    name : of the gadget, for warnings
    intensity : pixel value of the 99.9th percentile; 0 leaves intensities alone
    given : the scale, where it is known before; 0 if not
    offset : value of zero in signed images: they are held between 0 and twice this
    """

    def __init__(self, name: str, intensity: float, given: float, offset: int = INTENSITY_OFFSET) -> None:
        self._signed_limit = FULL_SCALE * offset / INTENSITY_OFFSET / 2
        self._name = name
        self._intensity = intensity
        self._scale: float | None = given or None if intensity else 1.0
        self._warned = {FEW_LEVELS} if given and not intensity else set[str]()  # both given: values are to stay

    @property
    def known(self) -> bool:
        """Whether the scan has its scale."""
        return self._scale is not None

    def take(self, images: Tensor) -> None:
        """Take the scale from the magnitude of images that are not all zero."""
        magnitude = images.abs().flatten()
        rank = max(1, round(0.999 * magnitude.numel()))
        level = float(magnitude.kthvalue(rank).values)
        if level:
            self._scale = self._intensity / level

    def of(self, pixels: Tensor, output: Output = MAGNITUDE) -> float:
        """The scale of the pixels of an output; the scan's for images, unless 16 bit cannot hold them at that."""
        limit = self._signed_limit if output.signed else FULL_SCALE
        if output.scaling == "fixed":
            return self._held(pixels, output.gain, QUANTITIES, limit)
        if output is STANDARD_DEVIATION:
            return self._held(pixels, output.gain * (self._scale or 1.0), "standard deviations are", limit)
        if not self._intensity:
            self._warn_of_few_levels(pixels)
            return 1.0
        if self._scale is None:
            self.take(pixels)
        if self._scale is None:
            return 1.0
        if output.scaling == "angle":
            return self._scale
        what = f"{output.name} images are" if output.signed else "an image is"
        return self._held(pixels, output.gain * self._scale, what, limit)

    def _held(self, images: Tensor, scale: float, what: str, limit: float) -> float:
        """The scale, halved until the magnitude of the images times it is below a limit."""
        peak = float(images.abs().max()) * scale
        halvings = max(0, math.ceil(math.log2(peak / limit))) if peak else 0
        if halvings and self._scale is not None and what not in self._warned:
            self._warned.add(what)
            advice = f"; set property pixel_scale to {self._scale / 2**halvings:.2g} for one scale"
            log.warning(
                "%s: %s too bright for their pixel scale and stored on a smaller one (see RescaleSlope)%s",
                self._name,
                what,
                "" if what == QUANTITIES else advice,
            )
        return scale / 2**halvings

    def _warn_of_few_levels(self, images: Tensor) -> None:
        peak = float(images.abs().max())
        if 0 < peak < FEWEST_LEVELS and FEW_LEVELS not in self._warned:
            self._warned.add(FEW_LEVELS)
            log.warning(
                "%s: with intensity=0 the brightest pixel of an image has the value %.2g, of which whole numbers keep "
                "little; leave property intensity out",
                self._name,
                peak,
            )


def has_signal(kspace: Tensor, mask: Tensor) -> bool:
    """Whether k-space holds an object, not only noise: its centre has far more energy than most of its samples.

    Parameters
    ----------
    kspace : complex (batch, coil, y, x)
    mask : bool (batch or 1, y, x), which samples were measured
    """
    energy = kspace.abs().square().sum(dim=(0, 1))
    measured = mask.any(0)
    middle = [slice(max(n // 2 - CENTRE // 2, 0), n // 2 + CENTRE // 2 + 1) for n in energy.shape]
    centre = energy[middle[0], middle[1]][measured[middle[0], middle[1]]]
    if not len(centre):
        return bool(energy.any())
    return bool(centre.mean() > SIGNAL * torch.median(energy[measured]))
