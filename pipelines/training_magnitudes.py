"""Magnitude images to learn from: folders and files of DICOM, and NIfTI volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gadgets.stream import ReconError, one_line
from priors.extras import require

NIFTI = (".nii", ".nii.gz")
LEAST_MATRIX = 32
EMPTY = 0.05  # of the brightest image of a volume: below it there is no object


def is_magnitudes(path: Path) -> bool:
    """Whether a path is a folder, a DICOM file or a NIfTI volume."""
    return path.is_dir() or path.name.lower().endswith((*NIFTI, ".dcm", ".ima"))


def magnitude_images(path: Path) -> Tensor:
    """Magnitude images of a file, or of all DICOM and NIfTI files in a folder and the folders in it.

    Parameters
    ----------
    path : see `is_magnitudes`

    Returns
    -------
    complex64 without imaginary parts, shape (slice, y, x), of the most frequent matrix: larger images are resampled to
    fit, smaller ones are continued by zeros; empty ones (less than a twentieth of the brightest) are left out

    Raises
    ------
    ReconError
        There is no image, a file cannot be read, or is no MR image.
    """
    images = [one for file in _files(path) for one in _images(file)]
    if not images:
        raise ReconError(f"{path}: there is no MR image in it; give a folder of DICOM or NIfTI files")
    shape, _ = Counter(one.shape for one in images).most_common(1)[0]
    return torch.cat([_of_matrix(one, shape) for one in images])


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and _is_image_file(file))


def _is_image_file(file: Path) -> bool:
    if file.name.lower().endswith(NIFTI):
        return True
    with open(file, "rb") as content:
        return content.read(132)[128:] == b"DICM"


def _images(file: Path) -> Iterator[np.ndarray]:
    """Magnitudes (y, x) of a file, those of a volume divided by its maximum, without empty ones."""
    volume = _nifti(file) if file.name.lower().endswith(NIFTI) else _dicom(file)
    if volume is None:
        return
    if not np.isfinite(volume).all() or volume.min() < 0:
        raise ReconError(f"{file}: it has values below zero or that are not finite; magnitude images have none")
    if min(volume.shape[1:]) < LEAST_MATRIX:
        raise ReconError(f"{file}: its images are {volume.shape[1:]}, of less than {LEAST_MATRIX} pixels; leave it out")
    brightest = volume.max()
    yield from (one for one in volume if one.max() > EMPTY * brightest)


def _nifti(file: Path) -> np.ndarray:
    """Slices (slice, y, x) of a NIfTI volume, cut across its thickest direction; volumes of a series one by one."""
    require("nibabel")
    import nibabel

    try:
        image = nibabel.load(file)
        volume = np.asarray(image.dataobj, np.float32)  # type: ignore[attr-defined]
        zooms = image.header.get_zooms()[:3]  # type: ignore[attr-defined]
    except Exception as error:  # nibabel raises its own, and those of gzip and numpy
        raise ReconError(f"{file}: cannot be read as NIfTI ({one_line(error)})") from None
    if volume.ndim < 3 or volume.dtype.kind != "f":
        raise ReconError(f"{file}: shape {volume.shape} is no volume (x, y, z)")
    volume = volume.reshape(*volume.shape[:3], -1)
    through = 2 if max(zooms) < 1.01 * zooms[2] else int(np.argmax(zooms))
    slices = np.moveaxis(volume, (through, 3), (1, 0))  # series, slice and the two axes in the plane
    return slices.reshape(-1, *slices.shape[2:]).swapaxes(1, 2)


def _dicom(file: Path) -> np.ndarray | None:
    """Frames (slice, y, x) of an MR image; None for a file without pixels, of another modality, or no magnitude."""
    import pydicom

    try:
        dataset = pydicom.dcmread(file)
        if dataset.get("Modality") != "MR" or dataset.get("SamplesPerPixel") != 1 or not _is_magnitude(dataset):
            return None
        pixels = dataset.pixel_array.astype(np.float32)
    except Exception as error:  # pydicom and its decoders raise many kinds
        raise ReconError(f"{file}: cannot be read as DICOM ({one_line(error)})") from None
    pixels = pixels * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    return pixels.reshape(-1, *pixels.shape[-2:])


def _is_magnitude(dataset: Any) -> bool:
    """Whether an image type says nothing of a phase, or of a real or an imaginary part."""
    words = {str(word).upper() for word in dataset.get("ImageType", ())}
    others = {"P", "PHASE", "R", "REAL", "I", "IMAGINARY", "PHASE MAP"} & words
    return dataset.get("ComplexImageComponent", "MAGNITUDE") in ("MAGNITUDE", "MIXED") and not others


def _of_matrix(image: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """Image (1, y, x) of a matrix: resampled where it is larger, continued by zeros where it is smaller."""
    from skimage.transform import resize  # of the extra train

    factor = min(1.0, *(wanted / own for own, wanted in zip(image.shape, shape, strict=True)))
    if factor < 1:
        image = resize(image, [max(round(factor * n), 1) for n in image.shape], order=3, anti_aliasing=True)
    return fitted(torch.from_numpy(image.clip(0).astype(np.complex64))[None], shape)


def fitted(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Images (slice, y, x) cut or continued by zeros about their middle to a shape (y, x)."""
    result = images.new_zeros((len(images), *shape))
    common = [min(own, wanted) for own, wanted in zip(images.shape[1:], shape, strict=True)]
    middle(result, common)[:] = middle(images, common)
    return result


def middle(images: Tensor, shape: Sequence[int]) -> Tensor:
    """The middle (..., *shape) of images or k-space (..., y, x)."""
    y, x = (own // 2 - size // 2 for own, size in zip(images.shape[-2:], shape, strict=True))
    return images[..., y : y + shape[0], x : x + shape[1]]
