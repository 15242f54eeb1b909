"""Generative reconstruction within a time budget, with a classical method to fall back on."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gadgets.solvers.budget import ENOUGH, FEWEST_STEPS, STEPS_IN_TIME, StopClock, affordable
from gadgets.solvers.loading import device_of, load, weights_errors
from gadgets.solvers.measured_noise import measured_noise, positions, some_positions
from gadgets.solvers.outcome import Outcome, Problems
from gadgets.solvers.self_training import SelfTraining
from gadgets.stream import ReconError, one_line
from priors.classical.cg_sense import cg_sense
from priors.classical.l1_wavelet import l1_wavelet
from priors.data_steps.choice import choose_consistency
from priors.reconstruct import measurement_of, reconstruct
from priors.registry import generative_method, with_variant
from priors.rules.rule import default_rule
from priors.settings import DataStepName, Reconstruction, ReconstructionSettings
from priors.sigmas import check_schedule
from priors.signal.combination import combine_sets, combine_with_maps
from priors.signal.fourier import ifft2c

log = logging.getLogger("genrecon")

CONSISTENCY = "GenreconDataConsistency"
TRAINING = "GenreconTraining"
L1_STEPS = 15.0  # steps of the sampler that take as long as l1_wavelet, until it was timed

# Properties of the gadget that are settings of the reconstruction by the same name.
SETTINGS = (
    "data_consistency", "sampler", "quality", "steps", "sigma_max", "sigma_min", "samples", "seed", "keep_measured",
    "data_weight", "denoising", "window", "rank",
)  # fmt: skip

# Whatever a prior of somebody else's code raises, the scan goes on with a classical method.
_FAILURES = Exception


class GenerativeSolver:
    """Reconstructs problems with a generative prior; when it cannot, by `l1_wavelet` or `cg_sense`, and says so.

    Parameters
    ----------
    parameters : properties of the gadget
    gadget : its name, for messages
    header : header of the scan
    images : how many images it will have

    Attributes
    ----------
    settings_text : settings that all images of a scan have, for their meta
    megabytes : working memory of the problems that are worth solving together

    Raises
    ------
    ReconError
        Weights that cannot be loaded, a device that is not there, noise levels that the prior does not know, a rule
        that does not fit to it.
    """

    def __init__(self, parameters: Any, gadget: str, header: Any, images: int = 1) -> None:
        self._method = parameters.method
        self._device = device_of(parameters, gadget)
        with weights_errors(gadget):
            name = with_variant(parameters.method, parameters.variant)
            loaded = load(name, parameters.prior, self._device)
        self._prior = loaded.prior
        method = generative_method(name)
        try:
            default = type(parameters)()
            given = {name: getattr(parameters, name) for name in SETTINGS}
            own = {name: value for name, value in given.items() if value != getattr(default, name)}
            listed = {"low_rank": True} if loaded.low_rank else {}
            self._settings = ReconstructionSettings(**{**given, **method.settings, **own, **listed})
            sampler = self._settings.sampler
            self._rule = default_rule(self._prior) if sampler == "auto" else sampler
            check_schedule(self._rule, self._settings, self._prior)
        except ValueError as error:
            raise ReconError(f"gadget {gadget}: {error}") from None
        shown = ("data_consistency", "samples", "seed", "keep_measured")
        self.settings_text = " ".join(f"{name}={getattr(parameters, name)}" for name in shown)
        self.settings_text += f" sampler={self._rule} steps={self._settings.steps or 'auto'} prior={loaded.text}"
        for name in ("quality", "data_weight", "sigma_max", "sigma_min", "window", "rank", "noise_level", "denoising"):
            if getattr(parameters, name) != getattr(default, name):
                self.settings_text += f" {name}={getattr(parameters, name)}"
        self._self_training: SelfTraining | None = None
        if parameters.training == "self":
            if not method.self_training or loaded.card is None:
                raise ReconError(f"gadget {gadget}: method {parameters.method} does not learn from the scan")
            self.settings_text += " training=self"
            self._self_training = SelfTraining(parameters, header, self._prior, loaded.card, images)
        self._noise_level = float(parameters.noise_level)
        self._keeps_parts = parameters.partial_fourier in ("pocs", "homodyne")
        self._step_s: float | None = None  # seconds of a step of a problem, as last measured
        self._l1_s: float | None = None  # seconds of l1_wavelet a problem
        self._begun = False  # whether the prior has seen the scan
        self._deadline, self._problems = math.inf, 1
        self._choice: tuple[DataStepName, str] = self._settings.data_consistency, ""
        self._used: list[ReconstructionSettings | None] = []  # of the last images; None: not by the prior, or cut short
        # A GPU is only fast with much at a time.
        self.megabytes = 192.0 if self._device.type == "cpu" else 4096.0

    def noise(self, kspace: Tensor, mask: Tensor, prewhitened: float, merged: int) -> float:
        """Noise level of an image or volume in each part, after averaging.

        Parameters
        ----------
        kspace : complex64 (batch, coil, y, x), in the units of the scan
        mask : bool (batch, 1, y, x), or (1, 1, y, x) for all
        prewhitened : level that NoiseAdjustGadget and averaging left; 0 where nothing was prewhitened
        merged : readouts that the k-space is the mean of

        Returns
        -------
        float
            By the property `noise_level`, which is of one readout, else by prewhitening, else estimated from the data;
            0 where that fails.
        """
        return self._noise_level * float(merged**-0.5) or measured_noise(kspace, mask, prewhitened)

    def choose(self, kspace: Tensor, mask: Tensor, maps: Tensor, noise: float) -> tuple[DataStepName, str]:
        """Data step for all problems of an image or volume of this noise level, and why."""
        kspace, mask, maps = *some_positions(kspace, mask), positions(maps)
        try:
            levels = torch.tensor(noise).expand(len(kspace))
            return choose_consistency(self._settings.data_consistency, kspace, mask, maps, levels)
        except _FAILURES as error:
            log.info("traceback", exc_info=error)
            return self._settings.data_consistency, f"not known: {one_line(error)}"

    def least(self, problems: int) -> float:
        """Seconds that so many problems need for images that are better than a classical method's, by the pace so far.

        0 before it is known.
        """
        steps = self._settings.steps_of(self._rule)
        enough = min(FEWEST_STEPS, steps) if self._rule == "few_step" else ENOUGH * steps
        return (enough + 1) * (self._step_s or 0.0) * problems / STEPS_IN_TIME

    def begin(self, deadline: float, problems: int, choice: tuple[DataStepName, str]) -> None:
        """The next `problems` problems must be done by `deadline` (time.monotonic), with a choice of `choose`."""
        self._deadline, self._problems, self._choice = deadline, problems, choice
        self._used = []

    def why_not_again(self) -> str:
        """Why `again` cannot repeat the last images; empty where it can."""
        if any(settings is None for settings in self._used):
            return "the image was not made by the prior alone, or its sampler was stopped"
        same = all(settings == self._used[0] for settings in self._used)  # they hold a table: not hashable
        return "" if same else "the images were made with different settings"

    def again(self, problems: Problems) -> Outcome:
        """Problems like the last ones with the settings of these, without a deadline; nothing is learnt from them."""
        settings = self._used[0]
        assert settings is not None
        kspace, mask, maps = (array.to(self._device) for array in (problems.kspace, problems.mask, problems.maps))
        result = reconstruct(
            kspace, mask, maps, self._prior, settings, noise=problems.noise, keys=problems.keys, stop=None
        )
        return Outcome(_combined(result, maps).images)

    def __call__(self, problems: Problems) -> Outcome:
        """Outcome of problems."""
        now = time.monotonic()
        count = len(problems)
        deadline = now + max(self._deadline - now, 0.0) * min(count / max(self._problems, 1), 1.0)
        self._problems -= count
        warning = self._learn(problems)
        step_s = None if self._step_s is None else self._step_s * count
        settings, cut = affordable(self._settings, self._rule, deadline - time.monotonic(), step_s)
        self._used.append(None)
        if settings is None:
            return self._fall_back(problems, deadline, "no time for it within time_budget_s")
        try:
            settings = replace(settings, data_consistency=self._choice[0])
            outcome = self._reconstructed(problems, settings, deadline)
        except _FAILURES as error:
            log.info("traceback", exc_info=error)
            return self._fall_back(problems, deadline, f"the prior failed: {one_line(error)}")
        if outcome is None:
            return self._fall_back(problems, deadline, "stopped by time_budget_s")
        for text in filter(None, (cut, warning)):
            outcome.warn(text)
        return outcome

    def _learn(self, problems: Problems) -> str:
        """Learn from the scan when it is time for it, in less than half of what is left; what to warn of."""
        training = self._self_training
        if training is None or not training.due(problems.mask):
            return ""
        settings = replace(self._settings, data_consistency=self._choice[0])
        warning = training.look(
            problems.kspace.to(self._device),
            problems.mask.to(self._device),
            problems.maps.to(self._device),
            problems.noise.to(self._device),
            settings,
            (self._deadline - time.monotonic()) / 2,
        )
        self._prior = training.prior
        return warning

    def _reconstructed(self, problems: Problems, settings: ReconstructionSettings, deadline: float) -> Outcome | None:
        """Outcome of the sampler; None where it was stopped too early for a good image."""
        start = time.monotonic()
        steps = settings.steps_of(self._rule)
        stop = StopClock(deadline, ENOUGH * steps) if math.isfinite(deadline) else None
        kspace, mask = problems.kspace.to(self._device), problems.mask.to(self._device)
        maps = problems.maps.to(self._device)
        if not self._begun:
            self._prior, self._begun = self._prior.begin_scan(measurement_of(kspace, mask, maps, problems.noise)), True
        result = reconstruct(
            kspace,
            mask,
            maps,
            self._prior,
            settings,
            noise=problems.noise,
            keys=problems.keys,
            stop=stop,
        )
        if result.evaluations:
            self._step_s = (time.monotonic() - start) / (result.evaluations * len(problems))
        if result.finished * settings.samples < ENOUGH:
            return None
        outcome = _combined(result, maps)
        self._used[-1] = settings if result.finished == 1 else None
        outcome.notes = notes = self._notes(result, problems.level)
        if self._self_training is not None:
            self._self_training.reconstructed(outcome.images)
        log.info("%s: %s", self._method, ", ".join(f"{name} {text}" for name, text in notes[0].items()))
        if self._keeps_parts:
            coils = ifft2c(result.kspace).mean(0)
            outcome.sets, outcome.coils = (maps.conj() * coils[:, None]).sum(2).cpu(), coils.cpu()
        if result.finished < 1:
            done = f"{result.finished:.0%} of its steps"
            outcome.warn(f"the sampler was stopped after {done}, to keep time_budget_s")
        return outcome

    def _notes(self, result: Reconstruction, level: Tensor) -> list[dict[str, str]]:
        """Meta attributes of each image."""
        # The reason of a choice is each image's own.
        reason = "" if self._choice[1] and result.consistency == self._choice[0] else f" ({result.reason})"
        notes = [
            {
                CONSISTENCY: result.consistency + reason,
                "GenreconEvaluations": str(result.evaluations),
                "GenreconNoiseLevel": f"{value:.4g}",
            }
            for value in (result.noise.cpu() * level).tolist()
        ]
        if self._self_training is not None and self._self_training.note:
            for note in notes:
                note[TRAINING] = self._self_training.note
        return notes

    def _fall_back(self, problems: Problems, deadline: float, reason: str) -> Outcome:
        """The best image that a classical method makes in the time left."""
        kspace, maps, mask = problems.kspace, problems.maps, problems.mask
        left = deadline - time.monotonic()
        name, images = "cg_sense", None
        if left > (self._l1_s or L1_STEPS * (self._step_s or 0.0)) * len(kspace):
            try:
                start = time.monotonic()
                images = l1_wavelet(kspace, maps, mask)
                self._l1_s = (time.monotonic() - start) / len(kspace)
                name = "l1_wavelet"
                if not bool(torch.isfinite(torch.view_as_real(images)).all()):
                    raise FloatingPointError("it diverged")
            except (ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
                log.warning("l1_wavelet failed too: %s", one_line(error))
                name, images = "cg_sense", None
        if images is None:
            images = cg_sense(kspace, maps, mask)
        text = f"reconstructed by {name} instead of {self._method}: {reason}"
        log.warning("%s", text)
        outcome = Outcome(combine_sets(images, maps), notes=[{"GenreconFallback": name} for _ in kspace])
        if self._keeps_parts:
            outcome.sets, outcome.coils = images, (maps * images[:, :, None]).sum(1)
        outcome.warn(text)
        return outcome


def _combined(result: Reconstruction, maps: Tensor) -> Outcome:
    """Images (batch, y, x); of several samples the mean magnitude and its standard deviation, and the complex mean."""
    coils = ifft2c(result.kspace)  # (sample, batch, coil, y, x)
    mean = coils.mean(0)
    images = combine_with_maps(mean, maps)
    if len(coils) == 1:
        return Outcome(images.cpu(), warnings=result.warnings)
    magnitudes = torch.linalg.vector_norm(coils, dim=2)
    of_magnitudes = torch.polar(magnitudes.mean(0), images.angle()).cpu()
    return Outcome(of_magnitudes, magnitudes.std(0).cpu(), warnings=result.warnings, mean=images.cpu())
