"""Training of priors from fully sampled scans: a run that survives a kill, weights with a card."""

from __future__ import annotations

import datetime
import os
import shutil
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, distributed

from gadgets.stream import ReconError, one_line, reason_of
from pipelines.training_data import scan_slices, training_images
from pipelines.training_magnitudes import fitted
from pipelines.training_measurements import measured_images
from priors.learning.cards import ModelCard, from_table, images_sha256
from priors.learning.checkpoints import read_checkpoint, write_checkpoint
from priors.learning.networks import compute_device
from priors.learning.recipe import Encoding, Progress, Recipe, Run, TrainingSet
from priors.learning.training import normalised
from priors.registry import RECONSTRUCTIONS, VARIANT, loadable_methods, method_names, with_variant
from priors.registry import recipe_of as registered_recipe
from priors.unrolled import TRAINED_MASK

INTENDED_USE = (
    "Research on the reconstruction of undersampled Cartesian MR k-space; not for diagnosis. Data unlike the training "
    "data are reconstructed less well, and images say so."
)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A training of a prior.

    Parameters
    ----------
    kind : name of a generative method that can be trained
    data : raw files (.h5), or arrays (.npy, .cfl) of complex images (slice, y, x) or of k-space; one file for kinds
        that learn from one scan
    options : what can be set for the kind, see its recipe; its defaults if not given
    out : weights to write (.safetensors), the card (.json) and the loss curve (.png) go next to them
    auxiliary : files of images that are not like those that the prior is for, and that it learns structure from as well
    initial : weights of the same kind to begin with, whose network and domain are taken (fine-tuning)
    kspace : arrays are k-space (slice, coil, y, x) or (coil, y, x) instead of images
    hold_out : images at the end that are not trained on; the card's quality is measured on them
    calibration : learn from the fully sampled centre of an undersampled scan; kinds that learn from one scan
    description, licence, intended_use : for the card; the description names files and images if empty
    device : "auto", "cpu", "cuda", ...
    """

    kind: str
    data: tuple[Path, ...]
    out: Path
    options: Any = None
    auxiliary: tuple[Path, ...] = ()
    initial: Path | None = None
    kspace: bool = False
    hold_out: int = 0
    calibration: bool = False
    description: str = ""
    licence: str = "not given: ask the author"
    intended_use: str = INTENDED_USE
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("licence", "intended_use"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty; say something for the card or leave it out")


def recipe_of(kind: str) -> Recipe:
    """Recipe of a kind. Raises ReconError where there is none."""
    recipe = None
    if kind.partition(VARIANT)[0] in (*method_names(), *RECONSTRUCTIONS):
        try:
            recipe = registered_recipe(kind)
        except ValueError as error:
            raise ReconError(one_line(ReconError(str(error)))) from None
    if recipe is None:
        raise ReconError(f"training: there is no kind '{kind}'; take {', '.join(trainable_kinds())}")
    return recipe


def trainable_kinds() -> tuple[str, ...]:
    """Names of the generative methods, and of their variants, that can be trained."""
    methods = [
        (with_variant(name, variant), one)
        for name, method in loadable_methods()
        for variant, one in (("", method), *method.variants.items())
    ]
    return (*(name for name, method in methods if method.recipe is not None), *RECONSTRUCTIONS)


def train(job: TrainingJob, progress: Progress | None = None) -> ModelCard:
    """Train a prior and write weights, card and loss curve, each whole or not at all.

    The run's state is kept in a folder next to the weights and taken up again by the same call after a kill; it is
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
    recipe = recipe_of(job.kind)
    folder = job.out.with_suffix(".training")
    try:
        device, leader = _processes(job.device)
        options = recipe.options() if job.options is None else job.options
        options, initial = (options, None) if job.initial is None else _refined(job.initial, job.kind, recipe, options)
        data = _training_set(job, recipe, options)
        folder.mkdir(parents=True, exist_ok=True)
        trained = recipe.train(options, data, Run(folder, device, leader, progress, initial))
        height, width = data.images.shape[-2:]
        card = ModelCard(
            kind=job.kind,
            options=trained.options,
            name=job.out.stem,
            typical_gain=trained.typical_gain,
            training_data=f"{len(data.images)} complex images of {height} x {width} {data.text}{trained.text}",
            training_data_sha256=images_sha256(data.images),
            steps=trained.steps,
            date=datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
            licence=job.licence,
            intended_use=job.intended_use,
            quality=trained.quality,
        )
        if leader:
            write_loss_curve(job.out.with_suffix(".png"), trained.losses, trained.loss_name)
            write_checkpoint(job.out, trained.weights, card, torch.bfloat16)
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


