"""A reference scan of its own: the calibration lines of another measurement, on the grid of a scan that names it.

The reference is kept as the fully sampled centre of k-space of each slice or volume, not prewhitened. For a scan its
image is evaluated where that scan's slices are and transformed to k-space with that scan's steps:

    S_c(k) = sum over r of m_c(r) exp(-2 pi i k . r),  k = n / field of view,

over all r where the reference has signal, also beyond the field of view of the scan: what folds there folds here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from gadgets.noise.coils import Coil
from gadgets.noise.scan import EarlierScan
from gadgets.stream import ReconError

Array = np.ndarray[Any, np.dtype[Any]]

FINER = 3  # the reference's image is interpolated linearly on a grid so many times as fine as its pixels
MOST_SAMPLES = 24  # of the calibration region along each axis
FEWEST_SAMPLES = 12  # along the readout and E1; of fewer no kernel can be estimated
FEWEST_PARTITIONS = 6
THROUGH_PLANE = (-1 / 3, 0.0, 1 / 3)  # of the thickness: where a slice is evaluated
LEAST_COVERED = 0.5  # of the field of view, in plane
PARALLEL = 0.999  # cosine of two directions that count as one


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceBlock:
    """A slice or a volume of a reference scan.

    Parameters
    ----------
    kspace : complex64 [RO, E1, E2, CHA], the centre of k-space at n // 2; not prewhitened
    extent : what its steps encode along RO, E1 and E2, in mm; of a slice the last one is the thickness
    position : of the centre of the field of view, in mm
    axes : (3, 3), directions in the patient in which the pixels of its image increase along RO, E1 and E2
    """

    kspace: Array
    extent: Array
    position: Array
    axes: Array


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceScan(EarlierScan):
    """A reference scan.

    Parameters
    ----------
    blocks : its slices or volumes
    """

    blocks: tuple[ReferenceBlock, ...]

    @property
    def is_volume(self) -> bool:
        """Whether it has 3D blocks."""
        return any(block.kspace.shape[2] > 1 for block in self.blocks)

    @property
    def nbytes(self) -> int:
        return sum(int(block.kspace.nbytes) for block in self.blocks)

    @property
    def channels(self) -> int:
        return int(self.blocks[0].kspace.shape[3])

    def digest(self) -> str:
        found = hashlib.sha256()
        for block in self.blocks:
            for values in (block.kspace, block.extent, block.position, block.axes):
                found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()[:32]

    def _chosen(self, order: list[int]) -> ReferenceScan:
        blocks = tuple(
            dataclasses.replace(block, kspace=np.ascontiguousarray(block.kspace[..., order])) for block in self.blocks
        )
        return dataclasses.replace(self, blocks=blocks)

    def to_bytes(self) -> bytes:
        """Its blocks and coils, for a file; nothing of a patient."""
        arrays = {
            f"{name}_{number}": getattr(block, name)
            for number, block in enumerate(self.blocks)
            for name in ("kspace", "extent", "position", "axes")
        }
        about = json.dumps({"blocks": len(self.blocks), "coils": self.coils}).encode()
        file = io.BytesIO()
        np.savez(file, about=np.frombuffer(about, np.uint8), **arrays)
        return file.getvalue()


@dataclasses.dataclass(frozen=True)
class ChosenReference:
    """The reference scan whose calibration a scan without any uses.

    Parameters
    ----------
    scan : its coils in the order of the data's
    text : what images say of it; nothing in it identifies anyone
    name : which file or measurement it is
    """

    scan: ReferenceScan
    text: str
    name: str = ""


def reference_from_bytes(content: bytes, what: str) -> ReferenceScan:
    """The inverse of `ReferenceScan.to_bytes`. Raises ReconError, which begins with `what`."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            about = json.loads(found["about"].tobytes())
            blocks = tuple(
                ReferenceBlock(*(found[f"{name}_{number}"] for name in ("kspace", "extent", "position", "axes")))
                for number in range(about["blocks"])
            )
            return ReferenceScan(blocks, coils=tuple(Coil(*coil) for coil in about["coils"]))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        raise ReconError(f"{what}: this is no kept reference scan; send the reference again") from None


