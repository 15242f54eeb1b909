"""The classical methods by name, as `GenerativeRecon` and the benchmark can choose them."""

from __future__ import annotations

import importlib
import inspect
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gadgets.solvers.outcome import Outcome, Problems, Solve, combine_coils, combine_sets
from gadgets.stream import ReconError
from priors.signal.fourier import ifft2c


@dataclass(frozen=True)
class Method:
    """A classical method.

    Parameters
    ----------
    function : MODULE:NAME of a function of tensors named kspace, maps and mask, as many of these as it needs, and
        options
    options : names of the gadget's properties it takes; 0 stands for the method's own default
    completes : whether it returns k-space (batch, coil, y, x) instead of images (batch, set, y, x)
    program : of another package that it runs, with how to get it; empty for none
    """

    function: str
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
        module, _, name = self.function.partition(":")
        function: Callable[..., Tensor] = getattr(importlib.import_module(module), name)  # SigPy takes 1.7 s to load
        own = inspect.signature(function).parameters
        options = {name: getattr(parameters, name) or own[name].default for name in self.options if name in own}
        if DENOISING in self.options:
            options["regularisation"] *= parameters.denoising**2

        def solve(problems: Problems) -> Outcome:
            maps = problems.maps
            arrays = {"kspace": problems.kspace, "mask": problems.mask, "maps": maps}
            arrays = {name: array for name, array in arrays.items() if name in own}
            try:
                result = function(**arrays, **options)
            except ValueError as error:
                raise ReconError(f"gadget {gadget}: method {parameters.method}: {error}") from None
            keeps_parts = parameters.partial_fourier != "off"
            if not self.completes:
                return Outcome(combine_sets(result, maps), sets=result if keeps_parts else None)
            coils = ifft2c(result)
            outcome = Outcome(combine_coils(coils, (maps[:, 0].conj() * coils).sum(1)))
            if keeps_parts:
                outcome.sets, outcome.coils = (maps.conj() * coils[:, None]).sum(2), coils
            return outcome

        return solve, " ".join(f"{name}={value:g}" for name, value in options.items())


DENOISING = "denoising"  # its square is a factor of the regularisation, where that takes noise out of the image
_OF_REGULARISED = ("regularisation", "iterations", DENOISING)

METHODS: dict[str, Method] = {
    "zero_filled": Method("priors.classical.cg_sense:zero_filled", completes=True),
    "cg_sense": Method("priors.classical.cg_sense:cg_sense", _OF_REGULARISED),
    "l1_wavelet": Method("priors.classical.l1_wavelet:l1_wavelet", _OF_REGULARISED),
    "tv": Method("priors.classical.total_variation:total_variation", _OF_REGULARISED),
    "grappa": Method("priors.classical.grappa:grappa", ("kernel", "regularisation"), completes=True),
    "sake": Method("priors.classical.sake:sake", ("window", "rank", "iterations"), completes=True),
    "lindberg": Method("priors.classical.lindberg:lindberg", _OF_REGULARISED, completes=True),
    "bart_pics": Method(
        "gadgets.solvers.bart:bart_pics",
        _OF_REGULARISED,
        program=("bart", "install the BART toolbox (Debian: bart)"),
    ),
}
