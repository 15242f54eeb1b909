"""Receiver noise that is correlated between the coils."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.simulation.settings import SimulationSettings


def noise_covariance(settings: SimulationSettings) -> NDArray[np.complex128]:
    """Noise covariance between coils, scaled to a mean diagonal of 1: that of the settings, or a random one."""
    coils = settings.coils
    covariance: NDArray[Any]
    if settings.noise_covariance is not None:
        covariance = np.asarray(settings.noise_covariance, np.complex128)
    else:
        rng = np.random.default_rng([settings.seed, 5])
        mixing = rng.standard_normal((coils, coils)) + 1j * rng.standard_normal((coils, coils))
        gain = np.diag(rng.uniform(0.7, 1.3, coils))
        covariance = gain @ (np.eye(coils) + 0.25 * mixing @ mixing.conj().T / coils) @ gain
    scaled: NDArray[np.complex128] = covariance * (coils / np.trace(covariance).real)
    return scaled


class Noise:
    """Complex Gaussian noise of a given coil covariance E[n n^H]."""

    def __init__(self, covariance: NDArray[Any], seed: Sequence[int]) -> None:
        self._rng = np.random.default_rng(list(seed))
        empty = not covariance.any()
        self._factor = (covariance if empty else np.linalg.cholesky(covariance / 2)).astype(np.complex64)

    def draw(self, samples: int) -> NDArray[np.complex64]:
        """Noise of one readout, complex64 (coil, sample)."""
        white = self._rng.standard_normal((len(self._factor), 2 * samples), np.float32).view(np.complex64)
        coloured: NDArray[np.complex64] = self._factor @ white
        return coloured
