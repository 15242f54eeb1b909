"""The public functions on arrays: k-space and a sampling mask in, images out. Import them from `priors`.

Arrays are NumPy arrays or torch tensors. K-space is complex, (coil, y, x) of one slice or (slice, coil, y, x) of
several that are reconstructed together, without readout oversampling, zero frequency at index n // 2 of y and x. It may
be in any unit; images have the unit of its centred orthonormal inverse Fourier transform. What comes back are NumPy
arrays, complex64.
"""

from __future__ import annotations

import inspect
import math
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from priors.array_arguments import batch_of, described, tensor_of
from priors.classical.methods import CLASSICAL
from priors.learning.networks import compute_device
from priors.prior import Prior
from priors.reconstruct import measurement_of
from priors.reconstruct import reconstruct as run_loop
from priors.registry import (
    VARIANT,
    generative_method,
    is_code,
    is_generative,
    method_names,
    prior_from_code,
    weights_of,
)
from priors.registry import load_prior as load_weights
from priors.settings import ReconstructionSettings
from priors.signal import espirit
from priors.signal.combination import combine_sets, combine_with_maps
from priors.signal.compression import svd_compression
from priors.signal.fourier import ifft2c
from priors.signal.scale import image_scale

Images = NDArray[np.complex64]

MAP_SETS = 2  # as the shipped chains have
CALIBRATION_SIZE = 24  # most samples of the calibration region along each axis, as the gadgets use
SMALLEST_CALIBRATION = 4  # samples along each axis
KERNEL = 6  # width of ESPIRiT's kernel in samples
THRESHOLD = 0.02  # of ESPIRiT's singular values


class UnlikeTrainingWarning(UserWarning):
    """An image is unlike those that the prior was trained on."""


def load_prior(name: str | Path = "svd_wkgm") -> Prior:
    """Load a prior.

    Parameters
    ----------
    name : str or Path
        A method whose weights come with the package ("svd_wkgm", "wkgm" or "hkgm"), a file of weights
        (`name.safetensors`, with its card `name.json` next to it), or code (FILE.py:NAME or MODULE:NAME).

    Returns
    -------
    Prior
        On the CPU.

    Raises
    ------
    ValueError
        If there is no such method, no weights come with it, or the file or code is no prior.

    Examples
    --------
    >>> from priors import load_prior
    >>> load_prior("wkgm").sigma_levels.continuous
    True
    """
    text = str(name)
    if is_code(text) and not _is_method(text):
        return prior_from_code(text)
    if isinstance(name, Path) or text.endswith(".safetensors"):
        return load_weights(Path(name).expanduser())[0]
    entry = generative_method(text)
    return load_weights(weights_of(text, ""), text)[0] if entry.weights else entry.without_weights()


def compress_coils(kspace: ArrayLike, coils: int, mask: ArrayLike | None = None) -> Images:
    """Replace the coils of a slice by fewer virtual coils that hold the most of the signal.

    Parameters
    ----------
    kspace : array
        K-space, complex, shape (coil, y, x).
    coils : int
        Number of virtual coils; no more than there are coils.
    mask : array of bool, optional
        Sampling mask, shape (y, x); by default the samples that are not zero.

    Returns
    -------
    array
        K-space of the virtual coils, complex64, shape (coils, y, x), by descending energy.

    Raises
    ------
    ValueError
        If the shapes do not fit, or `coils` is out of range.

    Notes
    -----
    The matrix is the leading left singular vectors of the calibration region, of all k-space where there is none
    (Buehrer et al., MRM 2007).
    """
    data, sampled, alone = batch_of(kspace, mask)
    if not alone:
        raise ValueError(f"k-space of shape {tuple(data.shape)} is of several slices; compress one after the other")
    rows, columns = espirit.calibration_region(sampled[0, 0], CALIBRATION_SIZE)
    region = data[0, :, rows, columns]
    matrix = svd_compression(region if min(region.shape[-2:]) >= SMALLEST_CALIBRATION else data[0], coils)
    compressed: Images = torch.einsum("vc,cyx->vyx", matrix, data[0]).numpy()
    return compressed


def espirit_maps(
    kspace: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    sets: int = MAP_SETS,
    calibration: int = CALIBRATION_SIZE,
    kernel: int = KERNEL,
    threshold: float = THRESHOLD,
    crop: float = 0.0,
) -> Images:
    """Estimate coil maps by ESPIRiT from the fully sampled centre of k-space.

    Parameters
    ----------
    kspace : array
        K-space, complex, shape (coil, y, x) or (slice, coil, y, x).
    mask : array of bool, optional
        Sampling mask, shape (y, x) or (slice, y, x); by default the samples that are not zero.
    sets : int
        Sets of maps; 2 for anatomy larger than the field of view.
    calibration : int
        Most samples of the fully sampled centre that are used, along each axis.
    kernel : int
        Width of the k-space kernel in samples.
    threshold : float
        Singular values of the calibration matrix below this fraction of the largest one are noise.
    crop : float
        Eigenvalue, from 0 to 1, where the support of the maps ends; 0 does not crop.

    Returns
    -------
    array
        Maps, complex64, shape (set, coil, y, x) or (slice, set, coil, y, x), dimensionless. The sum of squares over the
        coils is 1 in the first set, where it is not cropped.

    Raises
    ------
    ValueError
        If the shapes do not fit, a number is out of range, or fewer than 4 x 4 samples of the centre were measured.

    Notes
    -----
    Uecker et al., MRM 2014.
    """
    data, sampled, alone = batch_of(kspace, mask)
    return _numpy(_maps(data, sampled, sets, calibration, kernel, threshold, crop), alone)


