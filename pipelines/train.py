"""Training of priors from fully sampled scans: images from files, a run that survives a kill, weights with a card."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, distributed

from gadgets.buffers import kspace_problems, maps_of, maps_problems, sampled
from gadgets.coil_compression import CoilCompression
from gadgets.espirit import Espirit
from gadgets.generative_recon import filled
from gadgets.stream import ReconError, one_line, reason_of
from pipelines.evaluation.arrays import check_fully_sampled, read_npy, scan_bits
from priors.hkgm import PatchKind, ScanPatches
from priors.learning.checkpoints import ModelCard, images_sha256, save_checkpoint
from priors.learning.networks import Architecture, EdmDenoiser, Parameterisation, compute_device
from priors.learning.self_denoising import self_denoised
from priors.learning.training import Examples, ImageCrops, Trainer, TrainingSettings, denoising_quality, normalised
from priors.signal.espirit import calibration_region, espirit_maps
from priors.signal.fourier import fft2c, ifft2c
from priors.signal.weighting import Weighting
from priors.typicality import typical_gains
from priors.wkgm import WeightedKspacePrior

Progress = Callable[[str, int, int, float], None]  # stage, steps done, steps in all, loss

FULLY = "a prior is learnt from fully sampled scans"
OR_CENTRE = f"{FULLY}, or with --calibration from that centre"
LEAST_CENTRE = 32  # samples along each axis of a fully sampled centre that a prior can be learnt from
AUGMENTED = 0.6  # standard deviation of the variations of training images in units of their own
EMPTY = 0.05  # of the brightest image of a volume: below it is none
INTENDED_USE = (
    "Research on the reconstruction of undersampled Cartesian MR k-space; not for diagnosis. Data unlike the training "
    "data are reconstructed less well, and images say so."
)


@dataclass(frozen=True, kw_only=True)
class PriorTraining:
    """What the trainings of all priors have in common.

    Parameters
    ----------
    out : weights to write (.safetensors), the card (.json) and the loss curve (.png) beside them
    denoise : learn from the images without their noise (`self_denoised`)
    denoising_steps : optimiser steps of that
    architecture, settings : see there
    weighting : of k-space
    description, licence, intended_use : for the card; the description names files and images if empty
    device : "auto", "cpu", "cuda", ...
    """

    out: Path
    denoise: bool = True
    denoising_steps: int = 1500
    architecture: Architecture = field(default_factory=Architecture)
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    weighting: Weighting = field(default_factory=Weighting)
    description: str = ""
    licence: str = "not given: ask the author"
    intended_use: str = INTENDED_USE
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("licence", "intended_use"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty; say something for the card or leave it out")


@dataclass(frozen=True, kw_only=True)
class WkgmTraining(PriorTraining):
    """Training of a WKGM prior.

    Parameters
    ----------
    data : raw ISMRMRD files (.h5), or arrays (.npy) of complex images (slice, y, x)
    kspace : arrays are k-space (slice, coil, y, x) or (coil, y, x) instead of images
    hold_out : images at the end that are not trained on; the card's quality is measured on them
    """

    data: tuple[Path, ...]
    kspace: bool = False
    hold_out: int = 0


@dataclass(frozen=True, kw_only=True)
class HkgmTraining(PriorTraining):
    """Training of an HKGM prior from one multi-coil scan.

    Parameters
    ----------
    scan : raw ISMRMRD file (.h5), or k-space (.npy) of shape (slice, coil, y, x) or (coil, y, x)
    patches : what the network learns from: "image" (patches of the weighted image, which the network sees through the
        Fourier transform), "kspace" (patches of weighted k-space) or "hankel" (patches of its Hankel matrix, as
        published)
    window : width of the window of the Hankel matrix
    calibration : learn from the fully sampled centre of an undersampled scan
    """

    scan: Path
    patches: PatchKind = "image"
    window: int = 8
    calibration: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patches not in get_args(PatchKind):
            raise ValueError(f"patches {self.patches!r} is not one of {', '.join(get_args(PatchKind))}")
        sees: Parameterisation = "fourier_conjugate" if self.patches == "image" else "kspace"
        object.__setattr__(self, "architecture", replace(self.architecture, parameterisation=sees))
        if self.patches != "image":  # these see coils, noise and phase as they are in k-space
            object.__setattr__(self, "denoise", False)
            object.__setattr__(self, "settings", replace(self.settings, phase_width=0))


@dataclass(frozen=True)
class _Lesson:
    """What a prior is to be learnt from.

    Parameters
    ----------
    learnt : complex64 images (slice, y, x) of maximum 1
    held_out : images that its quality is measured on, if there are any
    examples : makes the training's examples of the images learnt from, which may have lost their noise
    architecture : of the network
    text : for the card, beside the number of images and their matrix
    """

    learnt: Tensor
    held_out: Tensor
    examples: Callable[[Tensor], Examples]
    architecture: Architecture
    text: str


def train_wkgm(job: WkgmTraining, progress: Progress | None = None) -> ModelCard:
    """Train a WKGM prior and write weights, card and loss curve, each whole or not at all.

    The run's state is kept in a folder beside the weights and taken up again by the same call after a kill; it is
    removed at the end. Under `torchrun` all processes train together and the first one writes; the folder must then be
    one that all of them see.

    Raises
    ------
    ReconError
        One line: files that cannot be read or are not fully sampled, too few images, a state of another run, or a
        folder that cannot be written to.
    """

    def examples(images: Tensor) -> Examples:
        return ImageCrops(images, job.weighting, job.settings)

    def lesson() -> _Lesson:
        images = normalised(training_images(job.data, job.kspace))
        if not 0 <= job.hold_out < len(images):
            raise ReconError(
                f"training: --hold-out {job.hold_out} of {len(images)} images leaves none to learn from; hold out fewer"
            )
        count = len(images) - job.hold_out
        files = ", ".join(path.name for path in job.data)
        text = f"of {job.description or files}"
        return _Lesson(images[:count], images[count:], examples, job.architecture, text)

    return _train(job, lesson, progress)


def train_hkgm(job: HkgmTraining, progress: Progress | None = None) -> ModelCard:
    """Train an HKGM prior from one scan and write weights, card and loss curve, as `train_wkgm` does.

    Raises
    ------
    ReconError
        One line, as `train_wkgm`; also for a scan of one coil, and for a centre too small to learn from.
    """

    def lesson() -> _Lesson:
        images, kspace = scan_slices(job.scan, job.calibration)
        coils = kspace.shape[1]
        if coils < 2:
            raise ReconError(
                f"{job.scan}: it has one coil; HKGM learns from multi-coil k-space, train wkgm from any number of coils"
            )
        what = f"of {job.description or job.scan.name}, {coils} coils, {_PATCHES[job.patches]}"
        if job.patches == "hankel":
            what += f" with window {job.window}"
        if job.calibration:
            what += ", the fully sampled centre of its k-space only"
        coil_kspace = kspace / images.abs().amax((-2, -1))[:, None, None, None]
        images = normalised(images)
        spread = torch.view_as_real(job.weighting.weight(fft2c(images))).std()
        architecture = replace(job.architecture, sigma_data=round(AUGMENTED * float(spread), 4))

        def examples(clean: Tensor) -> Examples:
            if job.patches == "image":
                return ImageCrops(clean, job.weighting, job.settings)
            return ScanPatches(coil_kspace, job.weighting, job.settings, job.patches, job.window)

        return _Lesson(images, images[:0], examples, architecture, what)

    return _train(job, lesson, progress)


_PATCHES = {"image": "patches of the image", "kspace": "patches of k-space", "hankel": "patches of the Hankel matrix"}


def _train(job: PriorTraining, lesson: Callable[[], _Lesson], progress: Progress | None) -> ModelCard:
    """Train a prior from a lesson that may raise ReconError, and write it."""
    if job.out.suffix != ".safetensors":
        raise ReconError(f"{job.out}: weights are written as .safetensors; give a name that ends so")
    folder = job.out.with_suffix(".training")
    try:
        device, leader = _processes(job.device)
        data = lesson()
        folder.mkdir(parents=True, exist_ok=True)
        learnt, text = data.learnt, data.text
        if job.denoise:
            learnt = normalised(_without_noise(job, learnt, folder, device, leader, progress))
            text += f", without their noise (Noisier2Noise, {job.denoising_steps} steps)"
        torch.manual_seed(job.settings.seed)
        model = EdmDenoiser(data.architecture).to(device)
        trainer = Trainer(model, data.examples(learnt), job.settings, folder / "state.safetensors")
        trainer.run(_told(progress, "training", job.settings.steps))
        judged, where = (data.held_out, "held-out") if len(data.held_out) else (data.learnt, "training")
        quality = denoising_quality(trainer.average, judged, job.weighting, job.settings)
        prior = WeightedKspacePrior(
            trainer.average, job.weighting, job.settings.sigma.range, phase_width=job.settings.phase_width
        )
        height, width = learnt.shape[-2:]
        card = ModelCard(
            name=job.out.stem,
            architecture=data.architecture,
            weighting=job.weighting,
            phase_width=job.settings.phase_width,
            sigma_range=job.settings.sigma.range,
            typical_gain=typical_gains(prior, learnt.to(device), data.learnt.to(device)),
            training_data=f"{len(learnt)} complex images of {height} x {width} {text}",
            training_data_sha256=images_sha256(data.learnt),
            steps=trainer.step,
            date=datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
            licence=job.licence,
            intended_use=job.intended_use,
            quality={f"{name}, {where} images as measured": value for name, value in quality.items()},
        )
        if leader:
            write_loss_curve(job.out.with_suffix(".png"), trainer.losses)
            save_checkpoint(job.out, trainer.average, card, torch.bfloat16)
            shutil.rmtree(folder, ignore_errors=True)
        return card
    except ValueError as error:
        raise ReconError(one_line(ReconError(str(error)))) from None
    except OSError as error:
        raise ReconError(
            f"{error.filename or job.out}: cannot be read or written ({reason_of(error)}); free "
            "space or choose another place"
        ) from None
    finally:
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


# --- images ----------------------------------------------------------------------------------------------------------


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
            check_fully_sampled(str(path), mask, purpose)
            maps = maps_problems(maps_of(bit.coil_maps, s, loc))
            images = (maps[:, 0].conj() * ifft2c(kspace)).sum(1)
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


# --- the run ---------------------------------------------------------------------------------------------------------


def _processes(wanted: str) -> tuple[torch.device, bool]:
    """Device of this process, and whether it is the one that writes; joins the others of a `torchrun`."""
    local = os.environ.get("LOCAL_RANK")
    device = compute_device(wanted)
    if not distributed.is_available() or not distributed.is_torchelastic_launched():
        return device, True
    if device.type == "cuda" and local:
        device = compute_device(f"cuda:{local}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device, distributed.get_rank() == 0


def _without_noise(
    job: PriorTraining, images: Tensor, folder: Path, device: torch.device, leader: bool, progress: Progress | None
) -> Tensor:
    """The images less their noise; kept in the run's folder, as a run goes on with the very same ones."""
    kept = folder / f"images-{images_sha256(images)[:16]}-{job.denoising_steps}-{job.settings.seed}.npy"
    if not kept.exists():
        denoised = self_denoised(
            images,
            steps=job.denoising_steps,
            seed=job.settings.seed,
            device=device,
            bf16=job.settings.bf16,
            save_every_s=job.settings.save_every_s,
            architecture=job.architecture,
            state_path=folder / "denoising.safetensors",
            progress=_told(progress, "denoising the images", job.denoising_steps),
        )
        if leader:
            temporary = kept.with_suffix(".part")
            with open(temporary, "wb") as file:
                np.save(file, denoised.numpy())
            os.replace(temporary, kept)
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
    return torch.from_numpy(np.load(kept, allow_pickle=False))


def _told(progress: Progress | None, stage: str, steps: int) -> Callable[[int, float], None] | None:
    if progress is None:
        return None
    return lambda step, loss: progress(stage, step, steps, loss)


def write_loss_curve(path: Path, losses: list[float]) -> None:
    """Draw the loss of a run, every ten steps and its running mean, as a PNG; all of it or nothing."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = 10 * (1 + np.arange(len(losses)))
    axes.plot(steps, losses, color="0.8", linewidth=0.6, label="ten steps")
    width = min(50, len(losses))
    if width > 1:
        mean = np.convolve(losses, np.full(width, 1 / width), mode="valid")
        axes.plot(steps[width - 1 :], mean, color="C0", label=f"mean of {10 * width} steps")
    axes.set(xlabel="step", ylabel="denoising loss (1: nothing learnt)", yscale="log")
    axes.legend()
    temporary = path.with_name(path.name + ".part")
    figure.savefig(temporary, format="png", dpi=110)
    os.replace(temporary, path)
