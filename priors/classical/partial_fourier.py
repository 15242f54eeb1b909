"""Partial Fourier: the missing side of k-space from the acquired one, by the phase that its symmetric centre knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from priors.signal.coverage import Acquired, missing_samples, partial_axes
from priors.signal.fourier import fft2c, hann, ifft2c

PartialFourierName = Literal["pocs", "homodyne"]

FEWEST = 4  # samples from the centre to the near end that a phase can be found from
ITERATIONS = 12  # of POCS; 10 and 15 differ by 0.03 dB
INNER = 0.5  # of the symmetric centre, which hardly differs from the image that the phase comes from
SMOOTHING = 1.0  # standard deviation of a neighbourhood in pixels of the symmetric centre's resolution
BACKGROUND = 1e-3  # of the mean energy of details: less is no evidence for a phase
CHANCE = 0.15  # trust that noise alone has in a pixel: 0.07 in the mean, 0.09 its standard deviation
RING_WIDTH = 0.02  # of k-space in cycles per sample, in which the energy of signal and noise is averaged


def partial_fourier(
    images: Tensor, acquired: Sequence[Acquired], method: PartialFourierName = "pocs", noise: float | Tensor = 0.0
) -> tuple[Tensor, Tensor]:
    r"""Fill in missing k-space of images by conjugate symmetry, as far as measured samples speak for it.

    Parameters
    ----------
    images : Tensor
        Complex images, shape (batch, ...), combined over coils; where nothing was acquired their k-space is zero, or
        what a prior made of it.
    acquired : sequence of Acquired
        Acquired part of k-space along each of the last axes, all of them but the batch or fewer.
    method : {"pocs", "homodyne"}
        Estimate of the missing samples, see `pocs` and `homodyne`.
    noise : float or Tensor
        Standard deviation of the noise of k-space in each part, of all images or of each, shape (batch,); 0: none.

    Returns
    -------
    (Tensor, Tensor)
        Images, and the trust in the symmetry of each (mean over the image, weighted by the energy of its details),
        shape (batch,).

    Raises
    ------
    ValueError
        If the axes do not fit, none has missing samples, the centre is too narrow for a phase, or homodyne is asked for
        along more than one axis.

    Notes
    -----
    :math:`x = x_0 + P_M c\,(a - m)` on the samples M that were not acquired, with what the images have there, m, and
    :math:`a = P_M w \hat x`: the estimate of a method, times Wiener's weight w, the share of the signal in a ring of
    k-space (samples that mirror nothing but noise are worth less than zeros). The weight

    .. math:: c = (\gamma \langle |a|^2 \rangle - \mathrm{Re} \langle \bar m a \rangle) / \langle |a - m|^2 \rangle

    of each pixel, from 0 to 1, means over its neighbourhood, has the smallest squared error of all, for the trust
    :math:`\gamma` that `symmetry` measures, and m that is zero (then c is the trust) or the mean of a posterior. So the
    image is not worse than before where the phase changes within a pixel of the symmetric centre (near air, in
    vessels), where there is only noise, or where a prior knows better. Acquired samples stay as they are.
    """
    _check(images, acquired)
    estimate = (pocs if method == "pocs" else homodyne)(images, acquired)
    trust, mean = symmetry(images, acquired)
    axes = range(-len(acquired), 0)
    missing = missing_samples(acquired, images.device)
    before = fft2c(images, axes)
    weight = missing * _signal_share(before, acquired, noise)
    mirrored, own = ifft2c(weight * fft2c(estimate, axes), axes), ifft2c(missing * before, axes)
    width = _width(acquired)
    energy, common, apart = (
        _smooth(array, width, axes)
        for array in (
            mirrored.abs().square(), (own.conj() * mirrored).real, (mirrored - own).abs().square(),
        )
    )  # fmt: skip
    floor = BACKGROUND * apart.mean(tuple(range(1, images.ndim)), keepdim=True)
    share = ((trust * energy - common) / (apart + floor).clamp_min(_TINY)).clamp(0, 1)
    change = missing * fft2c(share * (mirrored - own), axes)
    return images + ifft2c(change, axes), mean


def pocs(images: Tensor, acquired: Sequence[Acquired], iterations: int = ITERATIONS) -> Tensor:
    r"""Projections onto convex sets: images of the acquired samples whose phase is that of the symmetric centre.

    Parameters
    ----------
    images : Tensor
        Complex images without the missing samples, shape (batch, ...).
    acquired : sequence of Acquired
        Acquired part of k-space along each of the last axes; missing samples along any number of them.
    iterations : int
        Number of iterations.

    Returns
    -------
    Tensor
        Images with the acquired samples as they were.

    Notes
    -----
    :math:`x \mapsto x_0 + P_M F^{-1} F e^{i \phi} \mathrm{Re}(e^{-i \phi} x)` on the missing samples M, acquired ones
    kept (Haacke et al., JMR 1991; McGibney et al., MRM 1993).
    """
    _check(images, acquired)
    axes = partial_axes(acquired)
    phase, missing = symmetric_phase(images, acquired), missing_samples(acquired, images.device)
    kspace = fft2c(images, axes)
    estimate = images
    for _ in range(iterations):
        projected = phase * (phase.conj() * estimate).real
        estimate = ifft2c(torch.where(missing, fft2c(projected, axes), kspace), axes)
    return estimate


def homodyne(images: Tensor, acquired: Sequence[Acquired]) -> Tensor:
    r"""Homodyne reconstruction: the real part of images without their phase, of k-space weighted asymmetrically.

    Parameters
    ----------
    images : Tensor
        Complex images without the missing samples, shape (batch, ...).
    acquired : sequence of Acquired
        Acquired part of k-space along each of the last axes; missing samples along one of them.

    Returns
    -------
    Tensor
        Images with the phase of the symmetric centre.

    Raises
    ------
    ValueError
        If samples are missing along more than one axis: their mirror images are missing too, in the corners.

    Notes
    -----
    :math:`e^{i \phi} \mathrm{Re}(e^{-i \phi} F^{-1} h k)` (Margosian et al. 1986; Noll et al., IEEE TMI 1991) with
    weights h that rise smoothly (:math:`2 \sin^2`) from 0 at the near end to 2 on the other side of the symmetric
    centre. What the phase of the centre does not explain is lost, in acquired samples too.
    """
    _check(images, acquired)
    axes = partial_axes(acquired)
    if len(axes) > 1:
        raise ValueError("homodyne: samples are missing along more than one axis; take pocs")
    one = acquired[axes[0]]
    side = 1 if one.missing.start < one.first else -1
    place = side * (torch.arange(one.size, device=images.device) - one.size // 2)
    ramp = ((place + one.short) / (2 * one.short)).clamp(0, 1)
    weight = (2 * (ramp * (math.pi / 2)).sin().square()).reshape([-1] + [1] * (-1 - axes[0]))
    phase = symmetric_phase(images, acquired)
    return phase * (phase.conj() * ifft2c(weight * fft2c(images, axes), axes)).real


def symmetric_phase(images: Tensor, acquired: Sequence[Acquired]) -> Tensor:
    r"""Phase factor of the images that the symmetric centre of k-space holds, in full resolution along other axes.

    Parameters
    ----------
    images : Tensor
        Complex images, shape (batch, ...).
    acquired : sequence of Acquired
        Acquired part of k-space along each of the last axes.

    Returns
    -------
    Tensor
        Complex numbers of modulus 1, of the shape of `images`; 1 where the low-resolution image is zero.

    Notes
    -----
    A Hann window along each axis with missing samples, zero where the centre stops being symmetric.
    """
    axes = partial_axes(acquired)
    kspace = fft2c(images, axes)
    for axis in axes:
        one = acquired[axis]
        kspace = kspace * hann(one.size, 2 * one.short, images.device).reshape([-1] + [1] * (-1 - axis))
    low = ifft2c(kspace, axes)
    modulus = low.abs()
    return torch.where(modulus > 0, low / modulus.clamp_min(torch.finfo(modulus.dtype).tiny), 1)


def symmetry(images: Tensor, acquired: Sequence[Acquired]) -> tuple[Tensor, Tensor]:
    r"""How far the mirror images of measured samples are those samples: what speaks for conjugate symmetry.

    Parameters
    ----------
    images : Tensor
        Complex images, shape (batch, ...).
    acquired : sequence of Acquired
        Acquired part of k-space along each of the last axes.

    Returns
    -------
    (Tensor, Tensor)
        Trust from 0 to 1 in each pixel, of the shape of `images`, and its mean, shape (batch,), both real.

    Notes
    -----
    The outer half of the symmetric centre was measured on both sides. Its image d without the phase of the centre has
    energies u and v of its real and imaginary part in the neighbourhood of a pixel; from one side the best linear
    estimate of the other one is :math:`(u - v) / (u + v)` times its mirror image. Phase that changes too fast, flow
    and noise make v, each pixel its own. Trust that chance gives is taken off.
    """
    axes = partial_axes(acquired)
    box = inner = torch.ones([1] * len(acquired), dtype=torch.bool, device=images.device)
    for axis in axes:
        one = acquired[axis]
        far = (torch.arange(one.size, device=images.device) - one.size // 2).abs()
        shape = [-1] + [1] * (-1 - axis)
        box = box & (far < one.short).reshape(shape)
        inner = inner & (far < INNER * one.short).reshape(shape)
    flat = ifft2c((box & ~inner) * fft2c(images, axes), axes) * symmetric_phase(images, acquired).conj()
    agreeing, energy = flat.real.square() - flat.imag.square(), flat.abs().square()
    whole = range(1, images.ndim)
    mean = (agreeing.sum(tuple(whole)) / energy.sum(tuple(whole)).clamp_min(_TINY)).clamp(0, 1)
    floor = BACKGROUND * energy.mean(tuple(whole), keepdim=True)
    width, of_pixels = _width(acquired), range(-len(acquired), 0)
    agreeing, energy = (_smooth(array, width, of_pixels) for array in (agreeing, energy))
    trust = agreeing / (energy + floor).clamp_min(_TINY)
    return ((trust - CHANCE) / (1 - CHANCE)).clamp(0, 1), mean


_TINY = torch.finfo(torch.float32).tiny


def _width(acquired: Sequence[Acquired]) -> float:
    """Standard deviation in pixels of a neighbourhood: it holds a few pixels of the symmetric centre's resolution."""
    return SMOOTHING * max(one.size / one.short for one in acquired if one.partial)


