"""DMSP and MEDMSP: the mean shift of denoisers as a prior, in the image."""

from __future__ import annotations

from dataclasses import replace

from priors.dae import DAEP
from priors.fixed_levels import FixedLevelOptions, load_fixed_levels
from priors.learning.convolutional import ConvolutionalArchitecture
from priors.learning.image_denoiser import FixedLevelTraining, train_fixed_levels
from priors.learning.recipe import Recipe
from priors.registry import PUBLISHED_SETTINGS, GenerativeMethod

# Published: 300 steps, three draws a level, networks of three scales.
_SETTINGS = {
    **PUBLISHED_SETTINGS,
    "sampler": "momentum",
    "steps": 150,
    "rule_options": {"momentum": 0.9, "draws": 1, "all_levels": True},
}


def _training(levels: tuple[float, ...], copies: int) -> FixedLevelTraining:
    network = ConvolutionalArchitecture("mwcnn", copies, 3, 64)
    return FixedLevelTraining(FixedLevelOptions(network, levels, "replicas"))


def dmsp_training() -> FixedLevelTraining:
    """DMSP: one channel, one noise level."""
    return _training((10 / 255,), 1)


def medmsp_training() -> FixedLevelTraining:
    """MEDMSP: three equal channels, three noise levels."""
    return _training((3 / 255, 8 / 255, 10 / 255), 3)


DMSP = replace(
    DAEP,
    summary="DMSP: as DAEP, which without its Jacobian is the same (after Bigdeli et al., NeurIPS 2017)",
    variants={
        "published": GenerativeMethod(
            "DMSP as published: the mean shift of one denoiser (Bigdeli et al., NeurIPS 2017)",
            load_fixed_levels,
            weights="dmsp_published",
            settings=_SETTINGS,
            recipe=Recipe(dmsp_training, train_fixed_levels),
        )
    },
)
MEDMSP = replace(
    DMSP,
    summary="MEDMSP: as DMSP; one network for all noise levels makes them one system (after Zhang et al., MedIA 2020)",
    variants={
        "published": GenerativeMethod(
            "MEDMSP as published: three channels, three noise levels (Zhang et al., MedIA 2020)",
            load_fixed_levels,
            weights="medmsp_published",
            settings=_SETTINGS,
            recipe=Recipe(medmsp_training, train_fixed_levels),
        )
    },
)
