"""How good a calibration is: what the coil maps that were made of it explain of its signal."""

from __future__ import annotations

import torch
from gadgetron.types.recon_data import ReconBit
from torch import Tensor

from gadgets.buffers import maps_of, maps_problems
from gadgets.stream.logs import facts_are_wanted, log_fact
from gadgets.twins.noise_adjust import is_prewhitened
from priors.data_steps.choice import UNEXPLAINED, unexplained_fraction
from priors.signal.noise import noise_level

MOST_CALIBRATIONS = 8  # of a scan that are looked at: each takes a tenth of the time of its maps
FINEST_GRID = 48  # points along an axis that maps are looked at on, or twice the calibration's samples
SOURCES = {"measured": "", "completed": "completed by low rank, ", "all repetitions": "of all repetitions, "}


class CalibrationQuality:
    """Tells of the worst of a scan's first calibrations (`log_fact`), for the status page of `genrecon serve`."""

    def __init__(self) -> None:
        self._left = MOST_CALIBRATIONS
        self._worst = 2.0
        self._noise = 0.0

    def add(self, calibrations: list[list[Tensor]], bit: ReconBit, source: str) -> None:
        """Look at the calibrations of a buffer and the maps that were made of them, if anyone wants to know.

        Parameters
        ----------
        calibrations : k-space (batch, coil, cy, cx) for each LOC and S
        bit : with `coil_maps`
        source : "measured", "completed" or "all repetitions"
        """
        if not facts_are_wanted():
            return
        prewhitened = 1.0 if is_prewhitened(bit.data.headers) else 0.0
        for loc, row in enumerate(calibrations):
            for s, batch in enumerate(row):
                if not self._left:
                    return
                self._left -= 1
                middle = len(batch) // 2  # of the readout positions of a volume
                calibration = batch[middle]
                if not self._noise:
                    self._noise = prewhitened or own_noise(calibration)
                maps = maps_problems(maps_of(bit.coil_maps, s, loc))[middle]
                explained = explained_fraction(calibration, maps, self._noise)
                if explained < self._worst:
                    self._worst = explained
                    log_fact("calibration", calibration_text(tuple(calibration.shape[1:]), source, explained))


def own_noise(calibration: Tensor) -> float:
    """Noise of a calibration k-space (coil, cy, cx), standard deviation in each part, estimated from itself."""
    return noise_level(calibration[None], torch.ones(1, 1, *calibration.shape[1:], dtype=torch.bool))


def explained_fraction(calibration: Tensor, maps: Tensor, noise: float) -> float:
    """Fraction of the calibration signal that coil maps explain (see `unexplained_fraction`), on a coarse grid.

    Parameters
    ----------
    calibration : complex64 (coil, cy, cx), k-space whose centre sample is at half its size
    maps : complex64 (set, coil, y, x)
    noise : of the calibration, standard deviation in each part
    """
    steps = [
        _step(size, max(FINEST_GRID, 2 * wanted))
        for size, wanted in zip(maps.shape[2:], calibration.shape[1:], strict=True)
    ]
    coarse = maps[:, :, (maps.shape[2] // 2) % steps[0] :: steps[0], (maps.shape[3] // 2) % steps[1] :: steps[1]]
    kspace = torch.zeros(coarse.shape[1:], dtype=calibration.dtype)
    sizes = list(zip(kspace.shape[1:], calibration.shape[1:], strict=True))
    part = [_middle(whole, size) for whole, size in sizes]
    own = [_middle(size, whole) for whole, size in sizes]  # reference lines may be more than the matrix has
    kspace[:, part[0], part[1]] = calibration[:, own[0], own[1]]
    mask = torch.zeros(1, 1, *kspace.shape[1:], dtype=torch.bool)
    mask[..., part[0], part[1]] = True
    return 1 - min(unexplained_fraction(kspace[None], mask, coarse[None], torch.tensor([noise])), 1.0)


def calibration_text(size: tuple[int, ...], source: str, explained: float) -> str:
    """Text for the status page and the log: size and source of a calibration, and how well the maps explain it.

    Parameters
    ----------
    size : of its samples along each axis
    source : "measured", "completed" or "all repetitions"
    explained : of its signal by the coil maps, the least of all slices
    """
    text = f"{' x '.join(map(str, size))} samples, {SOURCES.get(source, '')}"
    text += f"coil maps explain {explained:.1%} of its signal"
    return f"{text}: expect artefacts" if explained < 1 - UNEXPLAINED else text


def _middle(size: int, wanted: int) -> slice:
    """So many samples about the centre of an axis, all where there are fewer."""
    begin = size // 2 - min(wanted, size) // 2
    return slice(begin, begin + min(wanted, size))


def _step(size: int, wanted: int) -> int:
    """The largest divisor of a size that leaves so many points, 1 if none does."""
    return next((step for step in range(size // wanted, 1, -1) if size % step == 0), 1)
