"""How to reconstruct, and what a reconstruction found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor

from priors.data_steps.step import DataWeightName, KeepName
from priors.rules.rule import RULES, RuleName

DataStepName = Literal["auto", "sense", "low_rank", "replacement"]
SamplerName = Literal["auto", RuleName]
StartName = Literal["noise", "measured"]
QualityName = Literal["fast", "standard", "best"]


@dataclass(frozen=True)
class Quality:
    """What a reconstruction gives for its time.

    Parameters
    ----------
    steps : float
        Steps in units of those of quality standard.
    extrapolation : float
        Option of the few-step rule, where one sample is wanted.
    weak_sets : float
        Fraction of a slice's energy below which the images of a set of coil maps are not left to the prior.
    coarse_above : float
        Noise level above which the few-step rule shows a scale-free prior the central half of k-space alone, where one
        sample is wanted.
    """

    steps: float
    extrapolation: float
    weak_sets: float
    coarse_above: float


# Set on training heads with simulated coils (`python -m benchmarks.quality_settings`), where more steps than standard,
# or the mean over symmetries in each of them, gain nothing; other scans gain up to 0.25 dB by `best`.
QUALITIES: dict[QualityName, Quality] = {
    "fast": Quality(steps=0.625, extrapolation=0.5, weak_sets=1e-2, coarse_above=0.05),
    "standard": Quality(steps=1.0, extrapolation=0.3, weak_sets=1e-2, coarse_above=0.05),
    "best": Quality(steps=1.5625, extrapolation=0.3, weak_sets=0.0, coarse_above=math.inf),
}


@dataclass(frozen=True)
class ReconstructionSettings:
    """How to reconstruct with a generative prior.

    Parameters
    ----------
    low_rank : bool
        Use the Hankel low rank of multi-coil k-space (svd-WKGM): refines coil maps, or projects every estimate where
        there are none.
    data_consistency : {"auto", "sense", "low_rank", "replacement"}
        How estimates are made to agree with the data: by the SENSE proximal step with coil maps, coil by coil with
        Hankel low rank, or coil by coil without it. `auto` takes the coil maps where they explain the calibration
        data, else low rank.
    sampler : str
        Rule by which prior and data take turns, see `priors.rules`; `auto`: few steps for a prior of continuous noise
        levels, momentum for one of a few levels, else proximal.
    start : {"noise", "measured"}
        What the predictor-corrector begins with: noise alone, as WKGM was published, or the zero-filled arrays with
        noise, as HKGM was.
    steps : int
        Noise levels; 0: by `quality`.
    sigma_max, sigma_min : float
        First and last noise level in the units of the prior; 0: by undersampling and by the noise of the data, or as
        published for the predictor-corrector. Momentum and proximal stay at the last one unless `sigma_max` is given.
    samples : int
        Posterior samples, each with noise of its own; a single one of the few-step rule adds no noise and looks for
        the most likely image.
    seed : int
        Seed of the samples.
    keep_measured : {"auto", "true", "false"}
        Whether measured samples stand in the result as they were measured ("true"), or are weighted against the prior's
        by their noise, which takes it out of the image ("false"). `auto` weights them by what of their noise is above
        1.2 % of the signal level, and keeps those of less or of fewer than three coils, whose noise is not known. With
        `data_weight` "likelihood" they are weighted by it in any case.
    data_weight : {"misfit", "likelihood"}
        Weight of the data against the prior's estimate: by how badly the estimate fits to them, or exactly by the
        likelihood of white noise, with which every rule ends at the maximum of the posterior.
    denoising : float
        Factor of the noise of the data in their weight against the prior's estimate, above zero. More than 1: measured
        samples count for less, images are smoother.
    window : int
        Window of the Hankel matrix in samples; less where the matrix is smaller or has more than 2048 columns.
    rank : int
        Rank of the Hankel matrix, at most its columns; 0: from the singular values of the estimated k-space.
    symmetries : bool
        Show the prior each estimate by another symmetry of the square.
    rule_options : mapping of float
        Options of the rule by name, see `priors.rules`; a published system's differ from the defaults.
    quality : {"fast", "standard", "best"}
        Steps, extrapolation, sets of coil maps and half matrix, see `QUALITIES`; what is given by name stands.
    standard_steps : int
        Noise levels of quality standard; 0: the rule's own.

    Raises
    ------
    ValueError
        If a value is out of bounds.
    """

    low_rank: bool = False
    data_consistency: DataStepName = "auto"
    sampler: SamplerName = "auto"
    start: StartName = "noise"
    steps: int = 0
    sigma_max: float = 0.0
    sigma_min: float = 0.0
    samples: int = 1
    seed: int = 0
    keep_measured: KeepName = "auto"
    data_weight: DataWeightName = "misfit"
    denoising: float = 1.0
    window: int = 6
    rank: int = 0
    symmetries: bool = True
    rule_options: Mapping[str, float] = field(default_factory=dict)
    quality: QualityName = "standard"
    standard_steps: int = 0

    def __post_init__(self) -> None:
        choices = {
            "data_consistency": get_args(DataStepName),
            "keep_measured": get_args(KeepName),
            "sampler": ("auto", *get_args(RuleName)),
            "start": get_args(StartName),
            "data_weight": get_args(DataWeightName),
            "quality": get_args(QualityName),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; take {', '.join(allowed)}")
        if min(self.steps, self.standard_steps, self.seed, self.rank) < 0 or min(self.samples, self.window) < 1:
            raise ValueError("steps, seed and rank must be 0 or more, samples and window 1 or more")
        if not all(math.isfinite(value) and value >= 0 for value in (self.sigma_max, self.sigma_min)):
            raise ValueError("sigma_max and sigma_min must be finite and 0 or more")
        if not (math.isfinite(self.denoising) and self.denoising > 0):
            raise ValueError(f"denoising {self.denoising} is not a number above 0")
        if self.data_weight == "likelihood" and self.keep_measured == "true":
            raise ValueError(
                "data_weight likelihood weights measured samples by their noise: keep_measured cannot be true"
            )
        if self.sigma_max and self.sigma_max <= self.sigma_min:
            raise ValueError(f"sigma_max {self.sigma_max} is not above sigma_min {self.sigma_min}")

    def steps_of(self, rule: str) -> int:
        """Noise levels of a rule with these settings."""
        standard = self.standard_steps or RULES[rule].steps
        return self.steps or max(1, round(standard * QUALITIES[self.quality].steps))

    def coarse_above(self, rule: str) -> float:
        """Noise level above which a rule shows a scale-free prior the central half of k-space alone."""
        return QUALITIES[self.quality].coarse_above if rule == "few_step" and self.samples == 1 else math.inf

    def options_of(self, rule: str) -> dict[str, float]:
        """Options of a rule with these settings, by name."""
        by_quality = {}
        if rule == "few_step" and self.samples == 1:
            by_quality["extrapolation"] = QUALITIES[self.quality].extrapolation
        return by_quality | dict(self.rule_options)


@dataclass
class Reconstruction:
    """What a reconstruction found, and how.

    Parameters
    ----------
    kspace : Tensor
        Coil k-space, complex64, shape (sample, batch, coil, y, x), in the units of the data.
    consistency : str
        Data step that was used; "complete" for k-space without gaps.
    reason : str
        Why.
    noise : Tensor
        Noise level of the data that was used, in the units of the data, shape (batch,).
    evaluations : int
        Evaluations of the prior a slice, of all samples.
    finished : float
        Fraction of the steps that were done before a stop.
    warnings : list of list of str
        What users must know of each slice.
    """

    kspace: Tensor
    consistency: str
    reason: str
    noise: Tensor
    evaluations: int
    finished: float
    warnings: list[list[str]]
