"""LINDBERG: sparse codes of image patches, learnt from the scan itself, that the coils share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priors.signal.encoding import replace_samples
from priors.signal.fourier import fft2c, ifft2c

_STRIDE = 2  # between patches; another shift of their grid every iteration
_FIRST = 0.1  # threshold of the first iteration, in units of the signal level
_SAMPLE = 4  # the dictionary is learnt from one of every so many patches


def lindberg(
    kspace: Tensor,
    mask: Tensor,
    regularisation: float = 5e-3,
    iterations: int = 40,
    *,
    patch: int = 8,
) -> Tensor:
    r"""Fill the missing samples of multi-coil k-space by joint-sparse codes over a learnt dictionary.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x), of signal level 1 (divided by `image_scale`); samples
        outside the mask are not looked at.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x) or broadcasting to it.
    regularisation : float
        Threshold of the codes in the last iteration, in units of the signal level; above zero.
    iterations : int
        Number of iterations, at least one.
    patch : int
        Width and height of a patch in pixels, at least 2.

    Returns
    -------
    Tensor
        Complex k-space of the same shape, with the measured samples where they were measured.

    Raises
    ------
    ValueError
        If a number is out of range or a patch does not fit into the image.

    Notes
    -----
    :math:`\min_{x, D, \alpha} \sum_p \big( \sum_c \|R_p x_c - D \alpha_{pc}\|_2^2 + \lambda \|\alpha_p\|_{2,1} \big)`
    subject to :math:`P F x_c = y_c`, the norm over atoms of the 2-norm over coils (Wang et al., IEEE TMI 2018): what is
    an atom in one coil image is one in all. In turns: codes by the group soft threshold, the dictionary, images as the
    mean of the overlapping patches, measured samples put back. The dictionary is unitary here, so that codes and
    dictionary have closed solutions (the second that of Procrustes; Ravishankar and Bresler, IEEE TIP 2015), and starts
    as the discrete cosine transform; the threshold falls geometrically from a tenth of the signal level. Neither coil
    maps nor a calibration region are needed.
    """
    height, width = kspace.shape[-2:]
    if regularisation <= 0 or iterations < 1:
        raise ValueError("lindberg: the regularisation must be above 0 and there must be an iteration")
    if not 2 <= patch <= min(height, width):
        raise ValueError(f"lindberg: patches of {patch} pixels do not fit into images of {height} x {width}")
    sampled = mask.to(device=kspace.device, dtype=torch.bool)
    measured = torch.where(sampled, kspace, 0)
    cosine = _cosine_transform(patch)
    dictionaries = torch.kron(cosine, cosine).to(kspace).expand(len(kspace), -1, -1).clone()
    estimate = measured
    thresholds = torch.logspace(math.log10(max(_FIRST, regularisation)), math.log10(regularisation), iterations)
    for iteration, threshold in enumerate(thresholds.tolist()):
        images = ifft2c(estimate)
        shift = (iteration * 3 % patch, iteration * 5 % patch)
        for index, one in enumerate(images):
            moved = torch.roll(one, shift, (-2, -1))
            images[index] = torch.roll(
                _sparse(moved, dictionaries, index, patch, threshold), (-shift[0], -shift[1]), (-2, -1)
            )
        estimate = replace_samples(fft2c(images), measured, sampled)
    return estimate


def _sparse(images: Tensor, dictionaries: Tensor, index: int, patch: int, threshold: float) -> Tensor:
    """Coil images (coil, y, x) of joint-sparse codes; takes one dictionary a step on."""
    coils, height, width = images.shape
    # Periodic: the patches at the far borders go on at the near ones.
    padded = torch.cat([images, images[:, : patch + 1]], 1)
    padded = torch.cat([padded, padded[:, :, : patch + 1]], 2)
    rows, columns = -(-height // _STRIDE), -(-width // _STRIDE)
    windows = padded.unfold(1, patch, _STRIDE)[:, :rows].unfold(2, patch, _STRIDE)[:, :, :columns]
    patches = windows.reshape(coils, rows * columns, patch * patch)
    dictionary = dictionaries[index]  # an atom a row
    codes = _group_threshold(patches @ dictionary.mH, threshold)
    # argmin over unitary D of |patches - codes D|: the polar factor of codes^H patches.
    some = slice(None, None, _SAMPLE)
    left, _, right = torch.linalg.svd(codes[:, some].flatten(0, 1).mH @ patches[:, some].flatten(0, 1))
    dictionaries[index] = left @ right
    denoised = (codes @ dictionaries[index]).reshape(coils, rows, columns, patch, patch)
    total = torch.zeros_like(padded)
    count = torch.zeros(padded.shape[1:], device=images.device)
    for y in range(patch):
        for x in range(patch):
            place = slice(y, y + _STRIDE * rows, _STRIDE), slice(x, x + _STRIDE * columns, _STRIDE)
            total[:, place[0], place[1]] += denoised[..., y, x]
            count[place] += 1
    return _wrapped(total, height, width) / _wrapped(count, height, width)


def _wrapped(padded: Tensor, height: int, width: int) -> Tensor:
    """Sums over what the padding repeated, (..., height, width)."""
    folded = padded[..., :width].clone()
    folded[..., : padded.shape[-1] - width] += padded[..., width:]
    result = folded[..., :height, :].clone()
    result[..., : padded.shape[-2] - height, :] += folded[..., height:, :]
    return result


def _group_threshold(codes: Tensor, threshold: float) -> Tensor:
    """Soft threshold of the 2-norm over coils (the first axis): the proximal map of the l2,1 norm."""
    norm = torch.linalg.vector_norm(torch.view_as_real(codes), dim=(0, -1))
    return codes * ((norm - threshold).clamp_min(0) / norm.clamp_min(torch.finfo(norm.dtype).tiny))


def _cosine_transform(size: int) -> Tensor:
    """Orthonormal discrete cosine transform (II) as a real matrix, a basis function a row."""
    position, frequency = torch.arange(size) + 0.5, torch.arange(size)[:, None]
    matrix = torch.cos(math.pi * frequency * position / size) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix
