"""Images with coils and a mask, for kinds that learn a reconstruction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gadgets.stream import ReconError
from pipelines.evaluation.array_files import is_array
from pipelines.evaluation.masks import masks_of_file, pattern_mask
from pipelines.simulation.coils import birdcage_maps
from pipelines.training_data import scan_slices, training_images
from priors.learning.recipe import Encoding
from priors.learning.training import normalised
from priors.learning.unrolled_training import MEASURED
from priors.signal.espirit import calibration_region, espirit_maps

LEAST_CENTRE = 8  # samples along each axis of the fully sampled centre that coil maps are taken from
MOST_CENTRE = 24


def measured_images(paths: tuple[Path, ...], kspace: bool, mask_text: str, coils: int) -> tuple[Tensor, Encoding]:
    """Complex images of files, and how they are measured.

    Parameters
    ----------
    paths : raw files (.h5) or k-space arrays, which keep their coils; or arrays of images, for simulated coils
    kspace : arrays are k-space
    mask_text : PATTERN:ACCELERATION, FILE.npy, FILE.npz:NAME, or measured: the samples that the data have
    coils : simulated coils; 1: none

    Returns
    -------
    complex64 (slice, y, x) of maximum 1, and coil maps, mask and k-space

    Raises
    ------
    ReconError
        Files that cannot be read, are not fully sampled, or differ in matrix, coils or mask; a mask that is none.
    """
    if kspace or not all(is_array(path) for path in paths):
        return _of_scans(paths, mask_text)
    if mask_text == MEASURED:
        raise ReconError(
            "training: mask measured needs raw files or k-space (--kspace); images have no samples missing"
        )
    images = normalised(training_images(paths))
    shape = (images.shape[1], images.shape[2])
    maps = birdcage_maps(coils, shape) if coils > 1 else np.ones((1, *shape), np.complex64)
    name, mask = _mask(mask_text, shape)
    return images, Encoding(torch.from_numpy(maps)[None, None], mask, name)


def _of_scans(paths: tuple[Path, ...], mask_text: str) -> tuple[Tensor, Encoding]:
    """Scans with their own coils, whose maps come from the centre that the mask leaves."""
    images: list[Tensor] = []
    arrays: list[Tensor] = []
    for path in paths:
        combined, kspace = scan_slices(path, complete=mask_text != MEASURED)
        peaks = combined.abs().amax((1, 2), keepdim=True)
        if not bool(torch.isfinite(peaks).all()) or not bool((peaks > 0).all()):
            raise ReconError(f"{path}: a slice is empty or has values that are not finite; leave it out")
        if arrays and kspace.shape[1:] != arrays[0].shape[1:]:
            raise ReconError(
                f"{path}: its k-space is {tuple(kspace.shape[1:])} (coil, y, x), that of {paths[0]} "
                f"{tuple(arrays[0].shape[1:])}; train with scans of one matrix and number of coils"
            )
        images.append(combined / peaks)
        arrays.append(kspace / peaks[:, None])
    together = torch.cat(arrays).to(torch.complex64)
    shape = (together.shape[-2], together.shape[-1])
    if mask_text == MEASURED:
        name, sampled = MEASURED, (together != 0).any(1)
        mask = sampled[0]
        if not bool((sampled == mask).all()):
            raise ReconError("training: slices of several masks; a network is trained for one")
    else:
        name, mask = _mask(mask_text, shape)
    rows, columns = calibration_region(mask)
    if min(rows.stop - rows.start, columns.stop - columns.start) < LEAST_CENTRE:
        raise ReconError(
            f"training: the fully sampled centre of mask {name} is {rows.stop - rows.start} x "
            f"{columns.stop - columns.start}; coil maps need {LEAST_CENTRE} x {LEAST_CENTRE}"
        )
    rows, columns = calibration_region(mask, MOST_CENTRE)
    centre = together[..., rows, columns]
    maps = torch.cat([espirit_maps(one[None], shape, kernel=min(6, *one.shape[-2:])) for one in centre])
    return torch.cat(images).to(torch.complex64), Encoding(maps, mask, name, together)


def _mask(text: str, shape: tuple[int, int]) -> tuple[str, Tensor]:
    """Name of a mask, and the mask (y, x)."""
    if ".npy" not in text and ".npz" not in text:
        return text, torch.from_numpy(pattern_mask(text, shape, "training: mask"))
    found = list(masks_of_file(text, shape))
    if len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise ReconError(f"training: {text} has several masks, {names}; name one, FILE:NAME")
    name, mask = found[0]
    return name, torch.from_numpy(mask)
