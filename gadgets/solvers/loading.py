"""Loading a method's prior, once for all scans of a process."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from priors.learning.cards import ModelCard
from priors.prior import Prior
from priors.registry import CUSTOM, code_text, generative_method, is_code, load_prior, prior_from_code, weights_of


def load(method: str, given: str, device: torch.device) -> tuple[Prior, ModelCard | None, str]:
    """Prior of a method.

    Parameters
    ----------
    method : name of a generative method
    given : property `prior`: weights, code (FILE.py:NAME or MODULE:NAME, of method custom), or empty for what comes
        with the method
    device : where it is to be

    Returns
    -------
    Prior, its card if it has one, and a text by which images name it

    Raises
    ------
    OSError
        When the weights cannot be read.
    ValueError, RuntimeError
        When they are no weights of the method, or do not fit on the device.
    """
    if is_code(given):
        if method != CUSTOM:
            raise ValueError(f"{given} names code, which method {CUSTOM} takes and {method} does not")
        return prior_from_code(given).to(device), None, code_text(given)
    entry = generative_method(method)
    if not given and not entry.weights and method != CUSTOM:
        return entry.without_weights().to(device), None, code_text(method)
    path = weights_of(method, given)
    prior, card = _loaded(path, stamp_of(path), device, "" if method == CUSTOM else method)
    return prior, card, f"{card.name}:{card.training_data_sha256[:8]}:{card.steps}"


def stamp_of(path: Path) -> tuple[int, ...]:
    """Times and sizes of weights and their card, which differ once a file was written anew. Raises OSError."""
    files = [file.stat() for file in (path, path.with_suffix(".json")) if file.exists() or file == path]
    return tuple(number for status in files for number in (status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=4)
def _loaded(path: Path, _stamp: tuple[int, ...], device: torch.device, method: str) -> tuple[Prior, ModelCard]:
    """Prior and its card; all scans of a process share it until the file changes."""
    prior, card = load_prior(path, method)
    return prior.to(device), card
