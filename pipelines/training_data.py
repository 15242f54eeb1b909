"""Images and coil k-space to learn from, of raw scans and arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gadgets.buffers import kspace_problems, maps_of, maps_problems, sampled
from gadgets.coil_compression import CoilCompression
from gadgets.espirit import Espirit
from gadgets.stream import ReconError
from pipelines.evaluation.array_files import is_array, kspace_slices, read_images
from pipelines.evaluation.arrays import check_fully_sampled, measured, scan_bits, without_zero_filling
from pipelines.training_magnitudes import EMPTY, is_magnitudes, magnitude_images, middle
from priors.signal.espirit import calibration_region, espirit_maps
from priors.signal.fourier import ifft2c

FULLY = "a prior is learnt from fully sampled scans"
OR_CENTRE = f"{FULLY}, or with --calibration from that centre"
LEAST_CENTRE = 32  # samples along each axis of a fully sampled centre that a prior can be learnt from
LEAST_COMMON = 0.8  # of the matrix of every file along each axis; fastMRI's scans of one kind differ by less


def training_images(paths: tuple[Path, ...], kspace: bool = False) -> Tensor:
    """Complex images of files, cut to the smallest matrix of all.

    Parameters
    ----------
    paths : raw files (.h5), which go through the gadgets up to the coil maps; arrays (.npy, or BART's .cfl);
        magnitudes: DICOM, NIfTI, folders of them
    kspace : arrays are k-space (slice, coil, y, x) or (coil, y, x) instead of images (slice, y, x)

    Returns
    -------
    complex64 (slice, y, x); magnitudes have no imaginary part

    Raises
    ------
    ReconError
        A file cannot be read, is not fully sampled, or has images that are far larger than others.
    """
    if not paths:
        raise ReconError(
            "training: no data; give raw files (.h5), arrays (.npy, .cfl), or a folder of DICOM or NIfTI files"
        )
    parts: list[Tensor] = []
    for path in paths:
        if is_magnitudes(path):
            images = magnitude_images(path)
        else:
            images = _array_images(path, kspace) if is_array(path) else _scan_images(path)
        if not len(images):
            raise ReconError(f"{path}: there is no image in it; give another file")
        parts.append(images)
    smallest = [min(part.shape[axis] for part in parts) for axis in (1, 2)]
    for path, images in zip(paths, parts, strict=True):
        if any(size < LEAST_COMMON * own for size, own in zip(smallest, images.shape[1:], strict=True)):
            raise ReconError(
                f"{path}: its images are {tuple(images.shape[1:])}, the smallest of all files {tuple(smallest)}; train "
                "with scans of one matrix size"
            )
    return torch.cat([middle(images, smallest) for images in parts])


def _array_images(path: Path, kspace: bool) -> Tensor:
    if kspace:
        return _stacked(path, list(_array_slices(path, FULLY)))
    array = read_images(path)
    if array.ndim != 3:
        raise ReconError(f"{path}: shape {array.shape} is not images (slice, y, x); k-space needs --kspace")
    if array.dtype.kind not in "cfiu" or not np.isfinite(array).all():
        raise ReconError(f"{path}: it holds {array.dtype} values, not finite complex or real ones")
    if array.dtype.kind != "c" and array.min() < 0:
        raise ReconError(f"{path}: it holds real values below zero, so they are no magnitudes; give complex images")
    return torch.from_numpy(array.astype(np.complex64))


def scan_slices(path: Path, calibration: bool = False, complete: bool = True) -> tuple[Tensor, Tensor]:
    """Coil-combined images and coil k-space of one scan.

    Parameters
    ----------
    path : raw file (.h5), which goes through the gadgets up to the coil maps, or k-space (.npy, or BART's .cfl)
    calibration : take the fully sampled centre of every slice, as square as its encoding is, instead of all of it
    complete : whether the k-space must have no gaps

    Returns
    -------
    complex64 (slice, y, x) and (slice, coil, y, x); the fewest coils that a slice has, the strongest ones

    Raises
    ------
    ReconError
        It cannot be read, is not fully sampled, has slices of several sizes, or too small a centre.
    """
    read = _array_slices if is_array(path) else _scan_slices
    slices = list(read(path, OR_CENTRE if complete else "", calibration))
    images = _stacked(path, slices)
    coils = min(len(kspace) for _, kspace in slices)
    return images, torch.stack([kspace[:coils] for _, kspace in slices])


def _array_slices(path: Path, purpose: str, calibration: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """Image (y, x) and k-space (coil, y, x) of every slice of an array of k-space; no purpose: gaps are allowed."""
    for number, (kspace, mask) in enumerate(kspace_slices(path)):
        where = f"{path}, slice {number}"
        if not torch.isfinite(torch.view_as_real(kspace)).all():
            raise ReconError(f"{where}: it has NaN or infinite samples; correct the data")
        if calibration:
            kspace = _centre(where, kspace, mask)
        elif purpose:
            check_fully_sampled(where, mask, purpose)
        yield from _seen(_combined(kspace), kspace)


def _seen(images: Tensor, kspace: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and their k-space, one by one, without the readout positions of a volume that are outside the object."""
    peaks = images.abs().amax((1, 2))
    seen = peaks > EMPTY * peaks.max()
    yield from zip(images[seen], kspace[seen], strict=True)


def _combined(kspace: Tensor) -> Tensor:
    """Images (batch, y, x) of fully sampled k-space (batch, coil, y, x), with the coil maps of its centre."""
    rows, columns = (slice(max(n // 2 - 12, 0), n // 2 + 12) for n in kspace.shape[-2:])
    maps = espirit_maps(kspace[..., rows, columns], (kspace.shape[-2], kspace.shape[-1]), crop=0.0)
    return (maps[:, 0].conj() * ifft2c(kspace)).sum(1)


def _scan_images(path: Path) -> Tensor:
    """Coil-combined images of a raw scan: what the shipped chains' gadgets hand to the reconstruction."""
    return _stacked(path, list(_scan_slices(path, FULLY)))


def _stacked(path: Path, slices: list[tuple[Tensor, Tensor]]) -> Tensor:
    if not slices:
        raise ReconError(f"{path}: there is no image in it; give another file")
    sizes = {tuple(image.shape) for image, _ in slices}
    if len(sizes) > 1:
        raise ReconError(
            f"{path}: its images are of several sizes, {sorted(sizes)}; train with scans of one matrix size"
        )
    return torch.stack([image for image, _ in slices])


def _scan_slices(path: Path, purpose: str, calibration: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """Image (y, x) and k-space (coil, y, x) of every slice, or readout position of a volume, of a raw scan."""
    for bit in scan_bits(path, (CoilCompression(), Espirit())):
        yield from _bit_slices(path, bit, purpose, calibration)


def _bit_slices(path: Path, bit: Any, purpose: str, calibration: bool) -> Iterator[tuple[Tensor, Tensor]]:
    data = measured(bit)
    for n, s, loc in np.ndindex(*data.shape[4:]):
        part = data[..., n, s, loc]
        mask, kspace = sampled(part)[0], kspace_problems(part)
        if calibration:
            kspace = _centre(str(path), kspace, mask)
            images = _combined(kspace)
        else:
            kspace, cut = without_zero_filling(kspace, mask)
            if purpose:
                check_fully_sampled(str(path), cut, purpose)
            if cut.shape == mask.shape:
                maps = maps_problems(maps_of(bit.coil_maps, s, loc))
                images = (maps[:, 0].conj() * ifft2c(kspace)).sum(1)
            else:
                images = _combined(kspace)
        yield from _seen(images, kspace)


def _centre(where: str, kspace: Tensor, mask: Tensor) -> Tensor:
    """The fully sampled centre of k-space (..., y, x), cut to its shorter side."""
    rows, columns = calibration_region(mask)
    size = min(rows.stop - rows.start, columns.stop - columns.start)
    if size < LEAST_CENTRE:
        raise ReconError(
            f"{where}: the fully sampled centre of its k-space is {rows.stop - rows.start} x "
            f"{columns.stop - columns.start} samples; a prior needs {LEAST_CENTRE} lines along each axis"
        )
    return middle(kspace, [size, size])
