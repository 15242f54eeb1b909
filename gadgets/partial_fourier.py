"""Partial Fourier in a scan: which side of k-space did not come, by the samples that did, and filling it in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor

from gadgets.buffers import Array, is_3d
from gadgets.images import PARTIAL_FOURIER, PARTIAL_FOURIER_DIRECTION
from gadgets.solvers.measured_noise import measured_noise
from gadgets.solvers.outcome import Outcome
from gadgets.stream import one_line
from priors.classical.partial_fourier import FEWEST, PartialFourierName, partial_fourier
from priors.registry import is_generative
from priors.signal.combination import combine_coils, combine_sets
from priors.signal.coverage import Acquired, partial_axes

if TYPE_CHECKING:
    from gadgets.solvers.work import ImageWork

log = logging.getLogger("genrecon")

CHOICES = ("off", "auto", "pocs", "homodyne")
OUTER_LINES = 32  # one of so many lines may be missing at one side of a scan that is not partial
EMPTY = 0.01  # of the energy of the other side: samples of a readout that were not measured
CLIFF = 4  # samples of a readout within which its energy falls to EMPTY where zeros follow,
NEAREST = 8  # no nearer to the centre than this part of the matrix
LEAST_TRUST = 0.18  # mean trust in conjugate symmetry below which an image stays zero-filled

_NAMES = {"FREQUENCY": "readout", "PHASE": "phase encoding", "SLICE_SELECT": "partition encoding"}


def acquired_part(data: Array) -> tuple[Acquired, ...] | None:
    """The acquired part of an image's k-space along each axis, where one side of it is missing.

    Decided by the samples, not by the header. Gaps of undersampling and a few missing outer lines make no missing side;
    neither do corners that an elliptical shutter leaves out, or a resolution that is less on both sides. Lines that
    only a calibration region has count where they are used for the image. The unmeasured samples of an asymmetric echo
    are no zeros any more where the readout's oversampling was removed: they are known by their energy.

    Parameters
    ----------
    data : complex64 array [RO, E1, E2, CHA]

    Returns
    -------
    tuple of Acquired, or None
        In the order of the problems: E1, RO in 2D, and RO, E1, E2 in 3D; None where no side is missing, or the centre.
    """
    three_d = is_3d(data)
    energy = np.square(np.abs(data)).sum(axis=3)
    came = energy > 0
    lines = came.any(axis=0)
    parts = [_readout(energy.sum(axis=(1, 2))), _lines(lines.any(axis=1)), _lines(lines.any(axis=0))]
    found = tuple(parts) if three_d else (parts[1], parts[0])
    if any(one is None for one in found):
        return None
    acquired = tuple(one for one in found if one is not None)
    return acquired if partial_axes(acquired) else None


def _lines(came: Array) -> Acquired | None:
    """Acquired part of a phase encoding, of the lines that came; None where the centre is not among them."""
    size, places = len(came), np.flatnonzero(came)
    if not len(places) or size == 1:
        return Acquired(size, 0, size) if size == 1 else None
    centre, first, last = size // 2, int(places[0]), int(places[-1])
    gap = int(np.diff(places).max(initial=1))  # also beyond the last line, by undersampling
    if not first <= centre <= last:
        return None
    low, high = centre - first, last - centre
    # What is missing for an even matrix, whose last line has no counterpart, is no missing side.
    if abs(low - high) <= size // OUTER_LINES + gap:
        half = max(low, high)
        return Acquired(size, max(centre - half, 0), min(centre + half + 1, size))
    return Acquired(size, first, last + 1)


def _readout(energy: Array) -> Acquired:
    """Acquired part of a readout, by the energy of its samples."""
    size, centre = len(energy), len(energy) // 2
    last, most = size - 1 - centre, size // OUTER_LINES + 1  # samples on the shorter side; those that may be missing
    low, high = _extent(energy[centre::-1]), _extent(energy[centre:])
    if max(low, high) >= last:  # else zeros are on both sides
        mirror = 2 * centre - np.arange(size)
        for side in (np.arange(size), np.arange(size)[::-1]):
            missing = 0
            for place in side.tolist():
                other = int(mirror[place])
                if not 0 <= other < size:
                    continue
                if place == centre or energy[place] > EMPTY * energy[other] or not energy[other]:
                    break
                missing = abs(place - centre)
            # `missing` is the distance of the last empty sample to the centre; the next one is the first that came.
            if missing and last - missing + 1 > most:
                near = missing - 1
                return Acquired(size, centre - near, size) if side[0] == 0 else Acquired(size, 0, centre + near + 1)
    first, stop = max(centre - max(low, high), 0), min(centre + max(low, high) + 1, size)
    if min(high, last) - low > most + 1:
        return Acquired(size, centre - low, stop)
    if min(low, last) - high > most + 1:
        return Acquired(size, first, centre + high + 1)
    return Acquired(size, 0, size)


def _extent(energy: Array) -> int:
    """Distance of the last sample that came, of one side of a readout from its centre on.

    Behind it all are empty, except the outermost ones: where oversampling was removed, they hold what wraps round.
    """
    inner = energy[: -CLIFF // 2]
    behind = np.maximum.accumulate(inner[::-1])[::-1]  # the highest from each sample on
    falls = behind[CLIFF:] <= EMPTY * inner[:-CLIFF]
    falls[: 2 * len(energy) // NEAREST] = False
    if not falls.any() or not energy[0]:
        return len(energy) - 1
    return int(np.flatnonzero(inner > inner[falls.argmax()] / 4)[-1])


def _directions(acquired: tuple[Acquired, ...]) -> list[str]:
    """The axes that have a missing side, by DICOM's terms (0018,9036); it says COMBINATION of several."""
    order = ("PHASE", "FREQUENCY") if len(acquired) == 2 else ("FREQUENCY", "PHASE", "SLICE_SELECT")
    return [order[axis] for axis in partial_axes(acquired)]