class ReferenceImage:
    """The image of a reference scan, to be evaluated anywhere in the patient.

    Parameters
    ----------
    scan : its coils in the order of the data's
    mixing : (coil, coil) that the data were prewhitened with; None: they were not
    """

    def __init__(self, scan: ReferenceScan, mixing: Array | None = None) -> None:
        volumes = [_Volume([block]) for block in scan.blocks if block.kspace.shape[2] > 1]
        self._volumes = volumes or _stacks(list(scan.blocks))
        self._mixing = mixing

    def calibration(
        self, extent: Sequence[float], position: Sequence[float], axes: Array, three_d: bool
    ) -> tuple[Array | None, str]:
        """Calibration k-space of a slice or volume.

        Parameters
        ----------
        extent : what its steps of k-space encode along RO, E1 and E2, in mm; of a slice the last one is the thickness
        position : of the centre of its field of view, in mm
        axes : (3, 3), directions in which its pixels increase
        three_d : whether E2 is encoded

        Returns
        -------
        complex64 [RO, E1, E2, CHA] with the centre at n // 2, and ""; or None and why there is none.
        """
        place, turn, size = np.asarray(position, float), np.asarray(axes, float), np.asarray(extent, float)
        covered = [volume.covered(size, place, turn, three_d) for volume in self._volumes]
        volume = self._volumes[int(np.argmax(covered))]
        if max(covered) < LEAST_COVERED:
            return None, "it does not lie where the scan does"
        count = volume.samples(size, turn, three_d)
        fewest = (FEWEST_SAMPLES, FEWEST_SAMPLES, FEWEST_PARTITIONS)[: 2 + three_d]
        if any(n < least for n, least in zip(count, fewest, strict=False)):
            return None, "its resolution is too low for the field of view of the scan"
        found = volume.kspace(size, place, turn, count, three_d)
        if not found.any():
            return None, "it has no signal where the scan is"
        if self._mixing is not None:
            found = found @ self._mixing.T
        return np.asfortranarray(found, dtype=np.complex64), ""


