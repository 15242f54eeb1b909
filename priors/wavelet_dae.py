"""WDAEP: denoising autoencoders on the bands of the undecimated wavelet transform."""

from __future__ import annotations

from priors.fixed_levels import FixedLevelOptions, load_fixed_levels
from priors.image_denoiser import load_of_bands
from priors.learning.convolutional import ConvolutionalArchitecture
from priors.learning.image_denoiser import FixedLevelTraining, train_fixed_levels
from priors.learning.recipe import Recipe
from priors.registry import PUBLISHED_SETTINGS, GenerativeMethod

LEVELS = (15 / 255, 25 / 255)  # not published; those of EDAEP


def training() -> FixedLevelTraining:
    """Eight channels, two noise levels."""
    return FixedLevelTraining(FixedLevelOptions(ConvolutionalArchitecture("dn_cnn", 8, 12, 48), LEVELS, "wavelet"))


WDAEP = GenerativeMethod(
    "WDAEP: descent towards the denoised wavelet bands with momentum (after Wang et al., Neurocomputing 2021)",
    load_of_bands,
    weights="image",
    takes="hggdp",
    settings={"sampler": "momentum", "standard_steps": 60, "sigma_max": 0.12, "sigma_min": 0.02},
    variants={
        "published": GenerativeMethod(
            "WDAEP as published: eight channels, networks that find the noise (Wang et al., Neurocomputing 2021)",
            load_fixed_levels,
            weights="wdaep_published",
            settings={
                **PUBLISHED_SETTINGS,
                "sampler": "momentum",
                "steps": 200,
                "rule_options": {"momentum": 0.9, "draws": 1, "all_levels": True},
            },
            recipe=Recipe(training, train_fixed_levels),
        )
    },
)