def coverage_text(acquired: tuple[Acquired, ...]) -> str:
    """Text such as "phase encoding 63 %"."""
    axes = zip(_directions(acquired), partial_axes(acquired), strict=True)
    return ", ".join(f"{_NAMES[name]} {100 * acquired[axis].fraction:.0f} %" for name, axis in axes)


def filling(choice: str, method: str) -> PartialFourierName | None:
    """What a choice of the property makes of a method's images: `pocs`, `homodyne`, or None for nothing.

    The images of generative methods are nearer to the truth as they are, though less sharp: they know the phase.
    """
    if choice == "auto":
        return None if is_generative(method) else "pocs"
    return next((name for name in get_args(PartialFourierName) if name == choice), None)


def coverage_notes(acquired: tuple[Acquired, ...] | None, method: str) -> dict[str, str | list[str]]:
    """Meta attributes of an image whose missing side stays as the method left it; none where none is missing."""
    if acquired is None:
        return {}
    left = "left to the prior" if is_generative(method) else "not filled in"
    return {
        PARTIAL_FOURIER: f"{coverage_text(acquired)}: {left}",
        PARTIAL_FOURIER_DIRECTION: _directions(acquired),
    }


def fill_missing_side(image: ImageWork, choice: PartialFourierName) -> None:
    """Fill in the missing side of an image's k-space, and say so in the notes and warnings of its outcome.

    Parameters
    ----------
    image : with an outcome that has `sets`, and with its acquired part
    choice : by what
    """
    acquired, outcome = image.acquired, image.outcome
    assert acquired is not None and outcome is not None
    method = choice
    if method == "homodyne" and len(partial_axes(acquired)) > 1:
        method = "pocs"
        outcome.warn("partial Fourier along more than one axis: filled in by pocs, homodyne cannot")
    short = min(one.short for one in acquired if one.partial)
    if short < FEWEST or outcome.sets is None:
        reason = f"{short} samples past the centre of k-space are too few to know the phase"
        outcome.warn(f"partial Fourier: {reason}; the missing side stays zero")
        return
    sets = outcome.sets
    three_d = len(acquired) == 3
    volume = (sets.movedim(0, 1) if three_d else sets[0])[None]  # (1, set, ...)
    try:
        found, trust = partial_fourier(volume, acquired, method, _noise(image, acquired))
    except (ValueError, RuntimeError, MemoryError) as error:
        outcome.warn(f"partial Fourier: the missing side stays zero: {one_line(error)}")
        return
    mean = float(trust[0])
    if mean < LEAST_TRUST:
        outcome.note(PARTIAL_FOURIER, f"{coverage_text(acquired)}: zero-filled, trust {mean:.2f}")
        outcome.warn("partial Fourier: the phase of the image changes too fast; the missing side stays zero")
        return
    new = found[0].movedim(1, 0) if three_d else found[0][None]
    outcome.images = _with_sets(outcome, new, image.maps)
    outcome.note(PARTIAL_FOURIER, f"{coverage_text(acquired)}: filled in by {method}, trust {mean:.2f}")
    if image.noise_maps is not None:
        image.remarks.append("noise maps are those of the image before its missing side of k-space was filled in")


def _with_sets(outcome: Outcome, sets: Tensor, maps: Tensor) -> Tensor:
    """Images (batch, y, x) with other set images; magnitudes change by what their coil images change."""
    images = torch.empty_like(outcome.images)
    assert outcome.sets is not None
    for index in range(len(images)):
        one = slice(index, index + 1)
        change = sets[one] - outcome.sets[one]
        if outcome.coils is None:
            images[one] = combine_sets(sets[one], maps[one])
            continue
        coils = outcome.coils[one]
        changed = coils + (maps[one] * change[:, :, None]).sum(1)
        if outcome.mean is not None:
            outcome.mean[one] = combine_coils(changed, sets[one, 0])
        norms = [torch.linalg.vector_norm(array, dim=1) for array in (changed, coils)]
        images[one] = torch.polar((outcome.images[one].abs() + norms[0] - norms[1]).clamp_min(0), sets[one, 0].angle())
    return images


def _noise(image: ImageWork, acquired: tuple[Acquired, ...]) -> float:
    """Noise level of the k-space of a combined image: that of the data, of as many samples as would fill it."""
    mask = image.mask[:, None]
    level = image.noise or measured_noise(image.kspace, mask, image.prewhitened)
    rows, columns = (slice(one.first, one.stop) for one in acquired[-2:])
    share = float(image.mask[..., rows, columns].float().mean())
    return level / max(share, 1e-3) ** 0.5
