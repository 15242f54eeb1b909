"""The images of a buffer that are to be reconstructed, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from gadgetron.types.recon_data import ReconBit
from torch import Tensor

from gadgets.acquisitions import IMAGE_COUNTERS
from gadgets.buffers import Array, sampled
from gadgets.images import COMPLETED_CALIBRATION, FOLDED
from gadgets.solvers.generative import CONSISTENCY
from gadgets.solvers.outcome import Outcome
from priors.settings import DataStepName
from priors.signal.aliasing import folds
from priors.signal.coverage import Acquired


@dataclass(frozen=True)
class NoiseMaps:
    """Noise of one image or volume.

    Parameters
    ----------
    images : complex64 (batch, y, x), the image that the noise is of
    deviation : float32 (batch, y, x), of the image in each part, in units of the noise of one readout; 0 where the
        method has no image
    level : noise of one readout, in the units of the k-space; 0: not known
    fully_sampled : deviation that g = 1 stands for
    notes : meta attributes
    warnings : what users must know of the maps
    """

    images: Tensor
    deviation: Tensor
    level: float
    fully_sampled: float
    notes: dict[str, str]
    warnings: list[str]


@dataclass
class ImageWork:
    """One image or volume that is to be reconstructed: its place in the buffer, its problems and its outcome."""

    place: tuple[int, int, int]  # N, S, LOC
    counters: tuple[int, ...]  # encoding space, slice and all else that tells it from the scan's other images
    kspace: Tensor
    mask: Tensor
    maps: Tensor
    prewhitened: float  # noise level that prewhitening and averaging left; 0: not prewhitened
    merged: int = 1  # averages that its k-space is the mean of
    noise: float = 0.0  # in the units of the k-space; 0: not known
    doubt: str = ""  # whether its lines came
    acquired: tuple[Acquired, ...] | None = None  # where one side of its k-space is missing
    choice: tuple[DataStepName, str] = ("auto", "")
    outcome: Outcome | None = None
    phasor: Tensor | None = None  # what gives the image the phase that those of its slice are relative to
    averages: Array | None = None  # [RO, E1, E2]: how many readouts each sample is the mean of; None: not known
    noise_maps: NoiseMaps | None = None
    estimated: float = 0.0  # noise of a readout, estimated for noise maps
    remarks: list[str] = field(default_factory=list)  # warnings about what else was asked for

    def deviation(self) -> Tensor:
        """Noise of each sample [RO, E1, E2] in units of that of a readout; 0 where none was measured."""
        assert self.averages is not None
        counts = torch.from_numpy(np.ascontiguousarray(self.averages, np.float32))
        return torch.where(counts > 0, counts.clamp_min(1).rsqrt(), 0)

    def notes(self) -> dict[str, str]:
        """Meta attributes of all of its problems."""
        found = {name: text for notes in self.outcome.notes for name, text in notes.items()} if self.outcome else {}
        if found.get(CONSISTENCY) == self.choice[0] and self.choice[1]:
            found[CONSISTENCY] += f" ({self.choice[1]})"
        return found

    def warnings(self) -> list[str]:
        """Warnings of all of its problems, each once."""
        found = [text for warnings in self.outcome.warnings for text in warnings] if self.outcome else []
        if not bool((self.kspace != 0).any()):
            found.append("no sample was measured: the image is empty")
        found += [self.doubt] if self.doubt else []
        found += self.remarks
        return list(dict.fromkeys(found))


@dataclass
class BufferWork:
    """The images of one ReconBit."""

    space: int
    bit: ReconBit
    data: Array
    headers: Array
    sets: int
    images: list[ImageWork]

    @cached_property
    def calibration_warnings(self) -> list[str]:
        """What users must know of the calibration, the same for all images."""
        if getattr(self.bit, "calibration", "measured") != "completed":
            return []
        folded = folds(sampled(self.bit.data.data[..., 0, 0, 0])[0])
        return [COMPLETED_CALIBRATION, FOLDED] if folded else [COMPLETED_CALIBRATION]


def image_counters(space: int, lines: Array) -> tuple[int, ...]:
    """What tells an image from all others of the scan: its encoding space and the counters of its first line."""
    first = next((head for head in lines.flat if head.number_of_samples), None)
    return (space, *(int(getattr(first.idx, name)) if first is not None else 0 for name in IMAGE_COUNTERS))
