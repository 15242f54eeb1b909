"""Training of priors from fully sampled scans: images from files, a run that survives a kill, weights with a card."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from gadgets.buffers import kspace_problems, maps_of, maps_problems, sampled
from gadgets.coil_compression import CoilCompression
from gadgets.espirit import Espirit
from gadgets.stream import ReconError, one_line
from pipelines.arrays import check_fully_sampled, read_npy, scan_bits
from priors.checkpoints import ModelCard, images_sha256, save_checkpoint
from priors.espirit import espirit_maps
from priors.fourier import ifft2c
from priors.networks import Architecture, EdmDenoiser, compute_device
from priors.self_denoising import self_denoised
from priors.training import Trainer, TrainingSettings, denoising_quality, normalised
from priors.typicality import typical_gains
from priors.weighting import Weighting
from priors.wkgm import WeightedKspacePrior

Progress = Callable[[str, int, int, float], None]  # stage, steps done, steps in all, loss

FULLY = "a prior is learnt from fully sampled scans"
EMPTY = 0.05  # of the brightest image of a volume: below it is none
INTENDED_USE = (
    "Research on the reconstruction of undersampled Cartesian MR k-space; not for diagnosis. Data unlike the training "
    "data are reconstructed less well, and images say so."
)


@dataclass(frozen=True)
class WkgmTraining:
    """Training of a WKGM prior.

    Parameters
    ----------
    data : raw ISMRMRD files (.h5), or arrays (.npy) of complex images (slice, y, x)
    out : weights to write (.safetensors), the card (.json) and the loss curve (.png) beside them
    kspace : arrays are k-space (slice, coil, y, x) or (coil, y, x) instead of images
    hold_out : images at the end that are not trained on; the card's quality is measured on them
    denoise : learn from the images without their noise (`self_denoised`)
    denoising_steps : optimiser steps of that
    architecture, settings : see there
    description, licence, intended_use : for the card; the description names files and images if empty
    device : "auto", "cpu", "cuda", ...
    """

    data: tuple[Path, ...]
    out: Path
    kspace: bool = False
    hold_out: int = 0
    denoise: bool = True
    denoising_steps: int = 1500
    architecture: Architecture = field(default_factory=Architecture)
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    description: str = ""
    licence: str = "not given: ask the author"
    intended_use: str = INTENDED_USE
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("licence", "intended_use"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty; say something for the card or leave it out")


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
    if job.out.suffix != ".safetensors":
        raise ReconError(f"{job.out}: weights are written as .safetensors; give a name that ends so")
    folder, weighting = job.out.with_suffix(".training"), Weighting()
    try:
        device, leader = _processes(job.device)
        images = normalised(training_images(job.data, job.kspace))
        if not 0 <= job.hold_out < len(images):
            raise ReconError(
                f"training: --hold-out {job.hold_out} of {len(images)} images leaves none to learn from; hold out fewer"
            )
        learnt, held_out = images[: len(images) - job.hold_out], images[len(images) - job.hold_out :]
        folder.mkdir(parents=True, exist_ok=True)
        targets = normalised(_without_noise(job, learnt, folder, device, leader, progress)) if job.denoise else learnt
        torch.manual_seed(job.settings.seed)
        model = EdmDenoiser(job.architecture).to(device)
        trainer = Trainer(model, targets, weighting, job.settings, folder / "state.safetensors")
        trainer.run(_told(progress, "training", job.settings.steps))
        judged = held_out if job.hold_out else learnt
        quality = denoising_quality(trainer.average, judged, weighting, job.settings)
        where = "held-out" if job.hold_out else "training"
        prior = WeightedKspacePrior(
            trainer.average, weighting, job.settings.sigma.range, phase_width=job.settings.phase_width
        )
        card = ModelCard(
            name=job.out.stem,
            architecture=job.architecture,
            weighting=weighting,
            phase_width=job.settings.phase_width,
            sigma_range=job.settings.sigma.range,
            typical_gain=typical_gains(prior, targets.to(device), learnt.to(device)),
            training_data=_description(job, len(learnt), tuple(images.shape[-2:])),
            training_data_sha256=images_sha256(learnt),
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
            f"{error.filename or job.out}: cannot be read or written ({error.strerror or one_line(error)}); free "
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
    array = read_npy(path)
    if not np.iscomplexobj(array) or not np.isfinite(array).all():
        raise ReconError(f"{path}: it holds {array.dtype} values, not finite complex ones; phases are needed")
    tensor = torch.from_numpy(array.astype(np.complex64))
    if not kspace:
        if tensor.ndim != 3:
            raise ReconError(f"{path}: shape {array.shape} is not images (slice, y, x); k-space needs --kspace")
        return tensor
    if tensor.ndim not in (3, 4):
        raise ReconError(f"{path}: shape {array.shape} is not k-space (slice, coil, y, x) or (coil, y, x)")
    slices = tensor if tensor.ndim == 4 else tensor[None]
    images = []
    for number, one in enumerate(slices):
        check_fully_sampled(f"{path}, slice {number}", (one != 0).any(0), FULLY)
        rows, columns = (slice(max(n // 2 - 12, 0), n // 2 + 12) for n in one.shape[-2:])
        maps = espirit_maps(one[None][..., rows, columns], (one.shape[-2], one.shape[-1]), crop=0.0)
        images.append((maps[0, 0].conj() * ifft2c(one)).sum(0))
    return torch.stack(images)


def _scan_images(path: Path) -> Tensor:
    """Coil-combined images of a raw scan: what the shipped chains' gadgets hand to the reconstruction."""
    bits = scan_bits(path, (CoilCompression(), Espirit()))
    images = [image for bit in bits for image in _bit_images(path, bit)]
    sizes = {tuple(image.shape) for image in images}
    if len(sizes) > 1:
        raise ReconError(
            f"{path}: its images are of several sizes, {sorted(sizes)}; train with scans of one matrix size"
        )
    return torch.stack(images) if images else torch.empty(0, 0, 0)


def _bit_images(path: Path, bit: Any) -> Iterator[Tensor]:
    data = bit.data.data
    for n, s, loc in np.ndindex(*data.shape[4:]):
        part = data[..., n, s, loc]
        check_fully_sampled(str(path), sampled(part)[0], FULLY)
        maps = maps_problems(maps_of(bit.coil_maps, s, loc))
        images = (maps[:, 0].conj() * ifft2c(kspace_problems(part))).sum(1)
        peaks = images.abs().amax((1, 2))
        yield from images[peaks > EMPTY * peaks.max()]  # a volume's readout positions beside the object are empty


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
    job: WkgmTraining, images: Tensor, folder: Path, device: torch.device, leader: bool, progress: Progress | None
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


def _description(job: WkgmTraining, count: int, matrix: tuple[int, ...]) -> str:
    files = job.description or ", ".join(path.name for path in job.data)
    noise = f", without their noise (Noisier2Noise, {job.denoising_steps} steps)" if job.denoise else ""
    return f"{count} complex images of {matrix[0]} x {matrix[1]} of {files}{noise}"


def write_loss_curve(path: Path, losses: list[float]) -> None:
    """Draw the loss of a run, every ten steps and its running mean, as a PNG; all of it or nothing."""
    from matplotlib.figure import Figure

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
