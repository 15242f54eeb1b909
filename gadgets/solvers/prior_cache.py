"""Priors learnt from scans, kept in a folder for the next scan of the same protocol."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from priors.learning.cards import ModelCard
from priors.learning.checkpoints import write_checkpoint
from priors.learning.networks import EdmDenoiser
from priors.registry import load_prior
from priors.weighted_kspace import WeightedKspacePrior

ENTRIES = 32
LOCK_S = 5.0  # another process that writes needs far less


def default_folder() -> Path:
    """Folder of the user's caches that the priors are kept in."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "genrecon" / "priors"


class PriorCache:
    """A folder of weights and cards by key; the least recently used ones go first.

    Parameters
    ----------
    folder : where they are; made when the first one is kept
    entries : how many are kept

    Notes
    -----
    Writers wait for each other by a lock. Files are written under another name and renamed, the card last, and a card
    knows the hash of its weights: what a reader finds is whole, or it is as if nothing were there.
    """

    def __init__(self, folder: Path, entries: int = ENTRIES) -> None:
        self.folder = folder
        self._entries = entries

    def get(self, key: str) -> tuple[WeightedKspacePrior, ModelCard] | None:
        """Prior and card of a key, None without one.

        Raises
        ------
        ValueError
            In one line, when the files are damaged or of another version; they are removed.
        """
        path = self._path(key)
        if not path.exists() or not path.with_suffix(".json").exists():
            return None
        try:
            found = _load(path)
        except ValueError as first:
            # A writer may have been between weights and card.
            try:
                with FileLock(self.folder / ".lock", timeout=LOCK_S):
                    try:
                        found = _load(path)
                    except ValueError as error:
                        self._remove(path)
                        raise ValueError(f"{error}; it was removed") from None
            except (OSError, Timeout):  # a folder that cannot be written to
                raise first from None
        with contextlib.suppress(OSError):
            os.utime(path)
        return found

    def put(self, key: str, model: EdmDenoiser, card: ModelCard) -> None:
        """Keep weights and card under a key.

        Raises
        ------
        OSError
            When they cannot be written; nothing is left half-written then.
        """
        path = self._path(key)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with FileLock(self.folder / ".lock", timeout=LOCK_S):
                write_checkpoint(path, model.state_dict(), card, torch.bfloat16)
                self._shrink()
        except Timeout:
            raise TimeoutError(None, f"another process has had the lock for {LOCK_S:g} s", str(self.folder)) from None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _shrink(self) -> None:
        def last_used(path: Path) -> float:
            with contextlib.suppress(OSError):
                return path.stat().st_mtime
            return 0.0

        kept = sorted(self.folder.glob("*.safetensors"), key=last_used, reverse=True)
        for path in kept[self._entries :]:
            self._remove(path)

    @staticmethod
    def _remove(path: Path) -> None:
        # The card first: weights without one do not count.
        for file in (path.with_suffix(".json"), path):
            with contextlib.suppress(OSError):
                file.unlink()


def _load(path: Path) -> tuple[WeightedKspacePrior, ModelCard]:
    prior, card = load_prior(path)
    if not isinstance(prior, WeightedKspacePrior):
        raise ValueError(f"{path}: a prior of kind '{card.kind}' does not learn from a scan")
    return prior, card
