"""The parts of the stability suite: details, perturbation, acceleration, more samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from pipelines.evaluation.cases import Array, Case, received_kspace
from pipelines.evaluation.metrics import psnr
from pipelines.evaluation.stability.details import detail_changes, place_details, recovery, sensitivities
from pipelines.evaluation.stability.masks import nested_masks, other_masks
from pipelines.simulation.sampling import Mask

CONTRASTS = (0.05, 0.1, 0.2, 0.4)  # of the image's maximum
SHOWN_CONTRAST = 0.2  # in the figures
RECOVERED_FRACTION, RECOVERED_CORRELATION = 0.5, 0.7  # a detail with at least these is recovered
PERTURBATION = 0.01  # norm of the perturbation over that of the samples
SMOOTHING = 2.0  # pixels
ALLOWED_DROP = 0.1  # dB
PARTS = ("detail", "perturbation", "acceleration", "more_samples")

Reconstruct = Callable[[Array], Array]  # measured k-space (coil, y, x) to float32 image (y, x)
Part = Callable[[Reconstruct, Case], dict[str, Any]]  # what goes into the row


def detail_part(reconstruct: Reconstruct, case: Case, contrasts: Sequence[float]) -> dict[str, Any]:
    """Which small changes of the object arrive in the image.

    Line, disc and text are inserted together, apart from each other, and evaluated one by one. The change of the image
    is the reconstruction with them less that without. Its smallest contrast is the lowest one from
    which on at least half of it is there, with a correlation of at least 0.7 (see `recovery`).

    Parameters
    ----------
    contrasts : of the details, in units of the image's maximum

    Returns
    -------
    values; smallest (contrast or None, by detail); arrays (image and change, float32 (y, x), of the contrast nearest to
    20 %)
    """
    details = place_details(case.reference)
    without = reconstruct(case.measured())
    result: dict[str, Any] = {"values": [], "smallest": dict.fromkeys(details)}
    for contrast in sorted(contrasts):
        changed = detail_changes(case, details, contrast)
        image = reconstruct(changed.measured())
        change, truth = image - without, changed.reference - case.reference
        for name, (_, box) in details.items():
            part, correlation = recovery(change[box], truth[box])
            value = {"what": name, "contrast": contrast, "recovered": part, "correlation": correlation}
            result["values"].append(value)
            recovered = part >= RECOVERED_FRACTION and correlation >= RECOVERED_CORRELATION
            result["smallest"][name] = (result["smallest"][name] or contrast) if recovered else None
        if contrast == shown_contrast(contrasts):
            result["arrays"] = {"image": image, "change": change}
    return result


def shown_contrast(contrasts: Sequence[float]) -> float:
    """The contrast that the figures show: the one nearest to 20 %."""
    return min(contrasts, key=lambda contrast: abs(contrast - SHOWN_CONTRAST))


def perturbation_part(reconstruct: Reconstruct, case: Case, steps: int) -> dict[str, Any]:
    """How much a method amplifies a small perturbation of the samples: a random one, and the worst that was found.

    With measured samples y and a method A, the amplification of a perturbation e with ‖e‖ = 0.01 ‖y‖ is

        (‖A(y + e) - A(y)‖ / ‖A(y)‖) / (‖e‖ / ‖y‖),

    of magnitude images. The search starts at complex white noise (seed 0) and ascends by e ← e + M F S w d, both terms
    normalised, with d = A(y + e) - A(y), the mask M, the Fourier transform F, the coil sensitivities S of the fully
    sampled data, and w, |d| smoothed over 2 pixels, which gathers e where the method amplifies most.

    Notes
    -----
    The gradient of ‖A(y + e) - A(y)‖ needs the adjoint of A's derivative, but methods are black boxes, some of them not
    differentiable, and each has its coil maps estimated from the same samples. M F S, the adjoint of the plain
    reconstruction, stands in for it, so the steps need not ascend. The best of all is kept; it is a **lower bound** of
    the worst case: a method that looks stable here may be unstable against perturbations that are not found.

    Parameters
    ----------
    steps : of the ascent

    Returns
    -------
    values, random and worst
    """
    measured = case.measured()
    maps = sensitivities(case.kspace)
    image = reconstruct(measured)
    size = PERTURBATION * float(np.linalg.norm(measured))
    random = np.random.default_rng(0).standard_normal((2, *measured.shape))
    direction = _normalised((random[0] + 1j * random[1]) * case.mask)
    values: list[dict[str, Any]] = []
    for step in range(steps + 1):
        change = reconstruct((measured + size * direction).astype(np.complex64)) - image
        amplification = float(np.linalg.norm(change) / max(float(np.linalg.norm(image)), 1e-12)) / PERTURBATION
        values.append({"what": f"step {step}" if step else "random", "amplification": amplification})
        ascent = received_kspace(change * gaussian_filter(np.abs(change), SMOOTHING), maps) * case.mask
        direction = _normalised(direction + _normalised(ascent))
    worst = max(value["amplification"] for value in values)
    return {"values": values, "random": values[0]["amplification"], "worst": worst}


def _normalised(direction: Array) -> Array:
    return direction / max(float(np.linalg.norm(direction)), 1e-12)


def acceleration_part(reconstruct: Reconstruct, case: Case) -> dict[str, Any]:
    """PSNR with other accelerations and patterns than the case's."""
    return {"values": _with_masks(reconstruct, case, other_masks(case.mask.shape))}


def more_samples_part(reconstruct: Reconstruct, case: Case) -> dict[str, Any]:
    """Whether the image is never worse with more samples: PSNR with nested masks.

    Returns
    -------
    values; largest_drop (dB, of a mask against any one that it contains, 0 when there is none); passed (it is at most
    0.1 dB)
    """
    values = _with_masks(reconstruct, case, nested_masks(case.mask.shape))
    best = np.maximum.accumulate([value["psnr"] for value in values])
    drop = max(float(before) - value["psnr"] for before, value in zip(best, values, strict=True))
    return {"values": values, "largest_drop": drop, "passed": drop <= ALLOWED_DROP}


def _with_masks(reconstruct: Reconstruct, case: Case, masks: Mapping[str, Mask]) -> list[dict[str, Any]]:
    values = []
    for name, mask in masks.items():
        quality = psnr(reconstruct(replace(case, mask=mask).measured()), case.reference)
        values.append({"what": name, "acceleration": float(mask.size / mask.sum()), "psnr": quality})
    return values
