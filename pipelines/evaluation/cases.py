"""Benchmark cases: fully sampled slices with a sampling mask and a noise level."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gadgets.buffers import kspace_problems, sampled
from gadgets.coil_compression import CoilCompression
from gadgets.stream import ReconError
from pipelines.evaluation.array_files import is_array, kspace_slices, read_images
from pipelines.evaluation.arrays import check_fully_sampled, measured, scan_bits, without_zero_filling
from pipelines.evaluation.masks import masks_of_file, pattern_mask
from pipelines.simulation.coils import birdcage_maps
from priors.signal.fourier import fft2c, ifft2c

SMALLEST = 7  # samples along y and x, the window of SSIM

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A fully sampled slice, a sampling mask and a noise level.

    Parameters
    ----------
    data : name of the scan
    slice : number of the slice in it
    mask_name : name of the mask
    noise : standard deviation of noise added to the measured samples, in each part, in units of the image's maximum
    kspace : complex64 (coil, y, x), its root-sum-of-squares image has maximum 1
    mask : bool (y, x)
    """

    data: str
    slice: int
    mask_name: str
    noise: float
    kspace: Array = field(repr=False)
    mask: Array = field(repr=False)

    @cached_property
    def identity(self) -> str:
        """Hash of all that the measured data depend on."""
        digest = hashlib.sha256(repr((self.kspace.shape, self.noise)).encode())
        digest.update(np.ascontiguousarray(self.kspace).tobytes())
        digest.update(np.packbits(self.mask).tobytes())
        return digest.hexdigest()[:12]

    @property
    def name(self) -> str:
        """Name in tables and of files."""
        noise = f"-noise{self.noise:g}" if self.noise else ""
        text = f"{self.data}-{self.slice}-{self.mask_name}{noise}-{self.identity[:6]}"
        return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)

    @property
    def reference(self) -> Array:
        """Float32 (y, x), root-sum-of-squares image of the whole k-space."""
        return root_sum_of_squares(self.kspace)

    def measured(self) -> Array:
        """Complex64 (coil, y, x), noisy samples within the mask, zero elsewhere; the same in every call."""
        random = np.random.default_rng(0).standard_normal((2, *self.kspace.shape), dtype=np.float32)
        return ((self.kspace + self.noise * (random[0] + 1j * random[1])) * self.mask).astype(np.complex64)


def root_sum_of_squares(kspace: Array) -> Array:
    """Float32 image (y, x) of k-space (coil, y, x)."""
    return torch.linalg.vector_norm(ifft2c(torch.from_numpy(kspace)), dim=0).numpy()


