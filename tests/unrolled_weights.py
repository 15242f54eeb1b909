"""Weights of an unrolled network that has learnt nothing, for the mechanics."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from priors.learning.cards import ModelCard
from priors.learning.checkpoints import write_checkpoint
from priors.learning.convolutional import ConvolutionalArchitecture
from priors.learning.unrolled import UnrolledArchitecture, UnrolledNetwork
from priors.unrolled import TRAINED_MASK, UnrolledOptions


def write_unrolled(path: Path, mask: Tensor, sampling: str = "uniform:2") -> Path:
    """Write weights and card of a network for a mask (y, x); the same weights in every call."""
    architecture = UnrolledArchitecture(ConvolutionalArchitecture("dn_cnn", 2, 3, 4), turns=2)
    torch.manual_seed(0)
    model = UnrolledNetwork(architecture)
    for weights in model.denoiser.parameters():
        weights.data *= 0.1
    options = UnrolledOptions(architecture, "references", sampling, float(mask.numel() / mask.sum()), 4)
    card = ModelCard(
        kind="unrolled", options=asdict(options), name=path.stem, typical_gain=None, training_data="none",
        training_data_sha256="0" * 64, steps=0, date="2026-01-31", licence="MIT", intended_use="tests",
    )  # fmt: skip
    write_checkpoint(path, {**model.state_dict(), TRAINED_MASK: mask.float()}, card)
    return path