def _smooth(array: Tensor, width: float, axes: Sequence[int]) -> Tensor:
    """Real array convolved with a Gaussian of a standard deviation in pixels, periodic borders."""
    spectrum = torch.fft.rfftn(array, dim=tuple(axes))
    for axis in axes:
        size = array.shape[axis]
        last = axis == axes[-1]
        frequency = (torch.fft.rfftfreq if last else torch.fft.fftfreq)(size, device=array.device)
        weight = torch.exp(-2 * (math.pi * width * frequency).square())
        spectrum = spectrum * weight.reshape([-1] + [1] * (-1 - axis))
    return torch.fft.irfftn(spectrum, s=[array.shape[axis] for axis in axes], dim=tuple(axes))


def _signal_share(kspace: Tensor, acquired: Sequence[Acquired], noise: float | Tensor) -> Tensor:
    """Share of the signal in the energy of acquired k-space, ring by ring, of the shape of the k-space."""
    noise = torch.as_tensor(noise, dtype=kspace.real.dtype, device=kspace.device).expand(len(kspace))
    if not bool((noise > 0).any()):
        return torch.ones([1] * kspace.ndim, device=kspace.device)
    inside = torch.ones([1] * len(acquired), dtype=torch.bool, device=kspace.device)
    radius = torch.zeros([1] * len(acquired), device=kspace.device)
    for axis, one in enumerate(acquired, -len(acquired)):
        place = torch.arange(one.size, device=kspace.device)
        shape = [-1] + [1] * (-1 - axis)
        radius = radius + ((place - one.size // 2) / one.size).square().reshape(shape)
        inside = inside & ((place >= one.first) & (place < one.stop)).reshape(shape)
    ring = (radius.sqrt() * (1 / RING_WIDTH)).long()
    count = int(ring.max()) + 1
    samples = torch.bincount(ring[inside], minlength=count)
    shares = torch.ones(kspace.shape, device=kspace.device)
    leading = kspace.shape[1 : kspace.ndim - len(acquired)].numel()
    for one_image, of_image, level in zip(kspace, shares, noise.tolist(), strict=True):
        energy = one_image.abs().square().reshape(leading, *ring.shape)
        for number, part in enumerate(energy):
            total = torch.bincount(ring[inside], weights=part[inside], minlength=count) / samples.clamp_min(1)
            share = (1 - 2 * level**2 / total.clamp_min(_TINY)).clamp_min(0).float()
            of_image.reshape(leading, *ring.shape)[number] = share[ring]
    return shares


def _check(images: Tensor, acquired: Sequence[Acquired]) -> None:
    shape = tuple(one.size for one in acquired)
    if not images.is_complex() or images.ndim <= len(acquired) or tuple(images.shape[-len(acquired) :]) != shape:
        raise ValueError(
            f"partial Fourier: images of shape {tuple(images.shape)} are not complex (batch, ..., {shape})"
        )
    if not partial_axes(acquired):
        raise ValueError("partial Fourier: no side of k-space is missing")
    short = min(one.short for one in acquired if one.partial)
    if short < FEWEST:
        raise ValueError(f"partial Fourier: {short} samples past the centre of k-space are too few to know the phase")