@dataclass(frozen=True)
class BenchmarkCases:
    """Which cases a benchmark has: every slice with every mask and noise level.

    Parameters
    ----------
    data : fully sampled raw files (.h5), or arrays (.npy, or BART's .cfl): complex images (slice, y, x), or k-space
        (coil, y, x) or (slice, coil, y, x)
    kspace : the arrays are k-space
    coils : simulated birdcage coils that receive the images of an array; 1: none
    slices : slice numbers; empty: all
    masks : mask files (.npy, .npz; bool (y, x)), FILE or FILE:NAME
    patterns : PATTERN:ACCELERATION with the patterns of `pipelines.simulation.sampling`
    noise : see `Case`
    """

    data: tuple[Path, ...]
    kspace: bool = False
    coils: int = 1
    slices: tuple[int, ...] = ()
    masks: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    noise: tuple[float, ...] = (0.0,)

    def cases(self) -> list[Case]:
        """Read the data and make all cases.

        Raises
        ------
        ReconError
            A file cannot be read, a scan is not fully sampled, a mask does not fit, or there is no case.
        """
        if not all(np.isfinite(level) and level >= 0 for level in self.noise):
            raise ReconError("benchmark: --noise must be 0 or more, in units of the image's maximum")
        cases = []
        for path in self.data:
            slices = self._chosen(path)
            masks: dict[tuple[int, ...], list[tuple[str, Array]]] = {}
            for number in self.slices or slices:
                kspace = _normalised(f"{path}, slice {number}", slices[number])
                shape = kspace.shape[-2:]
                if shape not in masks:
                    masks[shape] = list(self._masks(shape))
                for name, mask in masks[shape]:
                    cases += [Case(path.stem, number, name, level, kspace, mask) for level in self.noise]
        if not cases:
            raise ReconError("benchmark: there is no case; give data, and masks or patterns")
        return cases

    def _chosen(self, path: Path) -> dict[int, Array]:
        """K-space (coil, y, x) of the chosen slices by number; the others are not kept in memory."""
        chosen, count = {}, 0
        for number, (kspace, mask) in enumerate(self._array(path) if is_array(path) else _scan(path)):
            count = number + 1
            if self.slices and number not in self.slices:
                continue
            check_fully_sampled(f"{path}, slice {number}", mask, "a benchmark needs fully sampled scans")
            chosen[number] = kspace.numpy()
        for number in self.slices:
            if number not in chosen:
                raise ReconError(f"{path}: there is no slice {number}; it has {count}, counted from 0")
        return chosen

    def _array(self, path: Path) -> Iterator[tuple[Tensor, Tensor]]:
        """K-space (coil, y, x) of every slice of an array, and which of its samples are not zero (y, x)."""
        if self.kspace:
            for part, mask in kspace_slices(path):
                yield from ((one, mask) for one in part)
            return
        array = read_images(path)
        if array.ndim not in (2, 3) or array.dtype.kind not in "cfiu":
            raise ReconError(
                f"{path}: shape {array.shape} of {array.dtype} is not images (slice, y, x); k-space needs --kspace"
            )
        array = array.astype(np.complex64)
        images = array if array.ndim == 3 else array[None]
        shape = images.shape[1:]
        maps = birdcage_maps(self.coils, shape) if self.coils > 1 else np.ones((1, *shape), np.complex64)
        for image in images:
            yield torch.from_numpy(received_kspace(image, maps)), torch.ones(shape, dtype=torch.bool)

    def _masks(self, shape: tuple[int, int]) -> Iterator[tuple[str, Array]]:
        for text in self.masks:
            yield from masks_of_file(text, shape)
        for text in self.patterns or (() if self.masks else ("poisson:4",)):
            yield text.replace(":", "_", 1), pattern_mask(text, shape, "benchmark: --pattern")


def _normalised(name: str, kspace: Array) -> Array:
    """K-space (coil, y, x), the maximum of its root-sum-of-squares image 1."""
    if min(kspace.shape[-2:]) < SMALLEST:
        raise ReconError(
            f"{name}: {kspace.shape[-2]} x {kspace.shape[-1]} is too small; SSIM needs {SMALLEST} x {SMALLEST}"
        )
    if not np.isfinite(kspace).all():
        raise ReconError(f"{name}: it has NaN or infinite samples; correct the data, or leave it out with --slices")
    top = float(root_sum_of_squares(kspace).max())
    if not top:
        raise ReconError(f"{name}: it is empty; leave it out with --slices")
    return (kspace / top).astype(np.complex64)


def _scan(path: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """K-space (coil, y, x) of the slices, or readout positions, of a raw file, and what was measured of it (y, x)."""
    for bit in scan_bits(path, (CoilCompression(),)):
        data = measured(bit)
        for n, s, loc in np.ndindex(*data.shape[4:]):
            part = data[..., n, s, loc]
            kspace, mask = without_zero_filling(kspace_problems(part), sampled(part)[0])
            yield from ((one, mask) for one in kspace)


def received_kspace(image: Array, maps: Array) -> Array:
    """K-space, complex64 (coil, y, x), of an image (y, x)."""
    return fft2c(torch.from_numpy((maps * image).astype(np.complex64))).numpy()
