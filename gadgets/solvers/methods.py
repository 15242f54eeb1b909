"""The methods of reconstruction by name: what `GenerativeRecon` and the benchmark can choose from."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gadgets.solvers.bart import bart_pics
from gadgets.solvers.generative_solver import GENERATIVE, Outcome, combine_coils, combine_sets
from gadgets.stream import ReconError
from priors.classical.grappa import grappa
from priors.classical.lindberg import lindberg
from priors.classical.posterior import cg_sense, image_scale, l1_wavelet, zero_filled
from priors.classical.sake import sake
from priors.classical.total_variation import total_variation
from priors.signal.fourier import ifft2c

PROBLEM_MEGABYTES = 192.0  # working memory of the slices or readout positions solved together

# Takes (k-space of signal level 1, mask (batch, 1, y, x), maps, signal level (batch,)) of problems.
Solve = Callable[[Tensor, Tensor, Tensor, Tensor], Outcome]


@dataclass(frozen=True)
class Method:
    """A classical method.

    Parameters
    ----------
    function : of tensors named kspace, maps and mask, as many of these as it needs, and options
    options : names of the gadget's properties it takes; 0 stands for the method's own default
    completes : whether it returns k-space (batch, coil, y, x) instead of images (batch, set, y, x)
    program : of another package that it runs, with how to get it; empty for none
    """

    function: Callable[..., Tensor]
    options: tuple[str, ...] = ()
    completes: bool = False
    program: tuple[str, str] | None = None

    def solver(self, parameters: Any, gadget: str) -> tuple[Solve, str]:
        """The method with its options, and these as a text.

        Raises ReconError when a program it needs is not installed.
        """
        if self.program and shutil.which(self.program[0]) is None:
            raise ReconError(
                f"gadget {gadget}: method {parameters.method} needs the program {self.program[0]}; {self.program[1]}"
            )
        own = inspect.signature(self.function).parameters
        options = {name: getattr(parameters, name) or own[name].default for name in self.options}

        def solve(kspace: Tensor, mask: Tensor, maps: Tensor, _level: Tensor) -> Outcome:
            arrays = {"kspace": kspace, "mask": mask, "maps": maps}
            arrays = {name: array for name, array in arrays.items() if name in own}
            try:
                result = self.function(**arrays, **options)
            except ValueError as error:
                raise ReconError(f"gadget {gadget}: method {parameters.method}: {error}") from None
            if not self.completes:
                return Outcome(combine_sets(result, maps))
            coils = ifft2c(result)
            return Outcome(combine_coils(coils, (maps[:, 0].conj() * coils).sum(1)))

        return solve, " ".join(f"{name}={value:g}" for name, value in options.items())


METHODS: dict[str, Method] = {
    "zero_filled": Method(zero_filled, completes=True),
    "cg_sense": Method(cg_sense, ("regularisation", "iterations")),
    "l1_wavelet": Method(l1_wavelet, ("regularisation", "iterations")),
    "tv": Method(total_variation, ("regularisation", "iterations")),
    "grappa": Method(grappa, ("kernel", "regularisation"), completes=True),
    "sake": Method(sake, ("window", "rank", "iterations"), completes=True),
    "lindberg": Method(lindberg, ("regularisation", "iterations"), completes=True),
    "bart_pics": Method(
        bart_pics, ("regularisation", "iterations"), program=("bart", "install the BART toolbox (Debian: bart)")
    ),
}
OF_GENERATIVE = (
    "prior", "data_consistency", "sampler", "steps", "sigma_max", "sigma_min", "samples", "seed", "noise_level",
    "keep_measured", "window", "rank", "time_budget_s", "device",
)  # fmt: skip
OF_HKGM = ("training", "training_budget_s", "training_cache")


def options_of(method: str) -> tuple[str, ...]:
    """Names of the properties that mean something to a method."""
    if method not in GENERATIVE:
        return METHODS[method].options
    return OF_GENERATIVE + OF_HKGM if method == "hkgm" else OF_GENERATIVE


def foreign_option(method: str, names: set[str]) -> tuple[str, list[str]] | None:
    """The first of some properties that means nothing to a method, and the methods it is for."""
    for name in sorted(names - set(options_of(method))):
        others = [other for other in (*METHODS, *GENERATIVE) if name in options_of(other)]
        if others:
            return name, others
    return None


def reconstruct(
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor,
    solve: Solve,
    level: Tensor | None = None,
    megabytes: float = PROBLEM_MEGABYTES,
) -> Outcome:
    """Reconstruct 2D problems, as many at a time as fit in memory.

    Parameters
    ----------
    kspace : complex64 (batch, coil, y, x)
    mask : bool (batch, y, x), or (1, y, x) for all
    maps : complex64 (batch, set, coil, y, x)
    solve : method
    level : float32 (batch,), signal level that each problem's data are divided by; if not given that of the brightest
        one, so that the regularisation means the same for all positions of a volume
    megabytes : working memory of the problems solved together

    Returns
    -------
    Outcome
        Images zero where a problem has no samples.

    Raises
    ------
    ReconError
        When the method diverged.
    """
    if level is None:
        level = image_scale(kspace, mask[:, None]).max().expand(len(kspace))
    factor = level.reshape(-1, 1, 1)
    kspace = kspace / factor[..., None]
    outcome = Outcome(torch.zeros(kspace.shape[0], *kspace.shape[-2:], dtype=kspace.dtype))
    mask = mask.expand(len(kspace), *kspace.shape[-2:])
    wanted = torch.nonzero(kspace.abs().amax(dim=(1, 2, 3)) > 0).flatten()
    of_one = 8 * 6 * maps[0].numel() / 2**20
    for chunk in wanted.split(max(1, int(megabytes / of_one))) if len(wanted) else ():
        part = solve(kspace[chunk], mask[chunk][:, None], maps[chunk], level[chunk])
        outcome.images[chunk] = part.images
        if part.deviations is not None:
            if outcome.deviations is None:
                outcome.deviations = torch.zeros(outcome.images.shape)
            outcome.deviations[chunk] = part.deviations
        for problem, notes, warnings in zip(chunk.tolist(), part.notes, part.warnings, strict=True):
            outcome.notes[problem], outcome.warnings[problem] = notes, warnings
    if not torch.isfinite(torch.view_as_real(outcome.images)).all():
        raise ReconError("reconstruction: it diverged to NaN or infinity; look at the raw data, or take another method")
    outcome.images *= factor
    if outcome.deviations is not None:
        outcome.deviations *= factor
    return outcome
