"""Variation of training images: symmetries, contrast, phase, shading, resolution, crops."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from priors.signal.fourier import fft2c, ifft2c, low_resolution_phase, radial_frequency
from priors.signal.weighting import Weighting


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; a value of zero leaves a variation out.

    Parameters
    ----------
    flips_and_turns : bool
        Mirror images and quarter turns.
    affine : float
        Fraction of the images that are turned by any angle and magnified.
    zoom : tuple of float
        Range of the magnification.
    scale : tuple of float
        Range of a random factor.
    smooth_phase : float
        Largest coefficient, in radians, of a random smooth phase, as coils and field inhomogeneity make it, on top of
        a random phase of the whole image.
    detailed_phase : float
        Largest standard deviation, in radians, of a phase with fine detail that images without one of their own
        (magnitudes, photographs) get: half of it differs from tissue to tissue, half of it is a random field.
    removed_phase : float
        Fraction of the images whose low-resolution phase is taken away, as the reconstruction does
        (`phase_width`); the others keep it, so that the network knows images whose phase is not known.
    shading : float
        Strength of a random smooth magnitude, as the sensitivity of a coil is: the exponent of its logarithm.
    contrast : float
        Fraction of the images whose magnitudes go through a random curve, so that other contrasts are seen.
    resolution : float
        Fraction of the images whose k-space is apodised, as scanners do to images of fewer samples than pixels.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    flips_and_turns: bool = True
    affine: float = 0.5
    zoom: tuple[float, float] = (0.8, 1.25)
    scale: tuple[float, float] = (0.3, 1.2)
    smooth_phase: float = 2.0
    detailed_phase: float = 0.2
    removed_phase: float = 0.75
    shading: float = 1.0
    contrast: float = 0.5
    resolution: float = 0.4

    def __post_init__(self) -> None:
        for name in ("zoom", "scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise ValueError(f"augmentation: {name} {low} to {high} is not a range of finite numbers above zero")
        for name in ("affine", "smooth_phase", "detailed_phase", "removed_phase", "shading", "contrast", "resolution"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"augmentation: {name} {getattr(self, name)} is not a finite number, zero or more")


def augmented_batch(
    images: Tensor,
    weighting: Weighting,
    augmentation: Augmentation,
    batch: int,
    crop: int,
    generator: torch.Generator,
    phase_width: int = 0,
    crops_of_each: int = 1,
) -> Tensor:
    """Random batch of varied, cropped, weighted k-space.

    Parameters
    ----------
    images : Tensor
        Complex images with maximum 1, shape (slice, y, x).
    weighting : Weighting
        Weighting of k-space.
    augmentation : Augmentation
        Variation of the images.
    batch : int
        Number of arrays.
    crop : int
        Width and height of the crops.
    generator : torch.Generator
        Source of randomness, on the CPU wherever the images are: the same batch on every device, and no wait for one.
    phase_width : int
        Width of the window whose low-resolution phase is taken away, see `low_resolution_phase`; 0: never.
    crops_of_each : int
        Crops of each varied image: varying a whole image takes longer than a step on a small crop of it.

    Returns
    -------
    Tensor
        Weighted k-space, complex64, shape (batch, y, x).

    Notes
    -----
    The weighted image is cropped, not the image: the edge of a crop then makes no steep edge in the weighted data.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(shape, generator=generator)).to(images.device)

    def chosen(fraction: float) -> Tensor:
        return uniform(0, 1, count, 1, 1) < fraction

    count = -(-batch // crops_of_each)
    height, width = images.shape[-2:]
    varied = images[torch.randint(len(images), (count,), generator=generator).to(images.device)]
    if augmentation.affine:
        turned = _turn_and_zoom(varied, uniform(0, 2 * math.pi, count), uniform(*augmentation.zoom, count))
        varied = torch.where(chosen(augmentation.affine), turned, varied)
    if augmentation.contrast:
        curved = _contrast(varied, uniform(0.15, 1, count, 4))
        varied = torch.where(chosen(augmentation.contrast), curved, varied)
    if augmentation.shading:
        field = _smooth_field(uniform(-1, 1, count, 3, 3), height, width)
        # A coil sees no more than the full signal.
        varied = varied * (augmentation.shading * (field - field.amax((-2, -1), keepdim=True))).exp()
    if augmentation.detailed_phase:
        varied = with_detailed_phase(varied, augmentation.detailed_phase, generator)
    if augmentation.smooth_phase:
        phase = augmentation.smooth_phase * _smooth_field(uniform(-1, 1, count, 3, 3), height, width)
        phase = phase + uniform(0, 2 * math.pi, count, 1, 1)
        varied = varied * torch.polar(torch.ones_like(phase), phase)
    kspace = fft2c(varied * uniform(*augmentation.scale, count, 1, 1))
    if augmentation.resolution:
        filtered = kspace * _apodisation(uniform(0.3, 0.7, count, 1, 1), uniform(0.05, 0.6, count, 1, 1), height, width)
        kspace = torch.where(chosen(augmentation.resolution), filtered, kspace)
    if phase_width and augmentation.removed_phase:
        real = fft2c(ifft2c(kspace) * low_resolution_phase(kspace, phase_width).conj())
        kspace = torch.where(chosen(augmentation.removed_phase), real, kspace)
    weighted = ifft2c(weighting.weight(kspace))
    rows = torch.randint(max(height - crop, 0) + 1, (batch,), generator=generator).tolist()
    columns = torch.randint(max(width - crop, 0) + 1, (batch,), generator=generator).tolist()
    places = enumerate(zip(rows, columns, strict=True))
    crops = [weighted[number // crops_of_each, y : y + crop, x : x + crop] for number, (y, x) in places]
    if augmentation.flips_and_turns:
        kinds = torch.randint(8, (batch,), generator=generator).tolist()
        crops = [_flip_and_turn(one, kind) for one, kind in zip(crops, kinds, strict=True)]
    return fft2c(torch.stack(crops))


def with_detailed_phase(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Images of which those without a phase of their own (magnitudes) have got one, see `Augmentation`.

    Parameters
    ----------
    images : Tensor
        Complex images of maximum 1, shape (batch, y, x).
    strength : float
        Largest standard deviation of the phase, in radians.
    generator : torch.Generator
        Source of randomness, on the CPU.
    """
    alone = (images.imag == 0).all(-1, keepdim=True).all(-2, keepdim=True)
    if not bool(alone.any()):
        return images
    knots = (2 * torch.rand((len(images), 5), generator=generator) - 1).to(images.device)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    tissue, rough = (strength * torch.rand((2, len(images), 1, 1), generator=generator)).to(images.device)
    phase = tissue * (_curve(images.abs(), knots) - knots[:, :1, None]) + rough * _rough_field(noise)
    return torch.where(alone, images * torch.polar(torch.ones_like(phase), phase), images)


def _turn_and_zoom(images: Tensor, angle: Tensor, zoom: Tensor) -> Tensor:
    """Images (batch, y, x) turned and magnified about their centres (batch,), empty where nothing was."""
    height, width = images.shape[-2:]
    cosine, sine, zero = angle.cos() / zoom, angle.sin() / zoom, torch.zeros_like(angle)
    rows = (cosine, -sine * height / width, zero, sine * width / height, cosine, zero)
    planes = torch.stack((images.real, images.imag), 1)
    grid = functional.affine_grid(torch.stack(rows, 1).reshape(-1, 2, 3), list(planes.shape), align_corners=False)
    turned = functional.grid_sample(planes, grid, mode="bicubic", align_corners=False)
    return torch.complex(turned[:, 0], turned[:, 1])


def _apodisation(edge: Tensor, roll_off: Tensor, height: int, width: int) -> Tensor:
    """Radial low-pass filters (batch, y, x): half at `edge` cycles per sample, falling over `roll_off` by a cosine."""
    position = (radial_frequency(height, width, edge.device) - edge) / roll_off + 0.5
    return 0.5 * (1 + (math.pi * position.clamp(0, 1)).cos())


def _rough_field(noise: Tensor) -> Tensor:
    """Random fields (batch, y, x) of standard deviation 1, their amplitude falling with the frequency, of white noise.

    Four cycles along the image and less are all as strong; beyond, the amplitude falls with the power 1.5.
    """
    height, width = noise.shape[-2:]
    y, x = torch.fft.fftfreq(height) * height, torch.fft.fftfreq(width) * width
    cycles = (y[:, None].square() + x.square()).sqrt().to(noise.device)
    field = torch.fft.ifft2(torch.fft.fft2(noise) * (1 + cycles / 4) ** -1.5).real
    return field / field.std((-2, -1), keepdim=True).clamp_min(1e-12)


def _contrast(images: Tensor, heights: Tensor) -> Tensor:
    """Images whose magnitudes (maximum 1) went through lines from 0 through equally spaced heights (batch, knot)."""
    magnitude = images.abs()
    curve = _curve(magnitude, torch.cat((torch.zeros_like(heights[:, :1]), heights), dim=1))
    return images * (curve / magnitude.clamp_min(1e-6))


def _curve(magnitude: Tensor, knots: Tensor) -> Tensor:
    """Values (batch, y, x) of lines through equally spaced knots (batch, knot), at magnitudes 0 to 1."""
    last = knots.shape[1] - 1
    place = magnitude.clamp(max=1).flatten(1) * last
    left = place.floor().long().clamp(max=last - 1)
    return torch.lerp(knots.gather(1, left), knots.gather(1, left + 1), place - left).reshape(magnitude.shape)


def _smooth_field(coefficients: Tensor, height: int, width: int) -> Tensor:
    """Sums of the products of Legendre polynomials along y and x, (batch, 3, 3) to (batch, y, x), about -1 to 1."""

    def polynomials(size: int) -> Tensor:
        u = torch.linspace(-1, 1, size, device=coefficients.device)
        return torch.stack((torch.ones_like(u), u, 1.5 * u.square() - 0.5))

    return polynomials(height).T @ coefficients @ polynomials(width) / 2


def _flip_and_turn(image: Tensor, kind: int) -> Tensor:
    """One of the eight symmetries of a square; pictures that are not square keep their shape."""
    turns = kind % 4 if image.shape[0] == image.shape[1] else 2 * (kind % 2)
    image = torch.rot90(image, turns, (0, 1))
    return image.flip(0) if kind >= 4 else image
