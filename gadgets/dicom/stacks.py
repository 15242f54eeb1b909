"""Stacks: frames that are a volume, or one volume after the other, with pixels on one regular grid in the patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gadgets.dicom.frames import Frame

SAME_PLACE_MM = 0.02  # positions closer than this are one; slices further off their places are no regular grid
SAME_DIRECTION = 1e-4  # cosines that differ less are those of parallel slices: 0.05 mm at 500 mm


@dataclass(frozen=True)
class Stack:
    """Parallel, equidistant slices of one echo, in one or more volumes.

    Pixel (x, y) of slice z has its centre at `origin + x dx row + y dy column + z dz step`, patient coordinates (LPS).

    Attributes
    ----------
    volumes : frames, by volume and slice; slices along `step`, volumes by repetition, average, set, phase, channel
    row, column, step : unit vectors of increasing x, y and z; step is row x column
    spacing : distance between pixel centres along x, y and z, mm; of a single slice its thickness along z
    """

    volumes: list[list[Frame]]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    step: NDArray[np.float64]
    spacing: tuple[float, float, float]

    @property
    def first(self) -> Frame:
        """The first slice of the first volume."""
        return self.volumes[0][0]

    @property
    def frames(self) -> list[Frame]:
        """All frames, slices innermost."""
        return [frame for volume in self.volumes for frame in volume]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Pixels along x, y and z, and volumes."""
        rows, columns = self.first.shape
        return columns, rows, len(self.volumes[0]), len(self.volumes)

    @property
    def lowest_number(self) -> int:
        """The lowest InstanceNumber of its frames."""
        return min(int(frame.dataset.InstanceNumber) for frame in self.frames)

    def affine(self) -> NDArray[np.float64]:
        """Patient position (LPS, mm) of pixel indices: float64 (4, 4), applied to (x, y, z, 1)."""
        dx, dy, dz = self.spacing
        axes = np.stack([dx * self.row, dy * self.column, dz * self.step, self.first.position], axis=1)
        return np.concatenate([axes, [[0.0, 0.0, 0.0, 1.0]]])


def stacks_of(frames: Sequence[Frame]) -> list[Stack]:
    """The stacks of a series: by echo, and in each by InstanceNumber.

    Frames differ in stack when their echo, matrix, pixel size, thickness or orientation differ, when one lies off
    the other's normal, or when slices are at unequal distances: each equidistant part is a stack then. Volumes of other
    slices than the rest (a scan that ended early) are stacks of their own. Frames of one volume at the same place are
    in different volumes, in the order of their InstanceNumbers.
    """
    stacks = [stack for group in _grids(frames) for stack in _stacks_of_grid(group)]
    return sorted(stacks, key=lambda stack: (stack.first.contrast, stack.lowest_number))


def _axes(frame: Frame) -> NDArray[np.float64]:
    """Unit vectors along x, y and z, float64 (3, 3)."""
    row, column = np.array(frame.dataset.ImageOrientationPatient, np.float64).reshape(2, 3)
    return np.stack([row, column, np.cross(row, column)])


def _grids(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames of one echo, size and orientation whose first pixels lie on one line along the normal."""
    groups: defaultdict[tuple[object, ...], list[tuple[NDArray[np.float64], NDArray[np.float64], list[Frame]]]]
    groups = defaultdict(list)
    for frame in frames:
        ds, axes = frame.dataset, _axes(frame)
        key = (frame.contrast, frame.shape, tuple(ds.PixelSpacing), ds.SliceThickness)
        for own_axes, position, members in groups[key]:
            offset = own_axes[:2] @ (frame.position - position)
            if np.abs(axes - own_axes).max() < SAME_DIRECTION and np.abs(offset).max() < SAME_PLACE_MM:
                members.append(frame)
                break
        else:
            groups[key].append((axes, frame.position, [frame]))
    return [members for group in groups.values() for _, _, members in group]


def _stacks_of_grid(frames: list[Frame]) -> list[Stack]:
    """Stacks of frames on one line along their normal."""
    row, column, normal = _axes(frames[0])
    along = np.array([normal @ frame.position for frame in frames])
    order = np.argsort(along, kind="stable")
    starts = np.diff(along[order], prepend=-np.inf) > SAME_PLACE_MM
    places = along[order][starts]  # of slices, mm, each once
    place_of = np.empty(len(frames), int)
    place_of[order] = np.cumsum(starts) - 1

    volumes: dict[tuple[int, ...], dict[int, Frame]] = {}
    for frame, place in zip(frames, place_of.tolist(), strict=True):
        keys = ((*frame.volume, again) for again in range(len(frames)))
        slices = next(volumes[key] for key in keys if place not in volumes.setdefault(key, {}))
        slices[place] = frame

    patterns: defaultdict[tuple[int, ...], list[dict[int, Frame]]] = defaultdict(list)
    for _, volume in sorted(volumes.items()):
        patterns[tuple(sorted(volume))].append(volume)
    stacks = []
    for pattern, members in patterns.items():
        for part in _equidistant(pattern, places):
            thickness = float(frames[0].dataset.get("SpacingBetweenSlices") or frames[0].dataset.SliceThickness)
            gap = (places[part[-1]] - places[part[0]]) / (len(part) - 1) if len(part) > 1 else thickness
            dy, dx = (float(value) for value in frames[0].dataset.PixelSpacing)
            chosen = [[volume[place] for place in part] for volume in members]
            stacks.append(Stack(chosen, row, column, normal, (dx, dy, float(gap))))
    return stacks


def _equidistant(pattern: Sequence[int], places: NDArray[np.float64]) -> list[list[int]]:
    """Runs of places at equal distances, in order."""
    runs: list[list[int]] = []
    for place in pattern:
        run = runs[-1] if runs else []
        if run and (len(run) == 1 or _continues(places[run], places[place])):
            run.append(place)
        else:
            runs.append([place])
    return runs


def _continues(run: NDArray[np.float64], place: float) -> bool:
    """Whether a run of two or more places and the next one are a regular grid."""
    grid = np.linspace(run[0], place, len(run) + 1)
    return bool(np.abs(np.append(run, place) - grid).max() < SAME_PLACE_MM)
