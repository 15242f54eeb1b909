"""The methods without a prior by name, as `GenerativeRecon` and the benchmark can choose them."""

from __future__ import annotations

import inspect
import shutil
from dataclasses import dataclass
from typing import Any

from gadgets.solvers.outcome import Outcome, Problems, Solve
from gadgets.solvers.unrolled import UnrolledMethod
from gadgets.stream import ReconError
from priors.classical.methods import CLASSICAL, ClassicalMethod
from priors.signal.combination import combine_sets, combine_with_maps
from priors.signal.fourier import ifft2c
from priors.unrolled import KIND


@dataclass(frozen=True)
class Method:
    """A classical method.

    Parameters
    ----------
    function : what it computes, on tensors
    options : names of the gadget's properties it takes; 0 stands for the method's own default
    program : of another package that it runs, with how to get it; empty for none
    """

    function: ClassicalMethod
    options: tuple[str, ...] = ()
    program: tuple[str, str] | None = None

    slices_only = False  # volumes are reconstructed as well

    @property
    def ready(self) -> bool:
        """Whether the program that it needs is installed."""
        return self.program is None or shutil.which(self.program[0]) is not None

    def solver(self, parameters: Any, gadget: str) -> tuple[Solve, str]:
        """The method with its options, and these as a text.

        Raises ReconError when a program it needs is not installed.
        """
        if self.program and not self.ready:
            raise ReconError(
                f"gadget {gadget}: method {parameters.method} needs the program {self.program[0]}; {self.program[1]}"
            )
        function = self.function.load()
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
            if not self.function.completes:
                return Outcome(combine_sets(result, maps), sets=result if keeps_parts else None)
            coils = ifft2c(result)
            outcome = Outcome(combine_with_maps(coils, maps))
            if keeps_parts:
                outcome.sets, outcome.coils = (maps.conj() * coils[:, None]).sum(2), coils
            return outcome

        return solve, " ".join(f"{name}={value:g}" for name, value in options.items())


DENOISING = "denoising"  # its square is a factor of the regularisation, where that takes noise out of the image
_OF_REGULARISED = ("regularisation", "iterations", DENOISING)

_OPTIONS: dict[str, tuple[str, ...]] = {
    "cg_sense": _OF_REGULARISED,
    "l1_wavelet": _OF_REGULARISED,
    "tv": _OF_REGULARISED,
    "grappa": ("kernel", "regularisation"),
    "sake": ("window", "rank", "iterations"),
    "lindberg": _OF_REGULARISED,
}
METHODS: dict[str, Method | UnrolledMethod] = {
    **{name: Method(entry, _OPTIONS.get(name, ())) for name, entry in CLASSICAL.items()},
    "bart_pics": Method(
        ClassicalMethod("gadgets.solvers.bart:bart_pics"),
        _OF_REGULARISED,
        program=("bart", "install the BART toolbox (Debian: bart)"),
    ),
    KIND: UnrolledMethod(),
}