def reconstruct(
    kspace: ArrayLike,
    mask: ArrayLike | None = None,
    method: str | Path | Prior = "svd_wkgm",
    *,
    maps: ArrayLike | None = None,
    noise: float = 0.0,
    device: str = "auto",
    **settings: Any,
) -> Images:
    """Reconstruct undersampled multi-coil k-space, by default as chain `svd_wkgm` does.

    Parameters
    ----------
    kspace : array
        K-space, complex, shape (coil, y, x) or (slice, coil, y, x); samples outside the mask are not looked at.
    mask : array of bool, optional
        Sampling mask, shape (y, x) or (slice, y, x); by default the samples that are not zero.
    method : str, Path or Prior
        A method with a prior ("svd_wkgm", "wkgm", "hkgm", with weights of the package), a classical one ("cg_sense",
        "l1_wavelet", "grappa", "sake", "lindberg", "tv" or "zero_filled"), what `load_prior` takes, or a prior.
    maps : array, optional
        Coil maps, complex, shape (set, coil, y, x) or (slice, set, coil, y, x); by default `espirit_maps` makes them.
    noise : float
        Standard deviation of the noise of k-space in each of the real and imaginary parts, in the unit of the k-space;
        0: estimated from the data. Classical methods do not look at it.
    device : str
        Where to compute: "auto" (a GPU where there is one), "cpu" or "cuda".
    **settings
        With a prior, entries of `ReconstructionSettings` by name, for instance `seed=1` or `low_rank=True`. With a
        classical method, its options, for instance `regularisation=1e-2`.

    Returns
    -------
    array
        Images, complex64, shape (y, x) or (slice, y, x): root-sum-of-squares of the coil images, with a phase.

    Warns
    -----
    UnlikeTrainingWarning
        If an image is unlike those that the prior was trained on.

    Raises
    ------
    ValueError
        If shapes do not fit, there is nothing in the data, or the method or a setting is unknown or out of range.
    FloatingPointError
        If the prior gave values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from priors import reconstruct
    >>> kspace = np.load("kspace.npy")  # complex, (coil, y, x), zero where nothing was measured
    >>> image = reconstruct(kspace)
    """
    if "samples" in settings:
        raise ValueError("reconstruct gives one image; take posterior_samples for several samples")
    data, sampled, alone = batch_of(kspace, mask)
    coil_maps = _given_maps(maps, data, sampled, alone)
    if isinstance(method, str) and method in CLASSICAL:
        return _numpy(_classical(method, data, sampled, coil_maps, settings), alone)
    coils, coil_maps = _with_prior(method, data, sampled, coil_maps, noise, device, settings)
    return _numpy(_combined(coils[0], coil_maps), alone)


def posterior_samples(
    kspace: ArrayLike,
    mask: ArrayLike | None = None,
    method: str | Path | Prior = "svd_wkgm",
    *,
    samples: int = 8,
    maps: ArrayLike | None = None,
    noise: float = 0.0,
    device: str = "auto",
    **settings: Any,
) -> Images:
    """Draw several images that agree with the data, each with noise of its own.

    Their mean is an estimate, the standard deviation of their magnitude tells where the prior decides more than the
    data. It is about a third of the true error.

    Parameters
    ----------
    kspace, mask, method, maps, noise, device, **settings
        As `reconstruct` takes them; the method is one with a prior. `seed` sets the seed of all samples.
    samples : int
        How many, two or more.

    Returns
    -------
    array
        Images, complex64, shape (sample, y, x) or (sample, slice, y, x).

    Warns
    -----
    UnlikeTrainingWarning
        If an image is unlike those that the prior was trained on.

    Raises
    ------
    ValueError
        As `reconstruct`; if the method has no prior, or k-space is complete, so that there is nothing to sample.
    """
    if isinstance(method, str) and method in CLASSICAL:
        raise ValueError(f"method {method} has no prior to sample from; take svd_wkgm, wkgm or hkgm")
    if samples < 2:
        raise ValueError(f"samples {samples} is not two or more; reconstruct gives one image")
    data, sampled, alone = batch_of(kspace, mask)
    if bool(sampled.all()) and settings.get("keep_measured") != "false":
        raise ValueError("k-space is complete: there is nothing to sample; take reconstruct")
    coil_maps = _given_maps(maps, data, sampled, alone)
    coils, coil_maps = _with_prior(method, data, sampled, coil_maps, noise, device, {**settings, "samples": samples})
    return np.stack([_numpy(_combined(one, coil_maps), alone) for one in coils])


