"""Images from measured k-space and a prior: least squares and sparse SENSE reconstructions."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.data_consistency import SenseOperator, check_maps, conjugate_gradient
from priors.prior import Prior
from priors.signal.fourier import ifft2c
from priors.signal.wavelet import WaveletSparsity


def image_scale(kspace: Tensor, mask: Tensor, width: int = 24) -> Tensor:
    """Signal level of a scan: the 99.9th percentile of its low-resolution root-sum-of-squares image.

    Parameters
    ----------
    kspace : Tensor
        Complex k-space, shape (batch, coil, y, x).
    mask : Tensor
        Sampling mask or weights that broadcast to (batch, 1, y, x). Samples missing from the centre are made
        up for by scaling.
    width : int
        Samples of the k-space centre that are used along y and x.

    Returns
    -------
    Tensor
        Real, shape (batch,), in the units of the image; 1 where the centre of k-space is empty.
    """
    height, length = kspace.shape[-2:]
    rows = slice(max(height // 2 - width // 2, 0), height // 2 + (width + 1) // 2)
    columns = slice(max(length // 2 - width // 2, 0), length // 2 + (width + 1) // 2)
    weights = mask.to(kspace.real.dtype).expand(len(kspace), 1, height, length)[..., rows, columns]
    centre = torch.zeros_like(kspace)
    centre[..., rows, columns] = kspace[..., rows, columns] * weights
    sampled = weights.mean(dim=(-3, -2, -1)).clamp_min(torch.finfo(weights.dtype).tiny)
    root_sum_of_squares = torch.linalg.vector_norm(ifft2c(centre), dim=1).flatten(1)
    rank = max(1, round(0.999 * root_sum_of_squares.shape[1]))
    scale = root_sum_of_squares.kthvalue(rank, dim=1).values / sampled
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def zero_filled(kspace: Tensor, mask: Tensor) -> Tensor:
    """K-space with zeros where nothing was measured.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x); samples outside the mask are not looked at.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x) or broadcasting to it.

    Returns
    -------
    Tensor
        Complex k-space of the same shape.
    """
    return torch.where(mask.to(torch.bool), kspace, 0)


def cg_sense(
    kspace: Tensor,
    maps: Tensor,
    mask: Tensor,
    regularisation: float = 1e-3,
    iterations: int = 30,
    tolerance: float = 1e-3,
) -> Tensor:
    r"""SENSE reconstruction by conjugate gradients with Tikhonov regularisation.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space y, complex, shape (batch, coil, y, x); samples outside the mask are not looked at.
    maps : Tensor
        Coil maps S, complex, shape (batch, set, coil, y, x).
    mask : Tensor
        Sampling mask (bool) or sample weights (float), shape (batch, 1, y, x) or broadcasting to it.
    regularisation : float
        Tikhonov weight relative to the largest eigenvalue 1 of fully sampled SENSE with normalised maps, zero
        or above.
    iterations : int
        Most iterations.
    tolerance : float
        Relative residual of the normal equations at which a slice is done.

    Returns
    -------
    Tensor
        Complex images, shape (batch, set, y, x), in the units of the image of `kspace`.

    Raises
    ------
    ValueError
        If the shapes do not fit together or the regularisation is negative.

    Notes
    -----
    :math:`\arg\min_x \|P F S x - y\|_2^2 + \lambda \|x\|_2^2` (Pruessmann et al., MRM 2001).
    """
    _check(kspace, maps, regularisation)
    operator = SenseOperator(maps, mask)
    return conjugate_gradient(
        lambda image: operator.normal(image) + regularisation * image,
        operator.adjoint(kspace),
        iterations=iterations,
        tolerance=tolerance,
    )


def l1_wavelet(
    kspace: Tensor,
    maps: Tensor,
    mask: Tensor,
    regularisation: float = 1e-3,
    iterations: int = 60,
    *,
    wavelet: str = "db4",
    levels: int | None = None,
    cycle_spinning: bool = True,
    tolerance: float = 1e-4,
) -> Tensor:
    r"""SENSE reconstruction with a wavelet sparsity prior by accelerated proximal gradients (FISTA).

    Parameters
    ----------
    kspace : Tensor
        Measured k-space y, complex, shape (batch, coil, y, x), of signal level 1 (divided by `image_scale`);
        samples outside the mask are not looked at.
    maps : Tensor
        Coil maps S, complex, shape (batch, set, coil, y, x).
    mask : Tensor
        Sampling mask (bool) or sample weights (float), shape (batch, 1, y, x) or broadcasting to it.
    regularisation : float
        Weight of the prior, zero or above.
    iterations : int
        Most iterations.
    wavelet : str
        Name of an orthogonal wavelet of PyWavelets.
    levels : int, optional
        Decomposition levels, see `WaveletSparsity`.
    cycle_spinning : bool
        Shift the wavelet grid by another fixed amount in every iteration, which avoids block artefacts; the
        minimised function is then the average over the shifts.
    tolerance : float
        Stop when no image changes by more than this fraction of its norm in an iteration.

    Returns
    -------
    Tensor
        Complex images, shape (batch, set, y, x), in the units of the image of `kspace`.

    Raises
    ------
    ValueError
        If the shapes do not fit together, the regularisation is negative or the wavelet is not orthogonal.

    Notes
    -----
    :math:`\arg\min_x \frac12 \|P F S x - y\|_2^2 + \lambda \|W x\|_1` with the detail coefficients of
    the wavelet transform W (Lustig et al., MRM 2007; Beck and Teboulle, SIAM J.
    Imaging Sci. 2009).
    """
    _check(kspace, maps, regularisation)
    operator = SenseOperator(maps, mask)
    prior = WaveletSparsity(regularisation, wavelet, levels)
    right_side = operator.adjoint(kspace)
    # Power iteration approaches the eigenvalue from below.
    step = 1 / (1.05 * operator.largest_eigenvalue()).clamp_min(torch.finfo(right_side.real.dtype).tiny)
    return _fista(operator, right_side, prior, step, iterations, tolerance, cycle_spinning)


def _fista(
    operator: SenseOperator,
    right_side: Tensor,
    prior: Prior,
    step: Tensor,
    iterations: int,
    tolerance: float,
    cycle_spinning: bool,
) -> Tensor:
    """Minimise the SENSE data term minus the log prior, whose denoiser is the proximal step."""
    step_of_slice = step.reshape(-1, 1, 1, 1)
    image = torch.zeros_like(right_side)
    extrapolated, momentum = image, 1.0
    for iteration in range(iterations):
        gradient_step = extrapolated + step_of_slice * (right_side - operator.normal(extrapolated))
        shift = _spin(iteration) if cycle_spinning else (0, 0)
        previous = image
        denoised = prior.denoise(torch.roll(gradient_step, shift, (-2, -1)), step.sqrt())
        image = torch.roll(denoised, (-shift[0], -shift[1]), (-2, -1))
        next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        change = image - previous
        extrapolated = image + (momentum - 1) / next_momentum * change
        momentum = next_momentum
        if bool((change.abs().square().sum((1, 2, 3)) <= tolerance**2 * image.abs().square().sum((1, 2, 3))).all()):
            break
    return image


def _spin(iteration: int) -> tuple[int, int]:
    """Shift of an iteration: the additive recurrence of the plastic number covers 16 x 16 evenly."""
    return int(16 * (0.7548776662466927 * iteration % 1)), int(16 * (0.5698402909980532 * iteration % 1))


def _check(kspace: Tensor, maps: Tensor, regularisation: float) -> None:
    if regularisation < 0:
        raise ValueError(f"regularisation: {regularisation} is negative; take zero or more")
    check_maps("sense", kspace, maps)
