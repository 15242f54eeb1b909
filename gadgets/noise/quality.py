"""What a noise scan says of the receivers: their levels, their correlation, and coils that look broken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gadgets.noise.covariance import SAMPLES_A_COIL
from gadgets.noise.scan import NoiseScan

QUIET, LOUD = 0.2, 5.0  # level over the median of the coils; those of an array differ by 2 or 3
ALIKE = 0.95  # correlation of two coils; neighbours in an array have 0.5 at most
SINGULAR = 1e8  # condition of the correlation; single precision has no more digits
MOST_NAMED = 4  # coils in a warning


@dataclass(frozen=True)
class NoiseQuality:
    """Statistics of a noise scan; nothing in it identifies anyone.

    Parameters
    ----------
    samples : noise samples of each coil; 0: not known
    dwell_us : dwell time of the noise in microseconds; 0: not known
    levels : standard deviation of each coil over their median
    names : of the coils: label, or number from 0 on
    condition : largest over smallest eigenvalue of the covariance, infinite where it is singular
    correlation : largest absolute correlation of two coils, 0 to 1
    pair : names of these two
    warnings : what looks wrong, in words
    """

    samples: int
    dwell_us: float
    levels: tuple[float, ...]
    names: tuple[str, ...]
    condition: float
    correlation: float
    pair: tuple[str, str] | None
    warnings: tuple[str, ...]

    def rows(self) -> list[tuple[str, str]]:
        """Names and texts for people."""
        texts = [f"{min(self.levels):.2f} to {max(self.levels):.2f} of the median of {len(self.levels)} coils"]
        if self.pair:
            texts.append(f"strongest correlation {self.correlation:.2f} ({' and '.join(self.pair)})")
        texts.append(f"condition {self.condition:.3g}")
        found = [("noise samples", f"{self.samples or 'not known how many'} of each coil")]
        found.append(("noise levels", ", ".join(texts)))
        return found + [("noise warning", text) for text in self.warnings]


def noise_quality(noise: NoiseScan) -> NoiseQuality:
    """Statistics of a noise scan.

    Parameters
    ----------
    noise : with a covariance of one coil or more
    """
    covariance = np.asarray(noise.covariance, np.complex128)
    coils = len(covariance)
    deviations = np.sqrt(np.clip(covariance.diagonal().real, 0, None))
    positive = deviations[deviations > 0]
    median = float(np.median(positive)) if len(positive) else 1.0
    levels = deviations / median
    labelled = len(noise.coils) == coils
    names = tuple((noise.coils[i].name if labelled else "") or f"coil {i}" for i in range(coils))
    scale = np.where(deviations > 0, deviations, 1)
    correlation = np.abs(covariance / np.outer(scale, scale))
    apart = correlation - np.diag(correlation.diagonal())
    first, second = np.unravel_index(apart.argmax(), apart.shape)
    values = np.linalg.eigvalsh(covariance)
    condition = float(values[-1] / values[0]) if values[0] > 0 else float("inf")
    few = noise.too_few_samples
    warnings = []
    if few:
        warnings.append(f"{noise.samples} noise samples of {coils} coils: fewer than {SAMPLES_A_COIL} a coil")
    warnings += _odd(names, levels)
    whole = correlation[np.ix_(deviations > 0, deviations > 0)]
    eigenvalues = np.linalg.eigvalsh(whole) if len(whole) else np.ones(1)
    if not few and apart.max() > ALIKE:
        warnings.append(
            f"{names[first]} and {names[second]} have nearly the same noise (correlation {apart.max():.2f}): one may "
            "be the other's copy, or its preamplifier defect"
        )
    elif not few and eigenvalues[-1] > SINGULAR * max(eigenvalues[0], 0):
        warnings.append("the noise of some coils follows from that of the others: fewer receivers than coils")
    return NoiseQuality(
        noise.samples,
        noise.dwell_us,
        tuple(float(level) for level in levels),
        names,
        condition,
        float(apart.max()),
        (names[first], names[second]) if coils > 1 else None,
        tuple(warnings),
    )


def _odd(names: tuple[str, ...], levels: np.ndarray) -> list[str]:
    """Warnings of coils whose level is unlike that of the others."""
    found = []
    for chosen, text in (
        (levels < QUIET, "far less noise than the others: disconnected or broken"),
        (levels > LOUD, "far more noise than the others: broken, or something interferes"),
    ):
        odd = [name for name, is_odd in zip(names, chosen, strict=True) if is_odd]
        if odd:
            more = f" and {len(odd) - MOST_NAMED} more" if len(odd) > MOST_NAMED else ""
            has = "has" if len(odd) == 1 else "have"
            found.append(f"{', '.join(odd[:MOST_NAMED])}{more} {has} {text}")
    return found
