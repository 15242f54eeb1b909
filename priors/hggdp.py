"""HGGDP: a score model of images at falling noise levels; its modern form is the denoiser that other systems share."""

from __future__ import annotations

from priors.image_denoiser import load_image_denoiser
from priors.learning.image_denoiser import PUBLISHED_AUGMENTATION, ImageDenoiserTraining, train_image_denoiser
from priors.learning.networks import Architecture
from priors.learning.recipe import Recipe
from priors.learning.training import TrainingSettings
from priors.registry import PUBLISHED_SETTINGS, GenerativeMethod


def published_training() -> ImageDenoiserTraining:
    """Three complex channels, crops of 64 pixels, ten noise levels from 0.01 to 1."""
    return ImageDenoiserTraining(
        architecture=Architecture(copies=3, parameterisation="image", sigma_data=0.15),
        settings=TrainingSettings(crop=64, batch=16, phase_width=0, augmentation=PUBLISHED_AUGMENTATION),
        levels=10,
    )


HGGDP = GenerativeMethod(
    "HGGDP: a score model of images, sampled in few steps (after Quan et al., IEEE TMI 2021)",
    load_image_denoiser,
    weights="image",
    settings={"sampler": "few_step", "standard_steps": 30},
    recipe=Recipe(ImageDenoiserTraining, train_image_denoiser),
    variants={
        "published": GenerativeMethod(
            "HGGDP as published: six channels, ten noise levels, annealed relaxation (Quan et al., IEEE TMI 2021)",
            load_image_denoiser,
            weights="hggdp_published",
            settings={
                **PUBLISHED_SETTINGS,
                "sampler": "annealed",
                "steps": 800,
                "sigma_max": 1.0,
                "sigma_min": 0.01,
                "rule_options": {"relaxation": 0.015},
            },
            recipe=Recipe(published_training, train_image_denoiser),
        )
    },
)
