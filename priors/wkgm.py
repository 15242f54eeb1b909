"""WKGM and svd-WKGM: a score model of weighted k-space, learnt from images."""

from __future__ import annotations

from dataclasses import replace

from priors.learning.recipe import Recipe, Run, Trained, TrainingSet
from priors.learning.training import ImageCrops
from priors.learning.weighted_kspace import WeightedKspaceTraining, train_weighted_kspace
from priors.registry import GenerativeMethod
from priors.weighted_kspace import load_weighted_kspace


def train_wkgm(options: WeightedKspaceTraining, data: TrainingSet, run: Run) -> Trained:
    """Train on crops of varied images; see `priors.learning.recipe`.

    Raises
    ------
    ValueError
        If the images are not usable, or a saved state is of another run.
    """
    return train_weighted_kspace(
        options, data, run, lambda images: ImageCrops(images, options.weighting, options.settings)
    )


WKGM = GenerativeMethod(
    "WKGM: a score model of weighted k-space (Tu et al., NMR in Biomedicine 2022)",
    load_weighted_kspace,
    weights="wkgm",
    recipe=Recipe(WeightedKspaceTraining, train_wkgm),
)
SVD_WKGM = replace(
    WKGM,
    summary="svd-WKGM: WKGM with Hankel low rank, which refines coil maps or fills coils without them",
    settings={"low_rank": True},
    recipe=None,
)
