"""Benchmark entries: methods with their properties."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gadgets.solvers.methods import METHODS
from gadgets.stream import ReconError
from pipelines.evaluation.arrays import ArrayReconstruction
from priors.registry import has_weights, is_code, is_generative, method_names, weights_of, with_variant
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
        if self.method == UNROLLED:
            return text + hashlib.sha256(Path(dict(self.properties)["prior"]).read_bytes()).hexdigest()
        if is_generative(self.method):
            given = dict(self.properties).get("prior", "")
            name = with_variant(self.method, dict(self.properties).get("variant", ""))
            source = Path(given.rpartition(":")[0]) if is_code(given) else weights_of(name, given)
            if source.is_file() or not is_code(given):  # code may be a module
                text += hashlib.sha256(source.read_bytes()).hexdigest()
        return text


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
        properties["prior"] = str(Path(properties["prior"]).expanduser().absolute())
    entry = Entry(method.strip(), tuple(properties.items()))
    ArrayReconstruction(entry.all_properties)  # checks them
    return entry
