"""Images and coil k-space to learn from, of raw scans and arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gadgets.buffers import filled, kspace_problems, maps_of, maps_problems, sampled
from gadgets.coil_compression import CoilCompression
from gadgets.espirit import Espirit
from gadgets.stream import ReconError
from pipelines.evaluation.arrays import check_fully_sampled, read_npy, scan_bits, without_zero_filling
from priors.signal.espirit import calibration_region, espirit_maps
from priors.signal.fourier import ifft2c

FULLY = "a prior is learnt from fully sampled scans"
OR_CENTRE = f"{FULLY}, or with --calibration from that centre"
LEAST_CENTRE = 32  # samples along each axis of a fully sampled centre that a prior can be learnt from
EMPTY = 0.05  # of the brightest image of a volume: below it there is no object


def training_images(paths: tuple[Path, ...], kspace: bool = False) -> Tensor:
    """Complex images of files of one matrix size.

    Parameters
    ----------
    paths : raw ISMRMRD files (.h5), which go through the gadgets up to the coil maps, or arrays (.npy)
    kspace : arrays are k-space (slice, coil, y, x) or (coil, y, x) instead of images (slice, y, x)

    Returns
    -------
    complex64 (slice, y, x)

    Raises
    ------
    ReconError
        A file cannot be read, is not fully sampled, or has images of another size than the first.
    """
    if not paths:
        raise ReconError("training: no data; give raw files (.h5) or arrays (.npy)")
    parts: list[Tensor] = []
    for path in paths:
        images = _array_images(path, kspace) if path.suffix == ".npy" else _scan_images(path)
        if not len(images):
            raise ReconError(f"{path}: there is no image in it; give another file")
        if parts and images.shape[1:] != parts[0].shape[1:]:
            raise ReconError(
                f"{path}: its images are {tuple(images.shape[1:])}, those of {paths[0]} {tuple(parts[0].shape[1:])}; "
                "train with scans of one matrix size"
            )
        parts.append(images)
    return torch.cat(parts)


def _array_images(path: Path, kspace: bool) -> Tensor:
    if kspace:
        return torch.stack([image for image, _ in _array_slices(path, FULLY)])
    tensor = _complex_array(path)
    if tensor.ndim != 3:
        raise ReconError(f"{path}: shape {tuple(tensor.shape)} is not images (slice, y, x); k-space needs --kspace")
    return tensor


def _complex_array(path: Path) -> Tensor:
    array = read_npy(path)
    if not np.iscomplexobj(array) or not np.isfinite(array).all():
        raise ReconError(f"{path}: it holds {array.dtype} values, not finite complex ones; phases are needed")
    return torch.from_numpy(array.astype(np.complex64))


def scan_slices(path: Path, calibration: bool = False) -> tuple[Tensor, Tensor]:
    """Coil-combined images and coil k-space of one scan.

    Parameters
    ----------
    path : raw ISMRMRD file (.h5), which goes through the gadgets up to the coil maps, or k-space (.npy)
    calibration : take the fully sampled centre of every slice, as square as its encoding is, instead of all of it

    Returns
    -------
    complex64 (slice, y, x) and (slice, coil, y, x); the fewest coils that a slice has, the strongest ones

    Raises
    ------
    ReconError
        It cannot be read, is not fully sampled, has slices of several sizes, or too small a centre.
    """
    read = _array_slices if path.suffix == ".npy" else _scan_slices
    slices = list(read(path, OR_CENTRE, calibration))
    if not slices:
        raise ReconError(f"{path}: there is no image in it; give another file")
    coils = min(len(kspace) for _, kspace in slices)
    images, kspaces = _stacked(path, slices), torch.stack([kspace[:coils] for _, kspace in slices])
    return images, kspaces


def _array_slices(path: Path, purpose: str, calibration: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """Image (y, x) and k-space (coil, y, x) of every slice of an array of k-space."""
    tensor = _complex_array(path)
    if tensor.ndim not in (3, 4):
        raise ReconError(f"{path}: shape {tuple(tensor.shape)} is not k-space (slice, coil, y, x) or (coil, y, x)")
    for number, one in enumerate(tensor if tensor.ndim == 4 else tensor[None]):
        where, mask = f"{path}, slice {number}", (one != 0).any(0)
        if calibration:
            one = _centre(where, one, mask)
        else:
            check_fully_sampled(where, mask, purpose)
        yield _combined(one[None])[0], one


def _combined(kspace: Tensor) -> Tensor:
    """Images (batch, y, x) of fully sampled k-space (batch, coil, y, x), with the coil maps of its centre."""
    rows, columns = (slice(max(n // 2 - 12, 0), n // 2 + 12) for n in kspace.shape[-2:])
    maps = espirit_maps(kspace[..., rows, columns], (kspace.shape[-2], kspace.shape[-1]), crop=0.0)
    return (maps[:, 0].conj() * ifft2c(kspace)).sum(1)


def _scan_images(path: Path) -> Tensor:
    """Coil-combined images of a raw scan: what the shipped chains' gadgets hand to the reconstruction."""
    slices = list(_scan_slices(path, FULLY))
    return _stacked(path, slices) if slices else torch.empty(0, 0, 0)


def _stacked(path: Path, slices: list[tuple[Tensor, Tensor]]) -> Tensor:
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
    data = bit.data.data if bit.ref is None else filled(bit.data.data, bit.ref.data)
    for n, s, loc in np.ndindex(*data.shape[4:]):
        part = data[..., n, s, loc]
        mask, kspace = sampled(part)[0], kspace_problems(part)
        if calibration:
            kspace = _centre(str(path), kspace, mask)
            images = _combined(kspace)
        else:
            kspace, cut = without_zero_filling(kspace, mask)
            check_fully_sampled(str(path), cut, purpose)
            if cut.shape == mask.shape:
                maps = maps_problems(maps_of(bit.coil_maps, s, loc))
                images = (maps[:, 0].conj() * ifft2c(kspace)).sum(1)
            else:
                images = _combined(kspace)
        peaks = images.abs().amax((1, 2))
        seen = peaks > EMPTY * peaks.max()  # a volume's readout positions beside the object are empty
        yield from zip(images[seen], kspace[seen], strict=True)


def _centre(where: str, kspace: Tensor, mask: Tensor) -> Tensor:
    """The fully sampled centre of k-space (..., y, x), cut to its shorter side."""
    rows, columns = calibration_region(mask)
    size = min(rows.stop - rows.start, columns.stop - columns.start)
    if size < LEAST_CENTRE:
        raise ReconError(
            f"{where}: the fully sampled centre of its k-space is {rows.stop - rows.start} x "
            f"{columns.stop - columns.start} samples; a prior needs {LEAST_CENTRE} lines along each axis"
        )
    y, x = (n // 2 - size // 2 for n in kspace.shape[-2:])
    return kspace[..., y : y + size, x : x + size]
