"""Covariance of the noise between coils, and the matrix that makes it white."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

log = logging.getLogger("genrecon")

Array = np.ndarray[Any, np.dtype[Any]]

SAMPLES_A_COIL = 2  # fewer of these say nothing of the correlation between coils


def noise_covariance(noise: list[Array]) -> Array:
    """Covariance C = N N^H / (n - 1) of noise readouts.

    Parameters
    ----------
    noise : list of complex arrays (coil, sample)

    Returns
    -------
    complex128 array (coil, coil)
    """
    samples = np.concatenate(noise, axis=1).astype(np.complex128)
    return samples @ samples.conj().T / max(samples.shape[1] - 1, 1)


def without_correlation(covariance: Array, channels: list[int] | None = None) -> Array:
    """The covariance with channels (None: all) that correlate with no other.

    Parameters
    ----------
    covariance : complex array (coil, coil)
    """
    result = covariance.copy()
    for channel in range(len(covariance)) if channels is None else channels:
        variance = covariance[channel, channel]
        result[channel, :] = result[:, channel] = 0
        result[channel, channel] = variance
    return result


def prewhitening_matrix(covariance: Array, scale: float) -> Array:
    """Matrix scale * L^-1 with C = L L^H, which makes noise white and of variance scale^2.

    Parameters
    ----------
    covariance : complex array (coil, coil)
    scale : factor of the whitened data

    A covariance that has no Cholesky factor (a silent coil, fewer samples than coils) is loaded on its diagonal first.

    Returns complex64 (coil, coil).
    """
    if not np.any(covariance):
        return np.eye(len(covariance), dtype=np.complex64) * np.float32(scale)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        log.warning("NoiseAdjustGadget: the noise covariance is singular (a silent coil?); its diagonal is loaded")
        loading = 1e-3 * np.trace(covariance).real / len(covariance)
        factor = np.linalg.cholesky(covariance + loading * np.eye(len(covariance)))
    inverse = np.linalg.solve(factor, np.eye(len(covariance)))
    return (scale * inverse).astype(np.complex64)
