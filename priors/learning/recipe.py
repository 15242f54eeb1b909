"""How a kind of prior is trained: what it needs, what can be set, and what comes out."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from priors.learning.augmentation import Augmentation, with_detailed_phase
from priors.learning.checkpoints import load_weights
from priors.learning.networks import Network

Progress = Callable[[str, int, int, float], None]  # stage, steps done, steps in all, loss (NaN where there is none)


def stage_text(stage: str, loss: float) -> str:
    """Name of a stage of a training and its loss, where it has one."""
    return stage if math.isnan(loss) else f"{stage}, loss {loss:.3f}"


@dataclass(frozen=True)
class Encoding:
    """How training images are measured, for kinds that learn a reconstruction and no prior.

    Parameters
    ----------
    maps : Tensor
        Coil maps, complex64, shape (1, set, coil, y, x), or one for each image, those held out last.
    mask : Tensor
        Sampling mask (bool), shape (y, x).
    name : str
        Name of the mask, for the card.
    kspace : Tensor, optional
        Coil k-space as it was measured, complex64, shape (slice, coil, y, x), that of images held out last; None: it
        is made of images and maps.
    """

    maps: Tensor
    mask: Tensor
    name: str
    kspace: Tensor | None = None

    def maps_of(self, chosen: Tensor) -> Tensor:
        """Maps (batch, set, coil, y, x) of images by their numbers (batch,)."""
        return self.maps.expand(len(chosen), -1, -1, -1, -1) if len(self.maps) == 1 else self.maps[chosen]

    def to(self, device: torch.device) -> Encoding:
        """The same on a device."""
        kspace = None if self.kspace is None else self.kspace.to(device)
        return Encoding(self.maps.to(device), self.mask.to(device), self.name, kspace)


@dataclass(frozen=True)
class TrainingSet:
    """What a prior learns from.

    Parameters
    ----------
    images : Tensor
        Complex images of maximum 1, complex64, shape (slice, y, x).
    held_out : Tensor
        Images that quality is measured on, likewise; may be none.
    kspace : Tensor or None
        Coil k-space of the images, complex64, shape (slice, coil, y, x), where the recipe asks for one scan.
    text : str
        Where they are from, for the card.
    encoding : Encoding, optional
        How they are measured, where the recipe asks for it.
    auxiliary : int
        How many of the first images are there to learn structure from and are not like those that the prior is for.
    """

    images: Tensor
    held_out: Tensor
    kspace: Tensor | None
    text: str
    encoding: Encoding | None = None
    auxiliary: int = 0

    def judged(self, most: int | None = None) -> tuple[Tensor, str]:
        """Images that quality is measured on and what they are: those held out, else the first `most` learnt from.

        Magnitudes have got a phase, as in training.
        """
        if len(self.held_out):
            return with_phase(self.held_out), "held-out"
        return self.typical(self.images)[:most], "training"

    def typical(self, images: Tensor) -> Tensor:
        """Those of the training images, or of another form of them, that are like those that the prior is for.

        Magnitudes have got a phase, as in training.
        """
        return with_phase(images[self.auxiliary :])


def with_phase(images: Tensor) -> Tensor:
    """Images of which the magnitudes have got a phase with detail, as in training; always the same one."""
    return with_detailed_phase(images, Augmentation().detailed_phase, torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Run:
    """Where a training runs.

    Parameters
    ----------
    folder : Path
        Folder of the run's state, which a repeated call takes up again.
    device : torch.device
        Where to compute.
    leader : bool
        Whether this process is the one that writes.
    progress : callable, optional
        Called with stage, steps done, steps in all and loss.
    initial : mapping of Tensor, optional
        Weights to begin with, by name; None: random ones.
    """

    folder: Path
    device: torch.device
    leader: bool = True
    progress: Progress | None = None
    initial: Mapping[str, Tensor] | None = None

    def begin(self, model: Network) -> Network:
        """A network on the device, with the weights to begin with. Raises ValueError for weights of another one."""
        if self.initial is not None:
            load_weights(model, self.initial)
        return model.to(self.device)

    def report(self, stage: str, steps: int) -> Callable[[int, float], None] | None:
        """Progress of one stage, as a trainer calls it."""
        progress = self.progress
        return None if progress is None else lambda step, loss: progress(stage, step, steps, loss)

    def count(self, stage: str, all_: int) -> Callable[[int], None] | None:
        """Progress of a stage that has no loss: its loss is not a number."""
        progress = self.progress
        return None if progress is None else lambda done: progress(stage, done, all_, math.nan)


@dataclass(frozen=True)
class Trained:
    """What came out of a training.

    Parameters
    ----------
    weights : mapping of Tensor
        Weights by name.
    options : dict
        Options of the kind, for the card.
    typical_gain : tuple of float, optional
        See `ModelCard`.
    steps : int
        Optimiser steps.
    quality : dict
        Measured figures by name.
    losses : list of float
        Mean loss of every ten steps.
    text : str
        What was done to the images, for the card; begins with a comma, or is empty.
    loss_name : str
        What the losses are.
    """

    weights: Mapping[str, Tensor]
    options: dict[str, Any]
    typical_gain: tuple[float, float] | None
    steps: int
    quality: dict[str, float]
    losses: list[float]
    text: str = ""
    loss_name: str = "denoising loss (1: nothing learnt)"


@dataclass(frozen=True)
class Recipe:
    """How a kind of prior is trained.

    Parameters
    ----------
    options : callable
        Makes the defaults of what can be set, a frozen dataclass; nested dataclasses are tables of their own.
    train : callable
        Takes options, a `TrainingSet` and a `Run` to `Trained`.
    one_scan : bool
        Whether it learns from one multi-coil scan, whose coil k-space it needs.
    measured : bool
        Whether it learns a reconstruction, and must be told coils and mask; its options then have `mask` and `coils`.
    refinable : bool
        Whether its weights can be trained further: they are all that was trained.
    """

    options: Callable[[], Any]
    train: Callable[[Any, TrainingSet, Run], Trained]
    one_scan: bool = False
    measured: bool = False
    refinable: bool = True


def settable(options: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names (with dots where nested) and values of all that can be set in options."""
    for entry in fields(options):
        value = getattr(options, entry.name)
        if is_dataclass(value):
            yield from settable(value, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", value


def explanations(options: Any, prefix: str = "") -> dict[str, str]:
    """What each settable name means, from the sections Parameters of the dataclasses' docstrings."""
    found = {}
    for kind in reversed(type(options).__mro__):
        text = (inspect.getdoc(kind) or "").partition("Parameters\n----------\n")[2].partition("\n\n")[0]
        for names, lines in re.findall(r"^(\w[\w, ]*) : .*((?:\n .*)+)", text, re.MULTILINE):
            for name in names.split(", "):
                found[prefix + name] = " ".join(lines.split())
    for entry in fields(options):
        if is_dataclass(value := getattr(options, entry.name)):
            found |= explanations(value, f"{prefix}{entry.name}.")
    return found


def with_settings(options: Any, pairs: Mapping[str, str]) -> Any:
    """Options with some values set from texts.

    Parameters
    ----------
    options : dataclass instance
        Options.
    pairs : mapping of str
        Texts by name; the part of a name behind its last dot will do where it is the only one.

    Returns
    -------
    Of the type of `options`.

    Raises
    ------
    ValueError
        For a name that is unknown or stands for several, or a text that is no such value.
    """
    names = [name for name, _ in settable(options)]
    for given, text in pairs.items():
        found = [name for name in names if name == given or name.endswith(f".{given}")]
        found = [given] if given in found else found
        if len(found) != 1:
            raise ValueError(f"setting '{given}' {_what_is_wrong(given, found, names)}")
        options = _set(options, found[0].split("."), text)
    return options


def _what_is_wrong(given: str, found: list[str], names: list[str]) -> str:
    if found:
        return f"could be {' or '.join(found)}"
    near = difflib.get_close_matches(given.rpartition(".")[2], [name.rpartition(".")[2] for name in names], 3)
    return f"is unknown{'; near it is ' + ' or '.join(near) if near else ''}; `genrecon train KIND --list` lists all"


def _set(options: Any, path: list[str], text: str) -> Any:
    name, *rest = path
    value = getattr(options, name)
    if rest:
        return replace(options, **{name: _set(value, rest, text)})
    try:
        return replace(options, **{name: _parsed(text, get_type_hints(type(options))[name])})
    except (ValueError, TypeError) as error:
        raise ValueError(f"setting '{name}' is '{text}': {error}") from None


def _parsed(text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError("give true or false")
        return text.lower() in ("true", "1")
    if get_origin(kind) is tuple:
        of_parts = get_args(kind)
        found = tuple(_parsed(part.strip(), of_parts[0]) for part in text.split(",") if part.strip())
        if of_parts[-1] is not ... and len(found) != len(of_parts):
            raise ValueError(f"give {len(of_parts)} values, by commas")
        return found
    if kind in (int, float, str):
        return kind(text)
    return text  # a choice of names, which the dataclass checks
