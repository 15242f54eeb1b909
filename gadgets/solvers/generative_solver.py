"""WKGM, svd-WKGM and HKGM within a time budget, with a classical method to fall back on."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gadgets.solvers.self_training import SelfTraining
from gadgets.stream import ReconError, one_line
from priors.classical.posterior import cg_sense, l1_wavelet
from priors.generative import FEW_STEPS, ConsistencyName, GenerativeSettings, choose_consistency, generative
from priors.learning.checkpoints import ModelCard, load_checkpoint, shipped_checkpoint
from priors.learning.networks import compute_device
from priors.signal.fourier import ifft2c
from priors.signal.noise import noise_level
from priors.wkgm import WeightedKspacePrior

log = logging.getLogger("genrecon")

GENERATIVE = {"wkgm": "wkgm", "svd_wkgm": "wkgm", "hkgm": "hkgm"}  # methods, and the shipped weights of each
CONSISTENCY = "GenreconDataConsistency"
TRAINING = "GenreconTraining"
LOOKED_AT = 16  # readout positions of a volume that the data consistency is chosen by
FEWEST_STEPS = 8  # below these l1_wavelet is the better image
ENOUGH = 0.5  # fraction of the steps after which a stopped sampler's estimate is better than l1_wavelet
L1_STEPS = 15.0  # steps of the sampler that take as long as l1_wavelet, until it was timed

# Prewhitened data have noise of level 1, less for averages: what is estimated to be near it is taken for that.
LIKE_PREWHITENED = (0.75, 1.3)


@dataclass
class Outcome:
    """Images of a reconstruction, and what must be said of how they came about.

    Parameters
    ----------
    images : complex64 (batch, y, x)
    deviations : float32 (batch, y, x), standard deviation of the magnitude over posterior samples; None of one sample
    notes : meta attributes by name, of each image
    warnings : what users must know of each image, for its meta and DICOM
    """

    images: Tensor
    deviations: Tensor | None = None
    notes: list[dict[str, str]] = field(default_factory=list)
    warnings: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.notes = self.notes or [{} for _ in self.images]
        self.warnings = self.warnings or [[] for _ in self.images]

    def warn(self, text: str) -> None:
        """Add a warning to every image."""
        for warnings in self.warnings:
            warnings.append(text)


def prior_file(method: str, given: str) -> Path:
    """File of a generative method's weights: the given one, or that which is shipped for it."""
    return Path(given).expanduser() if given else shipped_checkpoint(GENERATIVE[method])


def combine_sets(images: Tensor, maps: Tensor) -> Tensor:
    """One image of all map sets: root-sum-of-squares of the coil images maps x images, phase of the first set.

    Parameters
    ----------
    images : complex64 (batch, set, y, x)
    maps : complex64 (batch, set, coil, y, x)

    Returns
    -------
    complex64 (batch, y, x)
    """
    return combine_coils((maps * images[:, :, None]).sum(1), images[:, 0])


def combine_coils(coils: Tensor, phase_of: Tensor) -> Tensor:
    """Root-sum-of-squares of coil images (batch, coil, y, x) with the phase of other images (batch, y, x)."""
    return torch.polar(torch.linalg.vector_norm(coils, dim=1), phase_of.angle())


@functools.lru_cache(maxsize=4)
def _loaded(path: Path, _stamp: tuple[int, ...], device: torch.device) -> tuple[WeightedKspacePrior, ModelCard]:
    """Prior and its card; a listener's scans share it until the file changes."""
    prior, card = load_checkpoint(path)
    prior.model.to(device)
    return prior, card


class _Clock:
    """Says when a sampler's next step would pass a deadline, or when it will not get far enough before it."""

    def __init__(self, deadline: float, needed: float) -> None:
        self._deadline, self._needed = deadline, needed
        self._asked = time.monotonic()
        self._longest, self._steps = 0.0, 0

    def __call__(self) -> bool:
        now = time.monotonic()
        last, self._asked = now - self._asked, now
        self._longest = max(self._longest, last)
        self._steps += 1
        # The first step is slower than those that follow.
        hopeless = self._steps > 1 and now + (self._needed - self._steps) * last > self._deadline
        return hopeless or now + self._longest > self._deadline


