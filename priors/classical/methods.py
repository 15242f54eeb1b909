"""The classical methods on arrays by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ClassicalMethod:
    """A method without a learnt prior.

    Parameters
    ----------
    function : str
        MODULE:NAME of a function of tensors named kspace, maps and mask, as many of these as it needs, and options.
    completes : bool
        Whether it returns k-space (batch, coil, y, x) instead of images (batch, set, y, x).
    """

    function: str
    completes: bool = False

    def load(self) -> Callable[..., Tensor]:
        """The function. Only then is its module imported: SigPy takes 1.7 s to load."""
        module, _, name = self.function.partition(":")
        function: Callable[..., Tensor] = getattr(importlib.import_module(module), name)
        return function


CLASSICAL: dict[str, ClassicalMethod] = {
    "zero_filled": ClassicalMethod("priors.classical.cg_sense:zero_filled", completes=True),
    "cg_sense": ClassicalMethod("priors.classical.cg_sense:cg_sense"),
    "l1_wavelet": ClassicalMethod("priors.classical.l1_wavelet:l1_wavelet"),
    "tv": ClassicalMethod("priors.classical.total_variation:total_variation"),
    "grappa": ClassicalMethod("priors.classical.grappa:grappa", completes=True),
    "sake": ClassicalMethod("priors.classical.sake:sake", completes=True),
    "lindberg": ClassicalMethod("priors.classical.lindberg:lindberg", completes=True),
}
