"""The phase between readouts of opposite polarity: estimated, and taken from those that were read backwards.

A readout gradient of the opposite sign reads k-space from the other end. Delays of gradients and receiver shift it by a
fraction of a sample against the others, eddy currents and the receiver add a constant phase. In hybrid space (image
along the readout, k-space along the rest) a line that was turned round is

    R(x) = F(x) exp(i (2 pi shift (x - n // 2) / n + constant)),

F the line that the other polarity would have given. Lines of both polarities in one image make a ghost out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gadgets.twins.fourier import centred_fft

Array = np.ndarray[Any, np.dtype[Any]]

COILS = 6  # virtual coils in which lines are compared
WINDOW_VALUES = 36  # lines of a window times virtual coils
LONGEST_WINDOW = 9
MOST_WINDOWS = 96
MOST_POSITIONS = 96  # readout positions, those with the most signal
CONSTANTS = 24  # constant phases at which the cost is computed; between them it is interpolated
LARGEST_SHIFT = 4.0  # samples that an estimate from the image may find
SHIFT_STEP = 0.125
# Part of the costs' range by which the lowest one is below all at shifts more than a sample away: 0.2 and more where
# lines have neighbours of the other polarity, below 0.2 and often wrong where they have not (phantom, four coils).
LEAST_DEPTH = 0.2
LEAST_CENTRAL = 0.2  # 0.4 for a disc as wide as 0.8 of the field of view, 0 for one that fills it
LEAST_FALL = 0.003  # of the mean cost, by which the lowest one is below it: 0.001 for noise, 0.005 and more for images


@dataclass(frozen=True)
class PolarityPhase:
    """Shift along k-space in samples and constant phase in radians of lines that were read backwards."""

    shift: float
    constant: float

    def removed(self, lines: Array, axis: int = -1) -> Array:
        """The k-space lines (any shape, samples along `axis`) without this phase, complex64."""
        samples = lines.shape[axis]
        hybrid = np.moveaxis(centred_fft(lines, (axis,), inverse=True), axis, -1)
        hybrid = hybrid * np.exp(-1j * (2 * np.pi * self.shift / samples * _positions(samples) + self.constant))
        return centred_fft(np.moveaxis(hybrid, -1, axis), (axis,)).astype(np.complex64)


def _positions(samples: int) -> Array:
    return np.arange(samples) - samples // 2


def between(forward: Array, backward: Array) -> Array:
    """Product R F* over coils and lines, by readout position: its phase is that of the lines read backwards.

    Parameters
    ----------
    forward, backward : complex k-space of the same places, (readout, ...)

    Returns
    -------
    complex array (readout,)
    """
    first, second = (centred_fft(lines, (0,), inverse=True).reshape(len(lines), -1) for lines in (forward, backward))
    product: Array = (second * first.conj()).sum(axis=1)
    return product


def fitted(product: Array) -> PolarityPhase:
    """Linear phase and constant of a product R F* (readout,), by its phase from pixel to pixel, then least squares.

    The phase from pixel to pixel (Ahn and Cho, IEEE TMI 1987) needs no unwrapping; the weights are the magnitudes.
    """
    samples, weights, positions = len(product), np.abs(product), _positions(len(product))
    if not weights.any():
        return PolarityPhase(0.0, 0.0)
    slope = float(np.angle((product[1:] * product[:-1].conj()).sum()))
    constant = 0.0
    for _ in range(3):
        rest = product * np.exp(-1j * (slope * positions + constant))
        offset = float(np.angle(rest.sum()))
        residual = np.angle(rest * np.exp(-1j * offset))
        mean = (weights * positions).sum() / weights.sum()
        spread = (weights * (positions - mean) ** 2).sum()
        more = float((weights * (positions - mean) * residual).sum() / spread) if spread > 0 else 0.0
        level = float((weights * residual).sum() / weights.sum())
        slope, constant = slope + more, constant + offset + level - more * float(mean)
    return PolarityPhase(slope * samples / (2 * np.pi), float(np.angle(np.exp(1j * constant))))


def within_image(kspace: Array, measured: Array, backward: Array) -> PolarityPhase | None:
    """The phase between the lines of one image, from the image alone.

    Neighbouring lines of all coils depend on each other: the matrix of all windows of successive lines has few large
    singular values, and a wrong phase adds those of a ghost. Shift and constant are those whose matrices, one for each
    readout position, have the smallest sum of singular values (the low rank of Peterson et al., NeuroImage 2015, with
    the convex measure). Where polarities alternate, pi more is the same image half a field of view away: the constant
    is taken whose object lies around the middle of the field of view, else the smaller one.

    Parameters
    ----------
    kspace : complex array [RO, E1, E2, CHA], lines read backwards already turned round
    measured, backward : bool arrays [E1, E2]

    Returns
    -------
    The phase, or None where the image does not tell: no window has lines of both polarities, too few coils for what
    was left out, noise.
    """
    lines = min(max(WINDOW_VALUES // min(kspace.shape[3], COILS), 4), LONGEST_WINDOW)
    windows = _windows(measured, backward, lines)
    if windows is None:
        return None
    energy = line_energy(kspace)[windows[..., 0], windows[..., 1]].sum(axis=1)
    windows = windows[np.sort(np.argsort(-energy, kind="stable")[:MOST_WINDOWS])]
    reversed_lines = backward[windows[..., 0], windows[..., 1]]
    if not (reversed_lines.any(axis=1) & ~reversed_lines.all(axis=1)).any():
        return None
    samples = _virtual_coils(kspace[:, windows[..., 0], windows[..., 1]])
    values = centred_fft(samples, (0,), inverse=True)  # position, window, line, coil
    signal = (np.abs(values) ** 2).sum(axis=(1, 2, 3))
    chosen = np.sort(np.argsort(-signal, kind="stable")[:MOST_POSITIONS])
    chosen = chosen[signal[chosen] > 1e-3 * signal.max()]
    costs = _costs(values[chosen], reversed_lines)
    found, ambiguous = _lowest(costs, _positions(len(kspace))[chosen], len(kspace))
    if found is None or not ambiguous or _central(kspace, measured, backward, found) > -LEAST_CENTRAL:
        return found
    return PolarityPhase(found.shift, float(np.angle(-np.exp(1j * found.constant))))


def _central(kspace: Array, measured: Array, backward: Array, phase: PolarityPhase) -> float:
    """Mean of cos(2 pi y / field of view) over an image's energy, from neighbouring lines of opposite polarity.

    It is 1 for a point in the middle of the field of view, -1 for one at its edge, 0 where no lines are neighbours.
    """
    positions = _positions(len(kspace))
    inverse = np.exp(-1j * (2 * np.pi * phase.shift / len(kspace) * positions + phase.constant))
    total = energy = 0.0
    for axis in (0, 1):
        here, after = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        apart = measured[here] & measured[after] & (backward[here] != backward[after])
        turned = backward[here][apart][:, None]
        lines, others = (np.moveaxis(np.moveaxis(kspace, 0, 2)[part][apart], 1, 0) for part in (here, after))
        forward, reverse = np.where(turned, others, lines), np.where(turned, lines, others)
        total += float((between(forward, reverse) * inverse).real.sum())
        energy += float((np.abs(forward) ** 2).sum() + (np.abs(reverse) ** 2).sum()) / 2
    return total / energy if energy else 0.0


def line_energy(kspace: Array) -> Array:
    """Energy of each line [E1, E2] of k-space [RO, E1, E2, CHA]; no copy of it is made."""
    energy = np.zeros(kspace.shape[1:3])
    for plane in kspace:
        energy += (np.abs(plane) ** 2).sum(axis=2)
    return energy


def _virtual_coils(samples: Array) -> Array:
    """Samples (..., coil) of the virtual coils, COILS at most, with the most energy."""
    flat = samples.reshape(-1, samples.shape[-1])
    _, vectors = np.linalg.eigh(flat.conj().T @ flat)
    virtual: Array = samples @ vectors[:, ::-1][:, :COILS].astype(np.complex64)
    return virtual


def _windows(measured: Array, backward: Array, lines: int) -> Array | None:
    """Places (window, line, 2) of evenly spaced measured lines along E1 or E2.

    Of all spacings and both axes, those of which most windows have both polarities.
    """
    best: Array | None = None
    most = 0
    for axis in (0, 1):
        for spacing in range(1, 5):
            steps = spacing * np.arange(lines)
            starts = np.argwhere(np.ones_like(measured))
            starts = starts[starts[:, axis] + steps[-1] < measured.shape[axis]]
            places = np.repeat(starts[:, None], lines, axis=1)
            places[..., axis] += steps
            places = places[measured[places[..., 0], places[..., 1]].all(axis=1)]
            turned = backward[places[..., 0], places[..., 1]]
            both = int((turned.any(axis=1) & ~turned.all(axis=1)).sum())
            if both > most:
                best, most = places, both
    return best


def _costs(values: Array, backward: Array) -> Array:
    """Sum of singular values of the matrix of windows, by readout position and constant phase of backward lines.

    values : (position, window, line, coil); backward : (window, line). Returns (position, CONSTANTS).
    """
    positions, windows, lines, coils = values.shape
    flat = values.reshape(positions, windows, lines * coils)
    turned = np.repeat(backward, coils, axis=1)[None]
    forward_part, backward_part = np.where(turned, 0, flat), np.where(turned, flat, 0)

    def product(first: Array, second: Array) -> Array:
        result: Array = first.conj().swapaxes(1, 2) @ second
        return result

    same = product(forward_part, forward_part) + product(backward_part, backward_part)
    mixed = product(forward_part, backward_part)
    costs = np.empty((positions, CONSTANTS))
    for index, constant in enumerate(_constants()):
        turn = mixed * np.exp(-1j * constant)
        eigenvalues = np.linalg.eigvalsh(same + turn + turn.conj().swapaxes(1, 2))
        costs[:, index] = np.sqrt(np.maximum(eigenvalues, 0)).sum(axis=1)
    return costs


def _constants() -> Array:
    return 2 * np.pi * np.arange(CONSTANTS) / CONSTANTS


def _lowest(costs: Array, positions: Array, samples: int) -> tuple[PolarityPhase | None, bool]:
    """Shift and constant of the lowest cost, summed over the readout positions; None where it is not distinct.

    Also whether pi more has as low a cost; then the constant is the smaller one.
    """
    from scipy.optimize import minimize

    harmonics = np.fft.fft(costs, axis=1) / CONSTANTS  # in the constant phase
    orders = np.fft.fftfreq(CONSTANTS, 1 / CONSTANTS)

    def cost(parameters: Any) -> float:
        shift, constant = parameters
        phase = 2 * np.pi * shift / samples * positions + constant
        return float((harmonics * np.exp(1j * np.outer(phase, orders))).sum().real)

    shifts = np.arange(-LARGEST_SHIFT, LARGEST_SHIFT + SHIFT_STEP / 2, SHIFT_STEP)
    ramps = np.exp(2j * np.pi / samples * positions[None, :, None] * shifts[:, None, None] * orders)
    sums = (harmonics[None] * ramps).sum(axis=1)  # (shift, order)
    table = (np.fft.ifft(sums, axis=1) * CONSTANTS).real  # (shift, constant)
    row, column = np.unravel_index(table.argmin(), table.shape)
    span = table.max() - table.min()
    elsewhere = table[abs(shifts - shifts[row]) > 1].min()
    if elsewhere - table.min() < LEAST_DEPTH * span or table.mean() - table.min() < LEAST_FALL * table.mean():
        return None, False
    opposite = (column + CONSTANTS // 2) % CONSTANTS
    constants = np.angle(np.exp(1j * _constants()))
    ambiguous = bool(table[row, opposite] - table[row, column] < 0.05 * span)
    if ambiguous and abs(constants[opposite]) < abs(constants[column]):
        column = opposite
    start = (shifts[row], constants[column])
    simplex = [start, (start[0] + SHIFT_STEP / 2, start[1]), (start[0], start[1] + np.pi / CONSTANTS)]
    found = minimize(cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-3})
    shift, constant = found.x
    return PolarityPhase(float(shift), float(np.angle(np.exp(1j * constant)))), ambiguous
