"""Cards of trained priors: all that must be known to use weights rightly, as JSON next to them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date
from typing import Any, get_type_hints

import torch
from torch import Tensor

FORMAT = "genrecon prior 2"
FORMAT_1 = "genrecon prior 1"  # of weighted k-space alone, whose options stood among the other entries
OPTIONS_OF_FORMAT_1 = ("architecture", "weighting", "phase_width", "sigma_range")


@dataclass(frozen=True)
class ModelCard:
    """What must be known about trained weights to use them rightly.

    Parameters
    ----------
    kind : str
        Kind of the prior, a name of `priors.registry`.
    options : dict
        What the kind needs to make the prior of its weights: tables, lists, texts, numbers.
    name : str
        Name of the prior.
    typical_gain : tuple of float, optional
        Range of `denoising_gain` of images like those of the training; None: images are not compared with them.
    training_data : str
        Description of the training data.
    training_data_sha256 : str
        Hash of the training images, see `images_sha256`.
    steps : int
        Optimiser steps.
    date : str
        Day of the training, ISO 8601.
    licence : str
        Licence of the weights.
    intended_use : str
        What the prior is for and what it is not for.
    quality : dict
        Measured figures by name.

    Raises
    ------
    ValueError
        If a value is missing or out of bounds.
    """

    kind: str
    options: dict[str, Any]
    name: str
    typical_gain: tuple[float, float] | None
    training_data: str
    training_data_sha256: str
    steps: int
    date: str
    licence: str
    intended_use: str
    quality: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("kind", "name", "training_data", "date", "licence", "intended_use"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise ValueError(f"card: {name} is not a text")
        try:
            date.fromisoformat(self.date)
        except ValueError:
            raise ValueError(f"card: date {self.date!r} is not a day like 2026-01-31") from None
        if not is_sha256(self.training_data_sha256):
            raise ValueError("card: training_data_sha256 is not a SHA-256 hash")
        if type(self.steps) is not int or self.steps < 0:
            raise ValueError(f"card: steps {self.steps!r} is not a whole number, 0 or more")
        if not isinstance(self.options, dict) or not all(isinstance(name, str) for name in self.options):
            raise ValueError("card: options is not a table")
        if self.typical_gain is not None:
            object.__setattr__(self, "typical_gain", checked_range("typical_gain", self.typical_gain))
        if not isinstance(self.quality, dict) or not all(
            isinstance(name, str) and _is_number(value) for name, value in self.quality.items()
        ):
            raise ValueError("card: quality is not a table of finite numbers by name")


def card_from_table(table: Any) -> ModelCard:
    """Card of a JSON object without its `weights_sha256`.

    Raises
    ------
    ValueError
        If it is no such object, or of another format than the last two.
    """
    if not isinstance(table, dict) or table.get("format") not in (FORMAT, FORMAT_1):
        raise ValueError(f"card: not of format '{FORMAT}' or '{FORMAT_1}'")
    table = dict(table)
    if table.pop("format") == FORMAT_1:
        options = {name: table.pop(name) for name in OPTIONS_OF_FORMAT_1 if name in table}
        table |= {"kind": "wkgm", "options": options}
        if table.get("typical_gain", 0) is None:
            raise ValueError("card: typical_gain None is not two numbers")
    found: ModelCard = from_table(ModelCard, table)
    return found


def from_table(kind: type[Any], table: Any) -> Any:
    """Dataclass of a JSON object that has each of its fields and no other, nested dataclasses likewise.

    Fields with the metadata `missing_in_old_cards` may be missing: they have their defaults then.

    Raises
    ------
    ValueError
        If an entry is missing, unknown or of the wrong type.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"card: {kind.__name__.lower()} is not a table")
    table = {e.name: e.default for e in fields(kind) if e.metadata.get("missing_in_old_cards")} | dict(table)
    names = {entry.name for entry in fields(kind)}
    if set(table) != names:
        wrong = sorted(set(table) ^ names)[0]
        raise ValueError(f"card: {'missing' if wrong in names else 'unknown'} entry '{wrong}'")
    hints = get_type_hints(kind)
    nested = {name: from_table(hints[name], table[name]) for name in names if is_dataclass(hints[name])}
    try:
        return kind(**{**table, **nested})
    except TypeError as error:
        raise ValueError(f"card: a value is of the wrong type ({error})") from None


def images_sha256(images: Tensor) -> str:
    """Hash of training images by which a card names them.

    Parameters
    ----------
    images : Tensor
        Complex images, shape (slice, y, x).

    Returns
    -------
    str
        SHA-256 of the shape and of the complex64 values in C order, hexadecimal.
    """
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    digest.update(images.detach().cpu().to(torch.complex64).contiguous().resolve_conj().numpy().tobytes())
    return digest.hexdigest()


def checked_range(name: str, value: Any) -> tuple[float, float]:
    """Two numbers 0 < lowest < highest. Raises ValueError, which names the entry."""
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(_is_number(one) for one in value):
        raise ValueError(f"card: {name} {value!r} is not two numbers")
    if not 0 < value[0] < value[1]:
        raise ValueError(f"card: {name} {value!r} is not 0 < lowest < highest")
    return float(value[0]), float(value[1])


def is_sha256(value: object) -> bool:
    """Whether it is a SHA-256 hash, hexadecimal."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