def _refined(path: Path, kind: str, recipe: Recipe, options: Any) -> tuple[Any, dict[str, Tensor]]:
    """Options with network and domain of given weights, and these weights.

    Raises
    ------
    ReconError
        They are of another kind, or not all of what was trained.
    ValueError
        They cannot be read.
    """
    card, weights = read_checkpoint(path)
    if card.kind != kind:
        raise ReconError(f"{path}: weights of '{card.kind}' cannot be trained further as '{kind}'")
    if not recipe.refinable:
        raise ReconError(f"{path}: weights of '{kind}' are only a part of what was trained; train anew")
    weights.pop(TRAINED_MASK, None)
    if hasattr(options, "options"):
        return replace(options, options=from_table(type(options.options), card.options)), weights
    for name, value in card.options.items():
        if is_dataclass(known := getattr(options, name, None)):
            options = replace(options, **{name: from_table(type(known), value)})
        elif name == "phase_width":
            options = replace(options, settings=replace(options.settings, phase_width=value))
    return options, weights


def _training_set(job: TrainingJob, recipe: Recipe, options: Any) -> TrainingSet:
    """What a kind learns from, of the files of a job."""
    if job.auxiliary and (recipe.one_scan or recipe.measured):
        raise ReconError(f"training: --also is for kinds that learn from images alone, not for {job.kind}")
    if recipe.one_scan:
        return _one_scan(job)
    return _measured(job, options) if recipe.measured else _images(job)


def _measured(job: TrainingJob, options: Any) -> TrainingSet:
    _check_images_only(job)
    images, encoding = measured_images(job.data, job.kspace, options.mask, options.coils)
    return _held_out(job, images, encoding)


def _images(job: TrainingJob) -> TrainingSet:
    _check_images_only(job)
    images, auxiliary = normalised(training_images(job.data, job.kspace)), 0
    if job.auxiliary:
        others = fitted(normalised(training_images(job.auxiliary)), images.shape[1:])
        images, auxiliary = torch.cat((others, images)), len(others)
    return _held_out(job, images, auxiliary=auxiliary)


def _check_images_only(job: TrainingJob) -> None:
    if job.calibration:
        raise ReconError(f"training: --calibration is for kinds that learn from one scan, not for {job.kind}")


def _held_out(job: TrainingJob, images: Tensor, encoding: Encoding | None = None, auxiliary: int = 0) -> TrainingSet:
    """Images to learn from, auxiliary ones first, and, at the end, to measure quality on."""
    if not 0 <= job.hold_out < len(images) - auxiliary:
        raise ReconError(
            f"training: --hold-out {job.hold_out} of {len(images) - auxiliary} images leaves none to learn from; "
            "hold out fewer"
        )
    count = len(images) - job.hold_out
    files = ", ".join(path.name for path in (*job.auxiliary, *job.data))
    text = f"of {job.description or files}"
    return TrainingSet(images[:count], images[count:], None, text, encoding, auxiliary)


def _one_scan(job: TrainingJob) -> TrainingSet:
    if len(job.data) != 1 or job.hold_out:
        raise ReconError(f"training: {job.kind} learns from one scan: give one file, and hold nothing out")
    images, kspace = scan_slices(job.data[0], job.calibration)
    kspace = kspace / images.abs().amax((-2, -1))[:, None, None, None]
    images = normalised(images)
    text = f"of {job.description or job.data[0].name}"
    if job.calibration:
        text += ", the fully sampled centre of its k-space only"
    return TrainingSet(images, images[:0], kspace, text)


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


def write_loss_curve(path: Path, losses: list[float], name: str) -> None:
    """Draw the loss of a run, every ten steps and its running mean, as a PNG; all of it or nothing."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = 10 * (1 + np.arange(len(losses)))
    axes.plot(steps, losses, color="0.8", linewidth=0.6, label="ten steps")
    width = min(50, len(losses))
    if width > 1:
        mean = np.convolve(losses, np.full(width, 1 / width), mode="valid")
        axes.plot(steps[width - 1 :], mean, color="C0", label=f"mean of {10 * width} steps")
    axes.set(xlabel="step", ylabel=name, yscale="log")
    axes.legend()
    temporary = path.with_name(path.name + ".part")
    figure.savefig(temporary, format="png", dpi=110)
    os.replace(temporary, path)
