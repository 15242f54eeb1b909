"""Noise of reconstructed images, pixel by pixel: analytically, or by pseudo replicas of the same reconstruction."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gadgets.buffers import is_3d, kspace_problems
from gadgets.solvers.generative import GenerativeSolver
from gadgets.solvers.methods import solve_in_parts
from gadgets.solvers.outcome import Problems, Solve
from gadgets.solvers.work import ImageWork, NoiseMaps
from gadgets.stream import one_line
from priors.classical.cg_sense import cg_sense
from priors.classical.grappa import needs_maps
from priors.classical.grappa_noise import grappa_deviation
from priors.classical.sense_noise import combined_deviation, sense_covariance
from priors.rules.noise import SliceNoise
from priors.signal.noise import noise_level
from priors.signal.noise_maps import Replicas, reference

log = logging.getLogger("genrecon")

REPLICAS = 32  # where there is no formula; a deviation is known to 13 %
FEWEST = 8  # replicas; with fewer the time is too short for maps
CHECKED = 4  # replicas that a formula is compared with where the solver may stop before it is done
AGREES = 0.05  # relative difference of noise up to which the formula counts
POSITIONS = 16  # problems of a formula done together, between looks at the clock

NO_NOISE = (
    "no SNR map: the noise of the data is not known; measure it with the scan (docs/noise.md), or give noise_level"
)
NOT_WHITE = "g-factor of coils whose noise is taken for equal and uncorrelated: the data were not prewhitened"
FROM_MAPS = (
    "noise maps (snr, gfactor) take coil maps for free of noise, and GRAPPA kernels are made from them here: with few "
    "calibration lines there may be 1.5 times the noise (docs/snr.md); take more lines, or cg_sense"
)
NO_TIME = "no noise maps (snr, gfactor): time_budget_s leaves no time for them"


class OutOfTime(Exception):
    """The time for noise maps is over."""


class NoiseMapper:
    """Finds the noise of images after they were reconstructed; what goes wrong costs the maps, never an image.

    Parameters
    ----------
    parameters : of `GenerativeRecon`
    solve : its method
    snr : whether SNR maps are asked for, which need a known noise level
    """

    def __init__(self, parameters: Any, solve: Solve, snr: bool) -> None:
        self._parameters, self._solve, self._snr = parameters, solve, snr
        self._replicas = int(parameters.replicas)

    def add(self, images: list[ImageWork], problems: Problems, megabytes: float, seconds: float, took: float) -> None:
        """Give images their noise maps, or a warning.

        Parameters
        ----------
        images : reconstructed together
        problems : their problems, one after another
        megabytes : working memory
        seconds : time that there is for it
        took : seconds of their reconstruction
        """
        deadline = time.monotonic() + seconds
        warning = ""
        try:
            if not self._analytic(images, deadline):
                warning = self._by_replicas(images, problems, megabytes, deadline, took)
            elif self._parameters.method == "cg_sense":
                warning = self._checked(images, problems, megabytes, deadline, took)
        except OutOfTime:
            warning = NO_TIME
        except Exception as error:  # whatever a method raises, there is an image
            log.info("traceback", exc_info=error)
            warning = f"no noise maps (snr, gfactor): {one_line(error)}"
        for image in images:
            if warning:
                image.noise_maps = None
                image.remarks.append(warning)
            elif self._snr and image.noise_maps is not None and not image.noise_maps.level:
                image.remarks.append(NO_NOISE)
        for text in dict.fromkeys(text for image in images for text in image.remarks):
            log.warning("%s", text)

    def _level(self, image: ImageWork) -> float:
        """Noise of a readout in each part, in the units of the k-space; 0 where it is not known."""
        return float(self._parameters.noise_level) or (1.0 if image.prewhitened else 0.0)

    def _maps(self, image: ImageWork, deviation: Tensor, how: str) -> NoiseMaps:
        """Noise maps of deviations in units of the noise of a readout."""
        fully = reference(image.deviation())
        notes = {"GenreconNoiseMaps": how, "GenreconAcceleration": f"{fully.acceleration:.4g}"}
        level = self._level(image)
        assert image.outcome is not None
        doubts = ([] if level else [NOT_WHITE]) + ([FROM_MAPS] if self._kernels_from_maps(image) else [])
        return NoiseMaps(image.outcome.images, deviation, level, fully.deviation, notes, doubts)

    def _kernels_from_maps(self, image: ImageWork) -> bool:
        return self._parameters.method == "grappa" and needs_maps(image.mask[0], **self._options("kernel"))

    def _analytic(self, images: list[ImageWork], deadline: float) -> bool:
        """Noise maps by a formula; False where there is none for the method or the sampling."""
        formulas: dict[str, Callable[[ImageWork, slice, Tensor], Tensor | None]] = {
            "zero_filled": self._zero_filled,
            "cg_sense": self._sense,
            "grappa": self._grappa,
        }
        formula = None if self._replicas else formulas.get(self._parameters.method)
        if formula is None:
            return False
        for image in images:
            samples = image.deviation()
            samples = samples.square().mean(0).sqrt() if is_3d(samples.numpy()) else samples[:, :, 0].T
            parts = []
            for first in range(0, len(image.kspace), POSITIONS):
                if time.monotonic() > deadline:
                    raise OutOfTime
                problems = slice(first, first + POSITIONS)
                if bool((samples > 0).any()):
                    found = formula(image, problems, samples.contiguous()[None, None])
                else:
                    found = torch.zeros(image.kspace[problems, 0].shape)
                if found is None:
                    return False
                parts.append(found)
            image.noise_maps = self._maps(image, torch.cat(parts), "analytic")
        return True

    def _zero_filled(self, image: ImageWork, part: slice, samples: Tensor) -> Tensor:
        kspace = image.kspace[part]
        level = samples.square().mean().sqrt()
        return level.expand(len(kspace), *kspace.shape[-2:]).clone()

    def _sense(self, image: ImageWork, part: slice, samples: Tensor) -> Tensor | None:
        own = inspect.signature(cg_sense).parameters["regularisation"].default
        options = {"regularisation": (self._parameters.regularisation or own) * self._parameters.denoising**2}
        maps, mask = image.maps[part], image.mask[:, None]
        covariance = sense_covariance(maps, mask, **options, deviation=samples)
        if covariance is None:
            return None
        several = maps.shape[1] > 1 and bool((maps[:, 1:] != 0).any())
        options |= self._options("iterations")
        kspace = image.kspace[part]
        return combined_deviation(
            covariance, maps, cg_sense(kspace, maps, mask, **options) if several else maps[:, :, 0]
        )

    def _grappa(self, image: ImageWork, part: slice, samples: Tensor) -> Tensor | None:
        maps, kspace = image.maps[part], image.kspace[part]
        directions = maps[:, 0]
        for later in maps.movedim(1, 0)[1:]:
            directions = torch.where((directions != 0).any(1, keepdim=True), directions, later)
        options = self._options("kernel", "regularisation")
        mask = image.mask[:, None]
        return grappa_deviation(kspace, maps, mask, directions, **options, deviation=samples)

    def _options(self, *names: str) -> dict[str, Any]:
        """Properties that are not the method's own default."""
        return {name: getattr(self._parameters, name) for name in names if getattr(self._parameters, name)}

    def _checked(
        self, images: list[ImageWork], problems: Problems, megabytes: float, deadline: float, took: float
    ) -> str:
        """Compare formulas with a few replicas, and take replicas where these differ; what went wrong, else empty.

        Where parallel imaging is ill-conditioned, conjugate gradients stop at less noise, and less resolution, than
        the minimum that they approach has.
        """
        replicas = self._run(images, problems, megabytes, deadline, CHECKED)
        for image, own in zip(images, replicas, strict=True):
            maps = image.noise_maps
            assert maps is not None
            found = own.ratio(maps.deviation * self._unit(image))
            if abs(found - 1) > AGREES:
                return self._by_replicas(images, problems, megabytes, deadline, took)
            text = f"analytic; noise of {CHECKED} replicas is {found:.3f} of it"
            image.noise_maps = replace(maps, notes=maps.notes | {"GenreconNoiseMaps": text})
        return ""

    def _by_replicas(
        self, images: list[ImageWork], problems: Problems, megabytes: float, deadline: float, took: float
    ) -> str:
        """Noise maps by replicas; what went wrong, else empty."""
        wanted = self._replicas or REPLICAS
        if time.monotonic() + min(wanted, FEWEST) * took > deadline:
            return NO_TIME
        if isinstance(self._solve, GenerativeSolver) and (reason := self._solve.why_not_again()):
            return f"no noise maps (snr, gfactor): {reason}"
        replicas = self._run(images, problems, megabytes, deadline, wanted)
        done = replicas[0].count
        if done < min(wanted, FEWEST):
            return NO_TIME
        text = f"{done} replicas" + (f" of {wanted}, to keep time_budget_s" if done < wanted else "")
        for image, own in zip(images, replicas, strict=True):
            inside = own.images.abs() > 0
            deviation = torch.where(inside, own.deviation() / self._unit(image), 0)
            image.noise_maps = self._maps(image, deviation, text)
        return ""

    def _run(
        self, images: list[ImageWork], problems: Problems, megabytes: float, deadline: float, wanted: int
    ) -> list[Replicas]:
        """As many replicas of images as there is time for."""
        found = []
        for image in images:
            assert image.outcome is not None
            found.append(Replicas(image.outcome.images))
        solve: Solve = self._solve.again if isinstance(self._solve, GenerativeSolver) else self._solve
        longest = 0.0
        for number in range(wanted):
            start = time.monotonic()
            if start + longest > deadline:
                break
            noise = torch.cat([self._noise(image, number) * self._unit(image) for image in images])
            kspace = torch.where(problems.mask, problems.kspace + noise, 0)
            result = solve_in_parts(replace(problems, kspace=kspace), solve, megabytes).images
            for own, part in zip(found, result.split([len(image.kspace) for image in images]), strict=True):
                own.add(part)
            longest = max(longest, time.monotonic() - start)
        return found

    def _unit(self, image: ImageWork) -> float:
        """Noise of a readout, where it is not known as it is estimated from the data."""
        if level := self._level(image):
            return level
        if not image.estimated:
            samples = image.deviation()
            merged = float(samples[samples > 0].square().mean().rsqrt()) if (samples > 0).any() else 1.0
            mask = image.mask[:, None].expand(len(image.kspace), -1, -1, -1)
            image.estimated = noise_level(image.kspace, mask) * merged
            if not image.estimated:
                raise ValueError("the noise of the data is not known and cannot be estimated")
        return image.estimated

    def _noise(self, image: ImageWork, number: int) -> Tensor:
        """Noise like that of an image's k-space, for a readout's noise of 1: complex64 (batch, coil, y, x)."""
        samples = image.deviation()
        draw = SliceNoise(self._parameters.seed, number, [("replica", *image.counters)], torch.device("cpu"))
        coils = image.kspace.shape[1]
        white = draw(torch.empty(1, coils, *samples.shape, dtype=torch.complex64))[0]
        return kspace_problems((white * samples).movedim(0, 3).numpy())
