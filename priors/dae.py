"""DAEP and EDAEP: denoising autoencoders as priors, in the image."""

from __future__ import annotations

from dataclasses import replace

from priors.fixed_levels import FixedLevelOptions, load_fixed_levels
from priors.image_denoiser import load_image_denoiser
from priors.learning.convolutional import ConvolutionalArchitecture
from priors.learning.image_denoiser import FixedLevelTraining, train_fixed_levels
from priors.learning.recipe import Recipe
from priors.registry import PUBLISHED_SETTINGS, GenerativeMethod

# Published: 200 steps, three draws a level, networks of 30 layers of 64 filters.
_SETTINGS = {
    **PUBLISHED_SETTINGS,
    "sampler": "momentum",
    "steps": 200,
    "rule_options": {"momentum": 0.9, "draws": 1, "all_levels": True, "jacobian": True},
}


def _training(levels: tuple[float, ...], copies: int) -> FixedLevelTraining:
    network = ConvolutionalArchitecture("red_net", copies, 16, 32)
    return FixedLevelTraining(FixedLevelOptions(network, levels, "replicas"))


def daep_training() -> FixedLevelTraining:
    """DAEP: one channel, one noise level."""
    return _training((15 / 255,), 1)


def edaep_training() -> FixedLevelTraining:
    """EDAEP: three equal channels, two noise levels."""
    return _training((15 / 255, 25 / 255), 3)


DAEP = GenerativeMethod(
    "DAEP: descent towards the denoised image with momentum (after Liu et al., MRM 2020)",
    load_image_denoiser,
    weights="image",
    takes="hggdp",
    settings={"sampler": "momentum", "standard_steps": 60, "sigma_max": 0.06, "sigma_min": 0.01},
    variants={
        "published": GenerativeMethod(
            "DAEP as published: one denoising autoencoder, through its Jacobian",
            load_fixed_levels,
            weights="daep_published",
            settings=_SETTINGS,
            recipe=Recipe(daep_training, train_fixed_levels),
        )
    },
)
EDAEP = replace(
    DAEP,
    summary="EDAEP: as DAEP; one network for all noise levels makes them one system (after Liu et al., MRM 2020)",
    variants={
        "published": GenerativeMethod(
            "EDAEP as published: three channels, two noise levels, through the Jacobian (Liu et al., MRM 2020)",
            load_fixed_levels,
            weights="edaep_published",
            settings=_SETTINGS,
            recipe=Recipe(edaep_training, train_fixed_levels),
        )
    },
)
