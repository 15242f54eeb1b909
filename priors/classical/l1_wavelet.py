"""SENSE with wavelet sparsity (L1-ESPIRiT), by accelerated proximal gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.classical.cg_sense import check_arguments
from priors.classical.wavelet import WaveletSparsity
from priors.prior import Prior
from priors.signal.encoding import SenseOperator


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
    :math:`\arg\min_x \frac12 \|P (F S x - y)\|_2^2 + \lambda \|W x\|_1` with the detail coefficients of
    the wavelet transform W (Lustig et al., MRM 2007; Beck and Teboulle, SIAM J.
    Imaging Sci. 2009).
    """
    check_arguments(kspace, maps, regularisation)
    operator = SenseOperator(maps, mask)
    prior = WaveletSparsity(regularisation, wavelet, levels)
    right_side = operator.right_side(kspace)
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
