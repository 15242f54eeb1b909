"""Benchmark entries: methods with their properties."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gadgets.solvers.methods import METHODS
from gadgets.stream import ReconError
from pipelines.evaluation.arrays import ArrayReconstruction
from priors.learning.checkpoints import is_shipped, weights_file
from priors.prior_list import WAVELET, is_file_name, is_prior_list, read_prior_list, with_absolute_files
from priors.registry import METHODS as METHOD_NAMES
from priors.registry import VARIANT, has_weights, is_code, is_generative, method_names, weights_of, with_variant
from priors.unrolled import KIND as UNROLLED

SET_BY_THE_BENCHMARK = {"method", "intensity", "pixel_scale", "image_series"}


@dataclass(frozen=True)
class Entry:
    """A method with properties of the gadget `GenerativeRecon`."""

    method: str
    properties: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """Method and what was set."""
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.properties)])

    @property
    def all_properties(self) -> dict[str, str]:
        """Properties for the gadget `GenerativeRecon`."""
        return {**dict(self.properties), "method": self.method}

    def identity(self) -> str:
        """What its images depend on besides the data: label and weights."""
        text = self.label
        given = dict(self.properties).get("prior", "")
        if self.method == UNROLLED:
            return text + _digest(weights_file(given))
        if is_generative(self.method):
            name = with_variant(self.method, dict(self.properties).get("variant", ""))
            terms = [term.name for term in read_prior_list(given).terms] if is_prior_list(given) else [given]
            for term in terms:
                if is_file_name(term) or is_shipped(term):
                    text += _digest(weights_file(term))
                elif is_code(term) and term.partition(VARIANT)[0] not in METHOD_NAMES:
                    source = Path(term.rpartition(":")[0])
                    text += _digest(source) if source.is_file() else ""  # code may be a module
                elif term != WAVELET:
                    text += _digest(weights_of(term or name, ""))
        return text


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def default_entries() -> list[Entry]:
    """All methods whose programs are installed here and whose weights come with the package."""
    names = [name for name, method in METHODS.items() if method.ready]
    return [Entry(name) for name in (*names, *filter(has_weights, method_names()))]


def read_entry(text: str) -> Entry:
    """Read METHOD or METHOD:property=value,property=value.

    Raises ReconError for an unknown method or property, a bad value, or a program that is not there.
    """
    method, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",") if part]
    if not all(name and equals for name, equals, _ in pairs):
        raise ReconError(f"benchmark: --method is '{text}'; give METHOD or METHOD:property=value,property=value")
    properties = {name.strip(): value.strip() for name, _, value in pairs}
    for name in SET_BY_THE_BENCHMARK & properties.keys():
        raise ReconError(f"benchmark: --method is '{text}'; the benchmark sets {name} itself, leave it out")
    if "prior" in properties:  # workers may run in another folder
        try:
            properties["prior"] = with_absolute_files(properties["prior"])
        except ValueError as error:
            raise ReconError(f"benchmark: --method is '{text}': {error}") from None
    entry = Entry(method.strip(), tuple(properties.items()))
    ArrayReconstruction(entry.all_properties)  # checks them
    return entry
