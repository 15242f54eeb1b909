"""An unrolled network as it is used: a whole reconstruction, trained for one mask. It is no prior.

A prior says what images are like, whatever was measured; an unrolled network has learnt what one mask does to them.
So it has no `Prior` interface, no noise levels and no rule: it maps samples, mask and coil maps to images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from priors.learning.cards import ModelCard, from_table
from priors.learning.checkpoints import load_weights, read_checkpoint
from priors.learning.unrolled import UnrolledArchitecture, UnrolledNetwork
from priors.signal.encoding import check_maps

SupervisionName = Literal["references", "none"]
KIND = "unrolled"  # of its cards
TRAINED_MASK = "trained_mask"  # tensor of the weights that holds the mask of the training, 0 or 1, (y, x)
SAME_MASK = 0.01  # of the samples may differ: a line may be lost


@dataclass(frozen=True)
class UnrolledOptions:
    """What a card of an unrolled network says besides its weights.

    Parameters
    ----------
    architecture : UnrolledArchitecture
        Network and number of turns.
    supervision : {"references", "none"}
        What it learnt from: fully sampled images, or the measured samples alone.
    sampling : str
        Name of the mask that it was trained for.
    acceleration : float
        Samples of k-space over those of the mask.
    coils : int
        Coils of the training.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    architecture: UnrolledArchitecture
    supervision: SupervisionName
    sampling: str
    acceleration: float
    coils: int

    def __post_init__(self) -> None:
        if self.supervision not in get_args(SupervisionName) or not isinstance(self.sampling, str):
            raise ValueError(f"card: unknown supervision {self.supervision!r}, or sampling is not a text")
        if type(self.coils) is not int or self.coils < 1 or not 1 <= self.acceleration < math.inf:
            raise ValueError("card: coils or acceleration is not 1 or more")


class UnrolledReconstruction:
    """A trained unrolled network and the mask that it was trained for.

    Parameters
    ----------
    model : UnrolledNetwork
        Network; it is switched to evaluation.
    options : UnrolledOptions
        Of its card.
    mask : Tensor
        Mask of the training, bool, shape (y, x).
    """

    def __init__(self, model: UnrolledNetwork, options: UnrolledOptions, mask: Tensor) -> None:
        self.model = model.eval().requires_grad_(False)
        self.options, self.mask = options, mask

    def __call__(self, kspace: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
        """Reconstruct slices.

        Parameters
        ----------
        kspace : Tensor
            Measured k-space, complex, shape (batch, coil, y, x), of any scale.
        mask : Tensor
            Sampling mask (bool), shape (batch, 1, y, x) or broadcasting to it.
        maps : Tensor
            Coil maps, complex, shape (batch, set, coil, y, x).

        Returns
        -------
        Tensor
            Complex images, shape (batch, set, y, x), in the units of the image of `kspace`.

        Raises
        ------
        ValueError
            If the shapes do not fit together.
        """
        check_maps(KIND, kspace, maps)
        with torch.no_grad():
            images: Tensor = self.model(kspace, mask.to(torch.bool), maps)
        return images

    @property
    def trained_for(self) -> str:
        """Mask, acceleration and matrix of the training, in words."""
        height, width = self.mask.shape
        return f"{self.options.sampling}, R = {self.options.acceleration:.2f}, {height} x {width}"

    def unlike_training(self, mask: Tensor) -> str:
        """What differs between a mask (y, x) and that of the training, in one line; empty where they are the same."""
        sampled = mask.to(self.mask.device, torch.bool)
        height, width = sampled.shape
        acceleration = sampled.numel() / max(int(sampled.sum()), 1)
        if sampled.shape != self.mask.shape:
            what = f"a matrix of {height} x {width}, R = {acceleration:.2f}"
        elif float((sampled ^ self.mask).sum()) > SAME_MASK * float(self.mask.sum()):
            common = float((sampled & self.mask).sum()) / max(float(sampled.sum()), 1)
            what = f"another mask, R = {acceleration:.2f} ({common:.0%} of its samples are of that mask)"
        else:
            return ""
        return f"unrolled was trained for {self.trained_for}; these data have {what}: expect errors, train it for them"

    def to(self, device: torch.device) -> UnrolledReconstruction:
        """The same with its network moved to a device."""
        self.model.to(device)
        return self


def load_unrolled(path: Path) -> tuple[UnrolledReconstruction, ModelCard]:
    """Trained unrolled network of a file, on the CPU, and its card.

    Raises
    ------
    ValueError
        In one line: see `read_checkpoint`; or weights of another kind or architecture.
    """
    card, tensors = read_checkpoint(path)
    try:
        return _loaded(card, tensors), card
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _loaded(card: ModelCard, tensors: Mapping[str, Tensor]) -> UnrolledReconstruction:
    if card.kind != KIND:
        raise ValueError(f"weights of kind '{card.kind}' are not for method {KIND}; take method {card.kind}")
    options: UnrolledOptions = from_table(UnrolledOptions, card.options)
    weights = dict(tensors)
    mask = weights.pop(TRAINED_MASK, None)
    if mask is None or mask.ndim != 2 or not bool(((mask == 0) | (mask == 1)).all()) or not bool(mask.any()):
        raise ValueError(f"tensor '{TRAINED_MASK}' is missing or no mask (y, x)")
    model = UnrolledNetwork(options.architecture)
    load_weights(model, weights)
    return UnrolledReconstruction(model, options, mask.to(torch.bool))
