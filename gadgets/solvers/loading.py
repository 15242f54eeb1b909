"""Loading a method's prior, once for all scans of a process."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gadgets.stream import ReconError, one_line
from priors.joint import HaarSparsity, JointPrior
from priors.learning.cards import ModelCard
from priors.learning.checkpoints import weights_file
from priors.learning.networks import compute_device
from priors.prior import Prior
from priors.prior_list import LOW_RANK, WAVELET, is_file_name, is_prior_list, read_prior_list
from priors.registry import (
    CUSTOM,
    VARIANT,
    code_text,
    generative_method,
    is_code,
    load_prior,
    prior_from_code,
    takes_kind,
    weights_of,
)
from priors.registry import (
    METHODS as NAMED,
)


@dataclass(frozen=True)
class LoadedPrior:
    """A method's prior.

    Parameters
    ----------
    prior : the prior, or several as one
    card : its card, if it is one of weights
    text : by which images name it
    low_rank : whether a list of priors asks for Hankel low rank
    """

    prior: Prior
    card: ModelCard | None
    text: str
    low_rank: bool = False


@contextlib.contextmanager
def weights_errors(gadget: str) -> Iterator[None]:
    """Raise ReconError, which names property `prior`, for weights that the block cannot load."""
    try:
        yield
    except OSError as error:
        raise ReconError(
            f"gadget {gadget}: property 'prior': {error.filename} cannot be read ({error.strerror}); give a "
            ".safetensors file of weights"
        ) from None
    except (ValueError, RuntimeError) as error:  # also a GPU without room for it
        raise ReconError(f"gadget {gadget}: property 'prior': {one_line(ReconError(str(error)))}") from None


def device_of(parameters: Any, gadget: str) -> torch.device:
    """The device that property `device` names. Raises ReconError where there is none."""
    try:
        return compute_device(parameters.device)
    except ValueError as error:
        raise ReconError(f"gadget {gadget}: property 'device': {one_line(ReconError(str(error)))}") from None


def load(method: str, given: str, device: torch.device) -> LoadedPrior:
    """Prior of a method.

    Parameters
    ----------
    method : name of a generative method
    given : property `prior`: weights, code (FILE.py:NAME or MODULE:NAME, of method custom), a list of these with
        weights (see `priors.prior_list`), or empty for what comes with the method
    device : where it is to be

    Raises
    ------
    OSError
        When the weights cannot be read.
    ValueError, RuntimeError
        When they are no weights of the method, do not fit on the device, or a list is none.
    """
    if not is_prior_list(given):
        return _load_one(method, given, device)
    listed = read_prior_list(given)
    found = [_load_term(method, term.name, device) for term in listed.terms]
    text = "+".join(f"{term.weight:g}*{one.text}" for term, one in zip(listed.terms, found, strict=True))
    text += f"+{LOW_RANK}" if listed.low_rank else ""
    if len(found) == 1:
        return LoadedPrior(found[0].prior, found[0].card, text, listed.low_rank)
    members = [(term.weight, one.prior) for term, one in zip(listed.terms, found, strict=True)]
    return LoadedPrior(JointPrior(members), None, text, listed.low_rank)


def _load_term(method: str, name: str, device: torch.device) -> LoadedPrior:
    """One prior of a list: as the method takes it where it can, else as its own kind is used."""
    if name == WAVELET:
        return LoadedPrior(HaarSparsity(), None, WAVELET)
    if name.partition(VARIANT)[0] in NAMED:
        return _load_one(name, "", device)
    if is_code(name) or method == CUSTOM:
        return _load_one(method, name, device)
    path = weights_file(name)
    if not is_file_name(path.name):
        raise ValueError(
            f"'{name}' in a list of priors is neither a file of weights (.safetensors) nor {', '.join(NAMED)}, "
            f"{WAVELET} or {LOW_RANK}"
        )
    kind = load_prior(path)[1].kind
    return _load_one(method if takes_kind(method, kind) else kind, name, device)


def _load_one(method: str, given: str, device: torch.device) -> LoadedPrior:
    if is_code(given):
        if method != CUSTOM:
            raise ValueError(f"{given} names code, which method {CUSTOM} takes and {method} does not")
        return LoadedPrior(prior_from_code(given).to(device), None, code_text(given))
    entry = generative_method(method)
    if not given and not entry.weights and method != CUSTOM:
        return LoadedPrior(entry.without_weights().to(device), None, code_text(method))
    path = weights_of(method, given)
    prior, card = _loaded(path, stamp_of(path), device, "" if method == CUSTOM else method)
    return LoadedPrior(prior, card, f"{card.name}:{card.training_data_sha256[:8]}:{card.steps}")


def stamp_of(path: Path) -> tuple[int, ...]:
    """Times and sizes of weights and their card, which differ once a file was written anew. Raises OSError."""
    files = [file.stat() for file in (path, path.with_suffix(".json")) if file.exists() or file == path]
    return tuple(number for status in files for number in (status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=4)
def _loaded(path: Path, _stamp: tuple[int, ...], device: torch.device, method: str) -> tuple[Prior, ModelCard]:
    """Prior and its card; all scans of a process share it until the file changes."""
    prior, card = load_prior(path, method)
    return prior.to(device), card