class _Volume:
    """Parallel blocks of one orientation: one volume, or a stack of slices."""

    def __init__(self, blocks: Sequence[ReferenceBlock]) -> None:
        first = blocks[0]
        self._axes, self._extent = first.axes, np.array(first.extent, float)
        self._flat = first.kspace.shape[2] == 1
        shape = np.array(first.kspace.shape[:3])
        self._most = (shape - 1) // 2 / self._extent  # highest frequency on both sides, 1/mm
        heights = np.array([(block.position - first.position) @ first.axes[2] for block in blocks])
        order = np.argsort(heights)
        self._heights, self._origin = heights[order], first.position
        images = [_image(blocks[place].kspace, self._flat) for place in order]
        self._image = np.concatenate(images, axis=2) if self._flat else images[0]
        self._pixel = self._extent / np.array(_image_shape(shape, self._flat))
        self._thickness = float(self._extent[2])
        gaps = np.diff(self._heights)
        if self._flat:
            self._most[2] = 0.5 / (gaps.max() if len(gaps) else self._thickness)

    def _indices(self, points: Array) -> tuple[Array, Array]:
        """Places in the image (3, point) of points (point, 3) in the patient, and whether they are inside (point,)."""
        along = (points - self._origin) @ self._axes.T
        places = along / self._pixel + np.array(self._image.shape[:3]) // 2
        if self._flat:
            places[:, 2] = np.interp(along[:, 2], self._heights, np.arange(len(self._heights)))
        inside = (np.abs(along[:, :2]) <= self._extent[:2] / 2).all(1)
        low, high = (self._heights[0], self._heights[-1]) if self._flat else (0.0, 0.0)
        half = self._thickness / 2
        inside &= (along[:, 2] >= low - half) & (along[:, 2] <= high + half)
        return places.T, inside

    def covered(self, extent: Array, position: Array, axes: Array, three_d: bool) -> float:
        """Fraction of a field of view that it covers."""
        inner = np.linspace(-0.4, 0.4, 9)
        grid = np.meshgrid(inner, inner, inner if three_d else [0.0], indexing="ij")
        offsets = np.stack([part.ravel() for part in grid], 1) * extent
        return float(self._indices(position + offsets @ axes)[1].mean())

    def samples(self, extent: Array, axes: Array, three_d: bool) -> list[int]:
        """Largest calibration region whose frequencies it has, along the encoded axes."""
        encoded = 2 + three_d
        reach = np.abs(self._axes @ axes[:encoded].T)  # of a frequency along each axis of the scan, along its own axes
        wanted = (MOST_SAMPLES // 2 - 1) / extent[:encoded]
        half = wanted * min(1.0, float(np.min(self._most / np.maximum(reach @ wanted, 1e-9))))
        for axis in range(encoded):  # an axis may go further than all of them in proportion
            spare = self._most - reach @ half
            more = float(np.min(np.where(reach[:, axis] > 1e-6, spare / np.maximum(reach[:, axis], 1e-6), np.inf)))
            half[axis] = min(wanted[axis], half[axis] + max(more, 0.0))
        return [2 * int(h * size + 1e-6) + 1 for h, size in zip(half, extent, strict=False)]

    def kspace(self, extent: Array, position: Array, axes: Array, count: Sequence[int], three_d: bool) -> Array:
        """Calibration k-space complex128 [RO, E1, E2, CHA]."""
        corners = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3, indexing="ij"), -1).reshape(-1, 3)
        size = self._extent.copy()
        middle = self._origin.astype(float)
        if self._flat:
            middle = middle + self._axes[2] * (self._heights[0] + self._heights[-1]) / 2
            size[2] = self._heights[-1] - self._heights[0] + self._thickness
        along = (middle + corners * size @ self._axes - position) @ axes.T  # in directions of the scan
        points = []
        for axis in range(2 + three_d):
            step = min(extent[axis] / (1.5 if three_d else 2) / count[axis], float(self._pixel[:2].max()) * FINER)
            low, high = along[:, axis].min(), along[:, axis].max()
            points.append(np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step)
        if not three_d:
            points.append(np.array(THROUGH_PLANE) * extent[2])
        grid = np.stack(np.meshgrid(*points, indexing="ij"), -1)
        places, inside = self._indices(position + grid.reshape(-1, 3) @ axes)
        values = np.stack([_at(self._image[..., coil], places) for coil in range(self._image.shape[3])], -1)
        values[~inside] = 0
        found = values.reshape(*grid.shape[:3], -1)
        for axis in range(2 + three_d):
            steps = (np.arange(count[axis]) - count[axis] // 2) / extent[axis]
            transform = np.exp(-2j * np.pi * np.outer(steps, points[axis]))
            found = np.moveaxis(np.tensordot(transform, found, (1, axis)), 0, axis)
        return found if three_d else found.sum(2, keepdims=True)


def _stacks(blocks: list[ReferenceBlock]) -> list[_Volume]:
    """Slices of equal orientation, matrix and field of view together."""
    groups: list[list[ReferenceBlock]] = []
    for block in blocks:
        for group in groups:
            first = group[0]
            offset = block.position - first.position
            sideways = offset - (offset @ first.axes[2]) * first.axes[2]
            if (
                first.kspace.shape == block.kspace.shape
                and ((first.axes * block.axes).sum(1) > PARALLEL).all()
                and np.allclose(first.extent, block.extent, rtol=1e-3)
                and np.linalg.norm(sideways) < 0.1 * np.linalg.norm(first.extent[:2]) / max(first.kspace.shape[:2])
            ):
                group.append(block)
                break
        else:
            groups.append([block])
    return [_Volume(group) for group in groups]


def _image_shape(shape: Array, flat: bool) -> list[int]:
    return [FINER * int(n) for n in shape[:2]] + [1 if flat else FINER * int(shape[2])]


def _image(kspace: Array, flat: bool) -> Array:
    """Image [x, y, z, CHA] on a finer grid; index n // 2 is the centre."""
    import torch  # not needed in the server's own process

    from priors.signal.fourier import ifft2c

    shape = _image_shape(np.array(kspace.shape), flat)
    padded = np.zeros((*shape, kspace.shape[3]), np.complex128)
    begin = [n // 2 - m // 2 for n, m in zip(shape, kspace.shape, strict=False)]
    padded[tuple(slice(b, b + m) for b, m in zip(begin, kspace.shape, strict=False))] = kspace
    axes = (0, 1) if flat else (0, 1, 2)
    return np.asarray(ifft2c(torch.from_numpy(padded), axes).numpy() / np.sqrt(math.prod(shape)))


def _at(image: Array, places: Array) -> Array:
    from scipy.ndimage import map_coordinates  # not needed in the server's own process

    real, imaginary = (
        map_coordinates(part, places, order=1, mode="nearest") for part in (image.real.copy(), image.imag.copy())
    )
    return np.asarray(real + 1j * imaginary)
