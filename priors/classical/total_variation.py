"""SENSE reconstruction with a total variation prior, by SigPy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from priors.signal.encoding import SenseOperator, check_maps

_DUAL_STEP = 0.1
_LARGEST_OF_DIFFERENCES = 8.0  # eigenvalue of G^H G along two axes


def total_variation(
    kspace: Tensor, maps: Tensor, mask: Tensor, regularisation: float = 2e-3, iterations: int = 100
) -> Tensor:
    r"""SENSE reconstruction with total variation by SigPy's primal-dual hybrid gradient.

    Parameters
    ----------
    kspace : Tensor
        Measured k-space y, complex, shape (batch, coil, y, x), of signal level 1 (divided by `image_scale`);
        samples outside the mask are not looked at.
    maps : Tensor
        Coil maps S, complex, shape (batch, set, coil, y, x).
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x) or broadcasting to it.
    regularisation : float
        Weight of the total variation, zero or above.
    iterations : int
        Most iterations.

    Returns
    -------
    Tensor
        Complex images, shape (batch, set, y, x), in the units of the image of `kspace`.

    Raises
    ------
    ValueError
        If the shapes do not fit together or the regularisation is negative.
    ModuleNotFoundError
        If SigPy (extra `benchmark`) is not installed.

    Notes
    -----
    :math:`\arg\min_x \frac12 \|P F S x - y\|_2^2 + \lambda \|G x\|_1` with the finite differences G along y and x
    (Lustig et al., MRM 2007; Chambolle and Pock, JMIV 2011): SigPy's `TotalVariationRecon`, for several map sets too.
    """
    check_maps("total variation", kspace, maps)
    if regularisation < 0:
        raise ValueError(f"total variation: regularisation {regularisation} is negative; take zero or more")
    kspace = torch.where(mask.to(torch.bool), kspace, 0)
    weights = mask.to(kspace.real.dtype).expand(len(kspace), 1, *kspace.shape[-2:])[:, 0]
    largest = SenseOperator(maps, weights[:, None]).largest_eigenvalue().tolist()
    slices = zip(kspace, maps, weights, largest, strict=True)
    found = [_slice(*one, regularisation, iterations) for one in slices]
    return torch.from_numpy(np.stack(found)).to(kspace)


def _slice(
    kspace: Tensor, maps: Tensor, weights: Tensor, largest: float, regularisation: float, iterations: int
) -> np.ndarray:
    """Images (set, y, x) of one slice."""
    import sigpy.mri  # with Numba it takes 1.7 s to import, which no other method should wait for

    sets, _, *shape = maps.shape
    sampled = weights.cpu().numpy()
    encodings = [
        sigpy.mri.linop.Sense(one.cpu().numpy(), weights=sampled) * sigpy.linop.Reshape(shape, (1, *shape))
        for one in maps
    ]
    differences = sigpy.linop.FiniteDifference((sets, *shape), axes=(-2, -1))
    app = sigpy.app.LinearLeastSquares(
        sigpy.linop.Hstack(encodings, axis=0),
        kspace.cpu().numpy(),
        proxg=sigpy.prox.L1Reg(differences.oshape, regularisation),
        G=differences,
        # SigPy's own choice of tau begins at random.
        sigma=_DUAL_STEP,
        tau=1 / (_DUAL_STEP * (1.05 * largest + _LARGEST_OF_DIFFERENCES)),
        max_iter=iterations,
        show_pbar=False,
    )
    return np.asarray(app.run())
