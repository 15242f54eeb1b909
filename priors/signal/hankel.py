"""Low-rank multi-coil k-space: the periodic Hankel matrix by way of its Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor

from priors.signal.encoding import replace_samples


def gram_matrix(kspace: Tensor, window: int) -> Tensor:
    r"""Gram matrix of the periodic multi-coil Hankel matrix of k-space.

    Parameters
    ----------
    kspace : Tensor
        Complex k-space, shape (batch, coil, y, x).
    window : int
        Width w of the square window in samples.

    Returns
    -------
    Tensor
        Hermitian matrices :math:`H^H H` in double precision (its eigenvalues are squares), shape (batch, coil * w * w,
        coil * w * w), columns ordered (coil, wy, wx).

    Raises
    ------
    ValueError
        If the window does not fit into the k-space.

    Notes
    -----
    A row of H holds the samples of all coils in the window at one position, periodic at the borders, so that
    :math:`G_{(c,i),(c',j)} = R_{cc'}(j - i)` with the coil cross-correlation :math:`R_{cc'} =
    F^{-1}(\overline{F k_c} \, F k_{c'})`: FFTs in place of a matrix with a row for every sample.
    """
    _check_window(kspace, window)
    batch, coils, height, width = kspace.shape
    spectrum = torch.fft.fft2(kspace.to(torch.complex128))
    lags = torch.arange(1 - window, window, device=kspace.device)
    correlation = torch.stack(
        [
            torch.fft.ifft2(spectrum[:, coil : coil + 1].conj() * spectrum)[..., lags % height, :][..., lags % width]
            for coil in range(coils)
        ],
        dim=1,
    )
    distance = _distances(window, kspace.device)
    gram = correlation[..., distance[:, None, :, None], distance[None, :, None, :]]
    return gram.permute(0, 1, 3, 4, 2, 5, 6).reshape(batch, coils * window**2, coils * window**2)


def leading_subspace(gram: Tensor, rank: int) -> Tensor:
    """Eigenvectors of the largest eigenvalues of Hermitian matrices.

    Parameters
    ----------
    gram : Tensor
        Matrices, complex, shape (batch, n, n).
    rank : int
        Number of eigenvectors, from 1 to n.

    Returns
    -------
    Tensor
        Orthonormal columns, shape (batch, n, rank), smallest eigenvalue first.

    Raises
    ------
    ValueError
        If the rank is out of range.

    Notes
    -----
    On a processor by LAPACK's eigensolver for part of the spectrum, which takes half the time of the whole one.
    """
    unknowns = gram.shape[-1]
    if not 1 <= rank <= unknowns:
        raise ValueError(f"low rank: rank {rank} is not from 1 to coils * window^2 = {unknowns}")
    if gram.device.type != "cpu":
        return torch.linalg.eigh(gram).eigenvectors[..., -rank:]
    part = [unknowns - rank, unknowns - 1]
    spaces = [eigh(one.numpy(), subset_by_index=part, driver="evr", check_finite=False)[1] for one in gram]
    return torch.from_numpy(np.stack(spaces))


def low_rank_projection(kspace: Tensor, window: int, rank: int) -> Tensor:
    r"""Project the rows of the periodic Hankel matrix on its leading singular vectors and return to k-space.

    Parameters
    ----------
    kspace : Tensor
        Complex k-space, shape (batch, coil, y, x).
    window : int
        Width w of the square window in samples.
    rank : int
        Number of singular vectors that are kept, from 1 to coil * w * w.

    Returns
    -------
    Tensor
        Complex k-space of the same shape.

    Raises
    ------
    ValueError
        If the window does not fit into the k-space or the rank is out of range.

    Notes
    -----
    :math:`H \mapsto H V V^H` with hard threshold, then the average of the entries that hold the same sample.
    Both together are a convolution with the (2 w - 1)^2 coil-by-coil kernel of :math:`V V^H / w^2`.
    """
    return apply_subspace(kspace, leading_subspace(gram_matrix(kspace, window), rank), window)


def apply_subspace(kspace: Tensor, space: Tensor, window: int) -> Tensor:
    """Project the rows of the periodic Hankel matrix on a given space and return to k-space.

    Parameters
    ----------
    kspace : Tensor
        Complex k-space, shape (batch, coil, y, x).
    space : Tensor
        Orthonormal columns, shape (batch, coil * w * w, rank), as `leading_subspace` gives them.
    window : int
        Width w of the square window in samples.

    Returns
    -------
    Tensor
        Complex k-space of the same shape.
    """
    batch, coils, height, width = kspace.shape
    vectors = space.to(kspace.dtype).mT.reshape(batch, -1, coils, window, window)
    size = 2 * window - 1
    # Sums of the outer products over equal distances are correlations, hence products of transforms.
    spectra = torch.fft.fft2(vectors, s=(size, size)).permute(0, 3, 4, 2, 1)
    kernel = torch.fft.ifft2((spectra @ spectra.mH).permute(0, 3, 4, 1, 2)) / window**2
    lags = torch.fft.ifftshift(torch.arange(1 - window, window, device=kspace.device))
    rows, columns = (lags % height)[:, None].expand(size, size), (lags % width)[None].expand(size, size)
    spectrum = torch.fft.fft2(kspace)
    result = torch.empty_like(spectrum)
    entries = torch.arange(batch * coils, device=kspace.device)[:, None, None]
    for coil in range(coils):  # one row of the coil-by-coil matrices at a time, to bound memory
        placed = kernel.new_zeros(batch * coils, height, width)
        placed.index_put_((entries, rows, columns), kernel[:, :, coil].flatten(0, 1), True)
        factors = torch.fft.ifft2(placed, norm="forward").unflatten(0, (batch, coils))
        result[:, coil] = (spectrum * factors).sum(1)
    return torch.fft.ifft2(result)


def low_rank_completion(
    kspace: Tensor, mask: Tensor, window: int, rank: int | Sequence[int], iterations: int = 0
) -> Tensor:
    r"""Fill the missing samples of multi-coil k-space without any calibration (SAKE).

    Parameters
    ----------
    kspace : Tensor
        Measured k-space, complex, shape (batch, coil, y, x); samples outside the mask are not looked at.
    mask : Tensor
        Sampling mask (bool), shape (batch, 1, y, x) or broadcasting to it.
    window : int
        Width w of the square window in samples.
    rank : int or sequence of int
        Rank of the Hankel matrix, from 1 to coil * w * w; or that of each projection.
    iterations : int
        Number of projections of a single rank.

    Returns
    -------
    Tensor
        Complex k-space of the same shape, with the measured samples where they were measured.

    Raises
    ------
    ValueError
        If the window does not fit into the k-space or the rank is out of range.

    Notes
    -----
    Cadzow's alternation of `low_rank_projection` and `replace_samples` (Shin et al., MRM 2014).
    """
    sampled = mask.to(device=kspace.device, dtype=torch.bool)
    measured = torch.where(sampled, kspace, 0)
    estimate = measured
    for one in [rank] * iterations if isinstance(rank, int) else rank:
        estimate = replace_samples(low_rank_projection(estimate, window, one), measured, sampled)
    return estimate


def _distances(window: int, device: torch.device) -> Tensor:
    """Index of the lag j - i among the lags 1 - w to w - 1, (w, w)."""
    index = torch.arange(window, device=device)
    return index[None, :] - index[:, None] + window - 1


def _check_window(kspace: Tensor, window: int) -> None:
    if kspace.ndim != 4:
        raise ValueError(f"low rank: k-space of shape {tuple(kspace.shape)} is not (batch, coil, y, x)")
    if not 1 <= window <= min(kspace.shape[-2:]):
        raise ValueError(f"low rank: window {window} does not fit into k-space of {tuple(kspace.shape[-2:])} samples")
