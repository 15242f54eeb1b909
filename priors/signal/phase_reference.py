"""The phase that images are relative to: coil maps say it only up to a factor of each pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

CELLS = 32  # of the coarse grid of a slice along each axis
CELLS_3D = 14  # of a volume
SAMPLES = 4  # pixels of a cell along each axis that are looked at
FLOOR = 1e-3  # energy of empty cells, of the largest one
SHIFT = 1e-4  # of the inverse iteration, in units of the weights
ITERATIONS = 40
UNCHANGED = 1e-5


@dataclass(frozen=True)
class PhaseReference:
    r"""Coil maps of one slice or volume whose phase is as smooth as it can be, on a coarse grid.

    Coil maps m(r) describe the data as well as :math:`e^{i \theta(r)} m(r)` do, and the image's phase moves by
    :math:`-\theta(r)`. Maps with the phase of one coil, or of a fixed combination of coils, have a pole where that one
    receives nothing, and so has the image's phase. Here :math:`\theta` makes the maps smooth:

    .. math:: \min_z \sum_{(i,j)} w_{ij} \|z_i m_i - z_j m_j\|^2

    over neighbouring cells of a coarse grid, weighted by the energy of the image in them; z is the lowest eigenvector
    of the connection Laplacian of the maps (Singer and Wu, Comm. Pure Appl. Math. 2012). What remains in the image is
    its own phase plus a smooth one, common to all coils. A constant is left: the mean of the images is real and
    positive.

    Parameters
    ----------
    section : complex64 (coil, z, y, x), the smooth maps on the coarse grid
    """

    section: Tensor

    @classmethod
    def of(cls, maps: Tensor, images: Tensor) -> PhaseReference:
        """The reference of maps.

        Parameters
        ----------
        maps : complex64 (z, coil, y, x), one set; z is 1 for a slice
        images : complex64 (z, y, x), of these maps; cells are weighted by their energy
        """
        cells = CELLS if len(maps) == 1 else CELLS_3D
        vectors, energy, coils = _cells(maps, images, cells)
        section = vectors * _smoothest(vectors, energy)[..., None]
        mean = (section.conj() * coils).sum()
        section = section * (mean / abs(mean) if mean else 1.0)
        return cls(torch.from_numpy(np.moveaxis(section, -1, 0).astype(np.complex64)))

    def fits(self, maps: Tensor) -> bool:
        """Whether the maps (z, coil, y, x) are of as many coils, and both of a slice or both of a volume."""
        return maps.shape[1] == len(self.section) and (len(maps) == 1) == (self.section.shape[1] == 1)

    def phasor(self, maps: Tensor) -> Tensor:
        """What images (z, y, x) of these maps (z, coil, y, x) are multiplied by to have this phase, complex64."""
        depth = self.section.shape[1]
        phasors = []
        for position, own in enumerate(maps):
            place = min(max((position + 0.5) * depth / len(maps) - 0.5, 0.0), depth - 1.0)
            low = min(int(place), max(depth - 2, 0))
            high, share = min(low + 1, depth - 1), place - low
            plane = (1 - share) * self.section[:, low] + share * self.section[:, high]
            real = torch.view_as_real(plane).movedim(-1, 0)  # part, coil, y, x
            fine = torch.nn.functional.interpolate(real, size=tuple(own.shape[-2:]), mode="bilinear")
            product = (torch.complex(fine[0], -fine[1]) * own).sum(0)
            phasors.append(torch.polar(torch.ones_like(product.real), product.angle()))
        return torch.stack(phasors)


def _cells(
    maps: Tensor, images: Tensor, cells: int
) -> tuple[NDArray[np.complex128], NDArray[np.float64], NDArray[np.complex128]]:
    """Maps (z, y, x, coil) of norm 1, energies (z, y, x) and coil images (z, y, x, coil) of the cells of a coarse grid.

    The map of a cell is the principal vector of its pixels' maps, whatever their phases are.
    """
    places = [_samples(size, cells) for size in (len(maps), *maps.shape[-2:])]
    vectors, energies, coils = [], [], []
    for positions in places[0]:
        chosen = maps[torch.from_numpy(positions)][:, :, places[1].ravel()][..., places[2].ravel()]
        pixels = images[torch.from_numpy(positions)][:, places[1].ravel()][..., places[2].ravel()]
        shape = (*places[1].shape, *places[2].shape)
        # of all coils: whatever the phase of the maps is, these do not depend on it
        weighted = (chosen * pixels[:, None]).to(torch.complex128).unflatten(3, shape[2:]).unflatten(2, shape[:2])
        covariance = torch.einsum("pcyaxb,pdyaxb->yxcd", weighted, weighted.conj())
        vectors.append(torch.linalg.eigh(covariance).eigenvectors[..., -1])
        coils.append(weighted.sum((0, 3, 5)).movedim(0, -1))
        energies.append(covariance.diagonal(dim1=-2, dim2=-1).real.sum(-1))
    return torch.stack(vectors).numpy(), torch.stack(energies).numpy(), torch.stack(coils).numpy()


def _samples(size: int, cells: int) -> NDArray[np.int64]:
    """Places (cell, sample) along an axis that cells of equal width look at."""
    count = min(size, cells)
    inside = (np.arange(SAMPLES) + 0.5) / SAMPLES
    return ((np.arange(count)[:, None] + inside) * size / count).astype(np.int64)


def _smoothest(vectors: NDArray[np.complex128], energy: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Factors (z, y, x) of modulus 1 that make the vectors (z, y, x, coil) as smooth as can be."""
    number = np.arange(energy.size).reshape(energy.shape)
    weight = energy / (energy.max() or 1.0) + FLOOR
    pairs = [
        (np.take(number, range(size - 1), axis).ravel(), np.take(number, range(1, size), axis).ravel())
        for axis, size in enumerate(energy.shape)
    ]
    one, other = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    flat = vectors.reshape(energy.size, -1)
    joint = np.sqrt(weight.ravel()[one] * weight.ravel()[other])
    product = joint * (flat[one].conj() * flat[other]).sum(1)
    size = (energy.size, energy.size)
    coupling = scipy.sparse.csc_matrix((product, (one, other)), shape=size)
    degree = np.bincount(one, joint, energy.size) + np.bincount(other, joint, energy.size) + SHIFT * FLOOR
    mass = scipy.sparse.diags(degree)
    inverse = scipy.sparse.linalg.splu((mass * (1 + SHIFT) - coupling - coupling.conj().T).tocsc())
    factors = np.ones(energy.size, dtype=np.complex128)
    for _ in range(ITERATIONS):
        following = inverse.solve(degree * factors)
        following *= np.sqrt(energy.size) / np.linalg.norm(following)
        done = abs(np.vdot(following, factors)) / energy.size > 1 - UNCHANGED
        factors = following
        if done:
            break
    modulus = np.abs(factors)
    return np.where(modulus > 0, factors / np.where(modulus > 0, modulus, 1), 1).reshape(energy.shape)