class GenerativeSolver:
    """Reconstructs problems with a generative prior; when it cannot, by `l1_wavelet` or `cg_sense`, and says so.

    Parameters
    ----------
    parameters : properties of the gadget
    gadget : its name, for messages
    header : header of the scan
    images : how many images it will have
    averages : acquisitions that are averaged in a sample of k-space

    Raises
    ------
    ReconError
        Weights that cannot be loaded, a device that is not there, noise levels that the prior does not know.
    """

    def __init__(self, parameters: Any, gadget: str, header: Any, images: int = 1, averages: int = 1) -> None:
        self._method = parameters.method
        try:
            self._device = compute_device(parameters.device)
        except ValueError as error:
            raise ReconError(f"gadget {gadget}: property 'device': {one_line(ReconError(str(error)))}") from None
        path = prior_file(parameters.method, parameters.prior)
        try:
            files = [file.stat() for file in (path, path.with_suffix(".json")) if file.exists() or file == path]
            stamp = tuple(number for status in files for number in (status.st_mtime_ns, status.st_size))
            self._prior, card = _loaded(path, stamp, self._device)
        except OSError as error:
            raise ReconError(
                f"gadget {gadget}: property 'prior': {path} cannot be read ({error.strerror}); give a .safetensors "
                "file of weights"
            ) from None
        except (ValueError, RuntimeError) as error:  # also a GPU without room for it
            raise ReconError(f"gadget {gadget}: property 'prior': {one_line(ReconError(str(error)))}") from None
        try:
            self._options = GenerativeSettings(
                low_rank=parameters.method != "wkgm",
                data_consistency=parameters.data_consistency,
                sampler=parameters.sampler,
                start="measured" if parameters.method == "hkgm" else "noise",
                steps=parameters.steps,
                sigma_max=parameters.sigma_max,
                sigma_min=parameters.sigma_min,
                samples=parameters.samples,
                seed=parameters.seed,
                keep_measured=parameters.keep_measured,
                window=parameters.window,
                rank=parameters.rank,
            )
            for level in (parameters.sigma_max, parameters.sigma_min):
                if level:
                    self._prior.check_sigmas(torch.tensor([level]))
        except ValueError as error:
            raise ReconError(f"gadget {gadget}: {error}") from None
        self.settings_text = " ".join(
            f"{name}={getattr(parameters, name)}"
            for name in ("data_consistency", "sampler", "samples", "seed", "keep_measured")
        )
        prior_text = f"{card.name}:{card.training_data_sha256[:8]}:{card.steps}"
        self.settings_text += f" steps={parameters.steps or 'auto'} prior={prior_text}"
        self._self_training: SelfTraining | None = None
        if parameters.training == "self":
            self.settings_text += " training=self"
            self._self_training = SelfTraining(parameters, header, self._prior, card, images)
        self._noise_level, self._prewhitened = parameters.noise_level, 1 / math.sqrt(averages)
        self._step_s: float | None = None  # seconds of a step of a problem, as last measured
        self._l1_s: float | None = None  # seconds of l1_wavelet a problem
        self._deadline, self._problems = math.inf, 1
        self._choice: tuple[ConsistencyName, str] = self._options.data_consistency, ""
        # A GPU is only fast with much at a time.
        self.megabytes = 192.0 if self._device.type == "cpu" else 4096.0

    def choose(self, kspace: Tensor, mask: Tensor, maps: Tensor) -> tuple[ConsistencyName, str]:
        """Data consistency for all problems of an image or volume, and why."""
        some = torch.linspace(0, len(kspace) - 1, min(len(kspace), LOOKED_AT)).round().long()
        kspace, mask, maps = kspace[some], mask.expand(len(kspace), *mask.shape[1:])[some], maps[some]
        try:
            noise = torch.tensor(self._noise(kspace, mask)).expand(len(kspace))
            return choose_consistency(self._options, kspace, mask, maps, noise)
        except (ValueError, ArithmeticError, RuntimeError, MemoryError) as error:  # the sampler will meet it too
            log.info("traceback", exc_info=error)
            return self._options.data_consistency, f"not known: {one_line(error)}"

    def begin(self, deadline: float, problems: int, choice: tuple[ConsistencyName, str]) -> None:
        """The next `problems` problems must be done by `deadline` (time.monotonic), with a choice of `choose`."""
        self._deadline, self._problems, self._choice = deadline, problems, choice

    def __call__(self, kspace: Tensor, mask: Tensor, maps: Tensor, level: Tensor) -> Outcome:
        """Outcome of problems: k-space (batch, coil, y, x), mask (batch, 1, y, x), maps, level it was divided by."""
        now = time.monotonic()
        deadline = now + max(self._deadline - now, 0.0) * min(len(kspace) / max(self._problems, 1), 1.0)
        self._problems -= len(kspace)
        warning = self._learn(kspace, mask, maps, level)
        settings, cut = self._affordable(deadline - time.monotonic(), len(kspace))
        if settings is None:
            return self._fall_back(kspace, mask, maps, deadline, "no time for it within time_budget_s")
        try:
            settings = replace(settings, data_consistency=self._choice[0])
            outcome = self._sample(kspace, mask, maps, level, settings, deadline)
        except (ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
            log.info("traceback", exc_info=error)
            return self._fall_back(kspace, mask, maps, deadline, f"the prior failed: {one_line(error)}")
        if outcome is None:
            return self._fall_back(kspace, mask, maps, deadline, "stopped by time_budget_s")
        for text in filter(None, (cut, warning)):
            outcome.warn(text)
        return outcome

    def _learn(self, kspace: Tensor, mask: Tensor, maps: Tensor, level: Tensor) -> str:
        """Learn from the scan when it is time for it, in less than half of what is left; what to warn of."""
        training = self._self_training
        if training is None or not training.due(mask):
            return ""
        noise = self._noise(kspace * level[:, None, None, None], mask) / level
        device = self._device
        problems = kspace.to(device), mask.to(device), maps.to(device), noise.to(device)
        settings = replace(self._options, data_consistency=self._choice[0])
        warning = training.look(*problems, settings, (self._deadline - time.monotonic()) / 2)
        self._prior = training.prior
        return warning

    def _noise(self, kspace: Tensor, mask: Tensor) -> float:
        """Noise level of k-space as it came: as given, else that of prewhitened data, else that of the data."""
        if self._noise_level:
            return float(self._noise_level)
        estimate = noise_level(kspace, mask)
        low, high = LIKE_PREWHITENED
        return self._prewhitened if low < estimate / self._prewhitened < high else estimate

    def _affordable(self, seconds: float, problems: int) -> tuple[GenerativeSettings | None, str]:
        """Settings with as many samples and steps as there is time for, none if that is too few; and what was cut."""
        settings = self._options
        if self._step_s is None or settings.sampler != "few_step" or not math.isfinite(seconds):
            return (settings, "") if seconds > 0 else (None, "")
        wanted = settings.steps or FEW_STEPS
        possible = int(0.9 * seconds / (self._step_s * problems))
        if possible >= wanted * settings.samples:
            return settings, ""
        if possible >= 2 * wanted:
            fewer = replace(settings, samples=possible // wanted)
            return fewer, f"{fewer.samples} samples instead of {settings.samples}, to keep time_budget_s"
        if possible < min(FEWEST_STEPS, wanted):
            return None, ""
        fewer = replace(settings, samples=1, steps=min(possible, wanted))
        text = f"{fewer.steps} steps instead of {wanted}" if fewer.steps < wanted else ""
        text += " and " if text and settings.samples > 1 else ""
        text += f"one sample instead of {settings.samples}" if settings.samples > 1 else ""
        return fewer, f"{text}, to keep time_budget_s"

    def _sample(
        self, kspace: Tensor, mask: Tensor, maps: Tensor, level: Tensor, settings: GenerativeSettings, deadline: float
    ) -> Outcome | None:
        """Outcome of the sampler; None where it was stopped too early for a good image."""
        start = time.monotonic()
        steps = settings.steps or (FEW_STEPS if settings.sampler == "few_step" else 1000)
        stop: Callable[[], bool] | None = _Clock(deadline, ENOUGH * steps) if math.isfinite(deadline) else None
        on_device = maps.to(self._device)
        noise = self._noise(kspace * level[:, None, None, None], mask) / level
        result = generative(
            kspace.to(self._device), mask.to(self._device), on_device, self._prior, settings, noise=noise, stop=stop
        )
        if result.evaluations:
            self._step_s = (time.monotonic() - start) / (result.evaluations * len(kspace))
        if result.finished * settings.samples < ENOUGH:
            return None
        coils = ifft2c(result.kspace)  # (sample, batch, coil, y, x)
        mean = coils.mean(0)
        images = combine_coils(mean, (on_device[:, 0].conj() * mean).sum(1))
        deviations = None
        if settings.samples > 1 and len(coils) > 1:
            magnitudes = torch.linalg.vector_norm(coils, dim=2)
            images = torch.polar(magnitudes.mean(0), images.angle())
            deviations = magnitudes.std(0).cpu()
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
        if self._self_training is not None:
            if self._self_training.note:
                for note in notes:
                    note[TRAINING] = self._self_training.note
            self._self_training.reconstructed(images)
        log.info("%s: %s", self._method, ", ".join(f"{name} {text}" for name, text in notes[0].items()))
        outcome = Outcome(images.cpu(), deviations, notes, result.warnings)
        if result.finished < 1:
            done = f"{result.finished:.0%} of its steps"
            outcome.warn(f"the sampler was stopped after {done}, to keep time_budget_s")
        return outcome

    def _fall_back(self, kspace: Tensor, mask: Tensor, maps: Tensor, deadline: float, reason: str) -> Outcome:
        """The best image that a classical method makes in the time left."""
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
        outcome.warn(text)
        return outcome
