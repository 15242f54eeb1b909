"""Trained priors on disk: weights as safetensors, all that must be known about them as a card beside them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from priors.learning.networks import Architecture, EdmDenoiser
from priors.signal.weighting import Weighting
from priors.wkgm import WeightedKspacePrior

FORMAT = "genrecon prior 1"
LARGEST_WEIGHT = 1e4
LARGEST_FILE = 2**30
STORED_TYPES = {torch.float32, torch.float16, torch.bfloat16}


@dataclass(frozen=True)
class ModelCard:
    """What must be known about trained weights to use them rightly.

    Parameters
    ----------
    name : str
        Name of the prior.
    architecture : Architecture
        Network.
    weighting : Weighting
        Weighting of k-space.
    phase_width : int
        Width of the k-space window whose low-resolution phase the training images had lost; 0: none.
    sigma_range : tuple of float
        Lowest and highest noise level of the training.
    typical_gain : tuple of float
        Range of `denoising_gain` of images like those of the training.
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

    name: str
    architecture: Architecture
    weighting: Weighting
    phase_width: int
    sigma_range: tuple[float, float]
    typical_gain: tuple[float, float]
    training_data: str
    training_data_sha256: str
    steps: int
    date: str
    licence: str
    intended_use: str
    quality: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("name", "training_data", "date", "licence", "intended_use"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise ValueError(f"card: {name} is not a text")
        try:
            date.fromisoformat(self.date)
        except ValueError:
            raise ValueError(f"card: date {self.date!r} is not a day like 2026-01-31") from None
        if not _is_sha256(self.training_data_sha256):
            raise ValueError("card: training_data_sha256 is not a SHA-256 hash")
        for name in ("steps", "phase_width"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"card: {name} {value!r} is not a whole number, 0 or more")
        for name in ("sigma_range", "typical_gain"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(_is_number(one) for one in value):
                raise ValueError(f"card: {name} {value!r} is not two numbers")
            if not 0 < value[0] < value[1]:
                raise ValueError(f"card: {name} {value!r} is not 0 < lowest < highest")
            object.__setattr__(self, name, tuple(value))
        if not isinstance(self.quality, dict) or not all(
            isinstance(name, str) and _is_number(value) for name, value in self.quality.items()
        ):
            raise ValueError("card: quality is not a table of finite numbers by name")


def shipped_checkpoint(name: str = "wkgm") -> Path:
    """File of weights that come with the package: "wkgm", or "hkgm", which is learnt from one scan."""
    return Path(__file__).parents[1] / "checkpoints" / f"{name}.safetensors"


def images_sha256(images: Tensor) -> str:
    """Hash of training images that a card tells them by.

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


def save_checkpoint(path: Path, model: EdmDenoiser, card: ModelCard, dtype: torch.dtype = torch.float32) -> None:
    """Write weights (`name.safetensors`) and card (`name.json`), each of them whole or not at all.

    Parameters
    ----------
    path : Path
        File of the weights; the card stands beside it.
    model : EdmDenoiser
        Trained network.
    card : ModelCard
        Its card.
    dtype : torch.dtype
        Type that the weights are stored in: float32, float16 or bfloat16.

    Raises
    ------
    ValueError
        If path, type or weights are not ones that `load_checkpoint` would take.
    """
    path = Path(path)
    _check_suffix(path)
    if dtype not in STORED_TYPES:
        raise ValueError(f"{path}: weights are stored as float32, float16 or bfloat16, not as {dtype}")
    if model.architecture != card.architecture:
        raise ValueError(f"{path}: the card describes another architecture than that of the model")
    tensors = {name: value.detach().cpu().to(dtype).contiguous() for name, value in model.state_dict().items()}
    _check_values(path, tensors)
    content = save_tensors(tensors, {"format": FORMAT})
    table = {"format": FORMAT, **asdict(card), "weights_sha256": hashlib.sha256(content).hexdigest()}
    # The card last: weights without their card do not load, so a writer that is killed leaves nothing half new.
    _replace(path, content)
    _replace(path.with_suffix(".json"), (json.dumps(table, indent=2) + "\n").encode())


def load_checkpoint(path: Path, **options: Any) -> tuple[WeightedKspacePrior, ModelCard]:
    """Trained prior of a file, after every check of it.

    Parameters
    ----------
    path : Path
        File of the weights, `name.safetensors`, with its card `name.json` beside it.
    **options
        Keyword arguments of `WeightedKspacePrior`.

    Returns
    -------
    prior : WeightedKspacePrior
        The prior, on the CPU, float32.
    card : ModelCard
        Its card.

    Raises
    ------
    ValueError
        In one line, if a file is missing, truncated, a pickle, not of this format, of another architecture than its
        card says, or has missing, unknown, misshapen, not finite or enormous values.
    """
    path = Path(path)
    _check_suffix(path)
    card, sha256 = _read_card(path.with_suffix(".json"))
    content = _read(path)
    # The two ways torch.save ever wrote: a zip archive, and a bare pickle of protocol 2 and up.
    if content[:2] == b"PK" or content[:1] == b"\x80":
        raise ValueError(f"{path}: a pickle, which can run any code; only safetensors are read")
    try:
        tensors = load_tensors(content)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise ValueError(f"{path}: truncated or not a safetensors file; get it anew") from error
    model = EdmDenoiser(card.architecture)
    _check_keys(path, tensors, model.state_dict())
    _check_values(path, tensors)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path}: the weights are not those of the card beside them (SHA-256); get both anew")
    model.load_state_dict({name: value.float() for name, value in tensors.items()})
    options = {"phase_width": card.phase_width, "typical_gain": card.typical_gain, **options}
    return WeightedKspacePrior(model, card.weighting, card.sigma_range, **options), card


def _read_card(path: Path) -> tuple[ModelCard, str]:
    try:
        table = json.loads(_read(path).decode())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError(f"{path}: the card is not JSON; get it anew") from None
    if not isinstance(table, dict) or table.pop("format", None) != FORMAT:
        raise ValueError(f"{path}: not a card of format '{FORMAT}'")
    sha256 = table.pop("weights_sha256", None)
    if not _is_sha256(sha256):
        raise ValueError(f"{path}: weights_sha256 is not a SHA-256 hash")
    try:
        return _from_table(ModelCard, table), sha256
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _from_table(kind: type[Any], table: Any) -> Any:
    """Dataclass from a JSON object that has each of its fields and no other."""
    if not isinstance(table, dict):
        raise ValueError(f"card: {kind.__name__.lower()} is not a table")
    names = {entry.name for entry in fields(kind)}
    if set(table) != names:
        wrong = sorted(set(table) ^ names)[0]
        raise ValueError(f"card: {'missing' if wrong in names else 'unknown'} entry '{wrong}'")
    hints = get_type_hints(kind)
    nested = {name: _from_table(hints[name], table[name]) for name in names if hints[name] in (Architecture, Weighting)}
    try:
        return kind(**(table | nested))
    except TypeError as error:
        raise ValueError(f"card: a value is of the wrong type ({error})") from None


def _check_suffix(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: not a .safetensors file, the only kind of weights that is read")


def _check_keys(path: Path, tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name in sorted(tensors.keys() ^ expected.keys()):
        fault = "lacks" if name in expected else "has an unknown"
        raise ValueError(f"{path}: {fault} tensor '{name}': weights of another architecture than the card says")
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{path}: tensor '{name}' is {tuple(value.shape)}, not {tuple(expected[name].shape)}: weights of "
                "another architecture than the card says"
            )


def _check_values(path: Path, tensors: dict[str, Tensor]) -> None:
    for name, value in tensors.items():
        if value.dtype not in STORED_TYPES:
            raise ValueError(f"{path}: tensor '{name}' is of type {value.dtype}, not float32, float16 or bfloat16")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path}: tensor '{name}' has values that are not finite")
        if value.numel() and float(value.abs().max()) > LARGEST_WEIGHT:
            raise ValueError(f"{path}: tensor '{name}' has values above {LARGEST_WEIGHT:g}")


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"{path}: {path.stat().st_size / 2**30:.1f} GiB is no prior; the largest is 1 GiB")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); a prior is a .safetensors and a .json file"
        ) from None


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