def _numpy(images: Tensor, alone: bool) -> Images:
    array: Images = images.cpu().numpy()
    return array[0] if alone else array


def _maps(
    kspace: Tensor, mask: Tensor, sets: int, calibration: int, kernel: int, threshold: float, crop: float
) -> Tensor:
    """Maps (slice, set, coil, y, x)."""
    found: list[Tensor] = []
    for one, sampled in zip(kspace, mask[:, 0], strict=True):
        rows, columns = espirit.calibration_region(sampled, calibration)
        region = one[None, :, rows, columns]
        height, width = region.shape[-2:]
        if min(height, width) < SMALLEST_CALIBRATION:
            raise ValueError(
                f"coil maps: of the centre of k-space {height} x {width} samples were measured without gaps; ESPIRiT "
                f"needs {SMALLEST_CALIBRATION} x {SMALLEST_CALIBRATION} or more, or give maps"
            )
        shape = (sampled.shape[0], sampled.shape[1])
        fitting = min(kernel, height, width)
        found += espirit.espirit_maps(region, shape, sets=sets, kernel=fitting, threshold=threshold, crop=crop)
    return torch.stack(found)


def _given_maps(maps: ArrayLike | None, kspace: Tensor, mask: Tensor, alone: bool) -> Tensor:
    """Maps (slice, set, coil, y, x), estimated where none are given."""
    if maps is None:
        return _maps(kspace, mask, MAP_SETS, CALIBRATION_SIZE, KERNEL, THRESHOLD, 0.0)
    given = tensor_of(maps, "maps")
    shaped = given[None] if alone else given
    if shaped.ndim != 5 or (len(shaped), *shaped.shape[2:]) != tuple(kspace.shape) or not given.is_complex():
        axes = "(set, coil, y, x)" if alone else "(slice, set, coil, y, x)"
        raise ValueError(f"maps: {described(given)} is not complex {axes} for k-space of {tuple(kspace.shape)}")
    return shaped.to(torch.complex64)


def _classical(method: str, kspace: Tensor, mask: Tensor, maps: Tensor, options: dict[str, Any]) -> Tensor:
    entry = CLASSICAL[method]
    function = entry.load()
    names = inspect.signature(function).parameters
    own = [name for name in names if name not in ("kspace", "maps", "mask")]
    _check_known(options, own, f"method {method}")
    level = image_scale(kspace, mask).reshape(-1, 1, 1, 1)
    arrays = {"kspace": kspace / level, "maps": maps, "mask": mask}
    found = function(**{name: array for name, array in arrays.items() if name in names}, **options) * level
    return _combined(found, maps) if entry.completes else combine_sets(found, maps)


def _with_prior(
    method: str | Path | Prior,
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor,
    noise: float,
    device: str,
    settings: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Coil k-space (sample, slice, coil, y, x) of the loop, and the maps on its device."""
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise {noise} is not a standard deviation; give 0 or more")
    known = [entry.name for entry in fields(ReconstructionSettings)]
    _check_known(settings, known, "a method with a prior")
    own = generative_method(method).settings if isinstance(method, str) and _is_method(method) else {}
    place = compute_device(device)
    prior = (method if isinstance(method, Prior) else _prior_of(method)).to(place)
    level = image_scale(kspace, mask).reshape(-1, 1, 1, 1)
    data, sampled, coil_maps = (kspace / level).to(place), mask.to(place), maps.to(place)
    level_of_noise = noise / level.flatten()
    prior = prior.begin_scan(measurement_of(data, sampled, coil_maps, level_of_noise))
    result = run_loop(
        data, sampled, coil_maps, prior, ReconstructionSettings(**{**own, **settings}), noise=level_of_noise
    )
    for text in dict.fromkeys(text for texts in result.warnings for text in texts):
        warnings.warn(text, UnlikeTrainingWarning, stacklevel=3)
    return result.kspace * level.to(place), coil_maps


def _is_method(text: str) -> bool:
    """Whether a text names a method with a prior, or a variant of one (NAME:VARIANT)."""
    return is_generative(text.partition(VARIANT)[0])


def _prior_of(method: str | Path) -> Prior:
    if not isinstance(method, str | Path):
        raise ValueError(f"method: an object of type {type(method).__name__} is no name, path or Prior")
    known = isinstance(method, Path) or _is_method(method) or is_code(method) or method.endswith(".safetensors")
    if not known:
        raise ValueError(f"there is no method '{method}'; take {', '.join((*CLASSICAL, *method_names()))}")
    return load_prior(method)


def _check_known(given: dict[str, Any], known: list[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"{what} has no setting '{name}'; it has {', '.join(known) or 'none'}")


def _combined(kspace: Tensor, maps: Tensor) -> Tensor:
    """Images (slice, y, x) of coil k-space (slice, coil, y, x)."""
    return combine_with_maps(ifft2c(kspace), maps)
