"""Weights on disk: safetensors with their card next to them, checked before they are used."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from priors.learning.cards import FORMAT, ModelCard, card_from_table, is_sha256

LARGEST_WEIGHT = 1e4
LARGEST_FILE = 2**30
STORED_TYPES = {torch.float32, torch.float16, torch.bfloat16}


def shipped_checkpoint(name: str) -> Path:
    """File of weights that come with the package, by the name of their prior."""
    return Path(__file__).parents[1] / "checkpoints" / f"{name}.safetensors"


def weights_file(given: str) -> Path:
    """File of the weights that a text names: those of the package by their name, else by its path."""
    return shipped_checkpoint(given) if is_shipped(given) else Path(given).expanduser()


def is_shipped(name: str) -> bool:
    """Whether a text is the name of weights that come with the package."""
    return bool(name) and "/" not in name and shipped_checkpoint(name).exists()


def write_checkpoint(
    path: Path, weights: Mapping[str, Tensor], card: ModelCard, dtype: torch.dtype = torch.float32
) -> None:
    """Write weights (`name.safetensors`) and card (`name.json`), each of them whole or not at all.

    Parameters
    ----------
    path : Path
        File of the weights; its card lies next to it.
    weights : mapping of Tensor
        Weights by name.
    card : ModelCard
        Their card.
    dtype : torch.dtype
        Type that the weights are stored in: float32, float16 or bfloat16.

    Raises
    ------
    ValueError
        If path, type or weights are not ones that `read_checkpoint` would take.
    """
    path = Path(path)
    _check_suffix(path)
    if dtype not in STORED_TYPES:
        raise ValueError(f"{path}: weights are stored as float32, float16 or bfloat16, not as {dtype}")
    tensors = {name: value.detach().cpu().to(dtype).contiguous() for name, value in weights.items()}
    _check_values(path, tensors)
    content = save_tensors(tensors, {"format": FORMAT})
    table = {"format": FORMAT, **asdict(card), "weights_sha256": hashlib.sha256(content).hexdigest()}
    # The card last: weights without their card do not load, so a writer that is killed leaves nothing half new.
    _replace(path, content)
    _replace(path.with_suffix(".json"), (json.dumps(table, indent=2) + "\n").encode())


def read_checkpoint(path: Path) -> tuple[ModelCard, dict[str, Tensor]]:
    """Card and weights of a file, after every check that needs no knowledge of the prior.

    Parameters
    ----------
    path : Path
        File of the weights, `name.safetensors`, with its card `name.json` next to it.

    Returns
    -------
    card : ModelCard
        The card; one of format 1 as one of format 2.
    weights : dict of Tensor
        Weights by name, on the CPU, float32.

    Raises
    ------
    ValueError
        In one line, if a file is missing, truncated, a pickle, not of this format, or has values that are not finite or
        enormous.
    """
    path = Path(path)
    _check_suffix(path)
    card, sha256 = _read_card(path.with_suffix(".json"))
    content = _read(path)
    try:
        tensors = load_tensors(content)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        # The two ways torch.save ever wrote: a zip archive, and a bare pickle of protocol 2 and up. Asked only now, for
        # safetensors begin with a length, any number.
        if content[:2] == b"PK" or content[:1] == b"\x80":
            raise ValueError(f"{path}: a pickle, which can run any code; only safetensors are read") from error
        raise ValueError(f"{path}: truncated or not a safetensors file; get it anew") from error
    _check_values(path, tensors)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path}: the weights are not those of the card next to them (SHA-256); get both anew")
    return card, {name: value.float() for name, value in tensors.items()}


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights into a network.

    Parameters
    ----------
    model : nn.Module
        Network of the card's architecture.
    weights : mapping of Tensor
        Weights by name.

    Raises
    ------
    ValueError
        If a weight is missing, unknown or of another shape.
    """
    expected = model.state_dict()
    for name in sorted(weights.keys() ^ expected.keys()):
        fault = "lacks" if name in expected else "has an unknown"
        raise ValueError(f"{fault} tensor '{name}': weights of another architecture than the card says")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"tensor '{name}' is {tuple(value.shape)}, not {tuple(expected[name].shape)}: weights of another "
                "architecture than the card says"
            )
    model.load_state_dict(dict(weights))


def _read_card(path: Path) -> tuple[ModelCard, str]:
    try:
        table = json.loads(_read(path).decode())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError(f"{path}: the card is not JSON; get it anew") from None
    sha256 = table.pop("weights_sha256", None) if isinstance(table, dict) else None
    try:
        card = card_from_table(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not is_sha256(sha256):
        raise ValueError(f"{path}: weights_sha256 is not a SHA-256 hash")
    return card, str(sha256)


def _check_suffix(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: not a .safetensors file, the only kind of weights that is read")


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
