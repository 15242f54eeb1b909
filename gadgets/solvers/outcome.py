"""What is reconstructed at a time, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Problems:
    """2D problems of one size: slices, or readout positions of volumes.

    Parameters
    ----------
    kspace : complex64 (batch, coil, y, x), of signal level 1
    mask : bool (batch, 1, y, x)
    maps : complex64 (batch, set, coil, y, x)
    level : float32 (batch,), signal level that the k-space was divided by
    noise : float32 (batch,), standard deviation of the noise of the k-space in each part; 0 where it is not known
    keys : what tells each problem from all others of the scan
    """

    kspace: Tensor
    mask: Tensor
    maps: Tensor
    level: Tensor
    noise: Tensor
    keys: Sequence[Hashable]

    def __len__(self) -> int:
        return len(self.kspace)

    def part(self, chosen: Tensor) -> Problems:
        """Some of the problems, by their indices."""
        keys = [self.keys[index] for index in chosen.tolist()]
        kspace, mask, maps = self.kspace[chosen], self.mask[chosen], self.maps[chosen]
        return Problems(kspace, mask, maps, self.level[chosen], self.noise[chosen], keys)


@dataclass
class Outcome:
    """Images of a reconstruction, and what must be said of how they came about.

    Parameters
    ----------
    images : complex64 (batch, y, x)
    deviations : float32 (batch, y, x), standard deviation of the magnitude over posterior samples; None of one sample
    notes : meta attributes by name, of each image
    warnings : what users must know of each image, for its meta and DICOM
    mean : complex64 (batch, y, x), mean of the posterior samples, where `images` have the mean of their magnitudes
    sets : complex64 (batch, set, y, x), images of the map sets that `images` combines; None where nobody asks for them
    coils : complex64 (batch, coil, y, x), coil images that `images` combines, of a method that finds those
    """

    images: Tensor
    deviations: Tensor | None = None
    notes: list[dict[str, str]] = field(default_factory=list)
    warnings: list[list[str]] = field(default_factory=list)
    mean: Tensor | None = None
    sets: Tensor | None = None
    coils: Tensor | None = None

    def __post_init__(self) -> None:
        self.notes = self.notes or [{} for _ in self.images]
        self.warnings = self.warnings or [[] for _ in self.images]

    def part(self, chosen: slice) -> Outcome:
        """The outcome of some of the problems."""
        found = {name: values[chosen] for name, values in self._optional().items()}
        return Outcome(self.images[chosen], notes=self.notes[chosen], warnings=self.warnings[chosen], **found)

    def put(self, chosen: Tensor, part: Outcome) -> None:
        """Take the outcome of some of the problems, by their indices; what only other problems have is zero there."""
        self.images[chosen] = part.images
        for name, values in part._optional().items():
            if getattr(self, name) is None:
                setattr(self, name, values.new_zeros(len(self.images), *values.shape[1:]))
            getattr(self, name)[chosen] = values
        for problem, notes, warnings in zip(chosen.tolist(), part.notes, part.warnings, strict=True):
            self.notes[problem], self.warnings[problem] = notes, warnings

    def scale(self, level: Tensor) -> None:
        """Multiply all images of each problem by its level, float32 (batch,)."""
        for values in (self.images, *self._optional().values()):
            values *= level.reshape(-1, *[1] * (values.dim() - 1))

    def _optional(self) -> dict[str, Tensor]:
        parts = {"deviations": self.deviations, "mean": self.mean, "sets": self.sets, "coils": self.coils}
        return {name: values for name, values in parts.items() if values is not None}

    def warn(self, text: str) -> None:
        """Add a warning to every image."""
        for warnings in self.warnings:
            warnings.append(text)

    def note(self, name: str, text: str) -> None:
        """Set a meta attribute of every image."""
        for notes in self.notes:
            notes[name] = text


Solve = Callable[[Problems], Outcome]
