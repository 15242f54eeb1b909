"""Gadget parameters: one frozen dataclass a gadget, filled from the text properties of a chain."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from gadgets.errors import ReconError, did_you_mean


@dataclasses.dataclass(frozen=True)
class NoParameters:
    """For gadgets without properties."""


def parameter(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] | None = None,
    local: bool = False,
    same_image: bool = False,
) -> Any:
    """A field of a gadget's frozen `Parameters` dataclass.

    Parameters
    ----------
    default : bool, int, float or str
        Value where a chain does not set the property; its type is that of the property.
    description : str
        What it means, for the documentation.
    minimum, maximum : float, optional
        Smallest and largest value, inclusive.
    choices : sequence of str, optional
        The values allowed.
    local : bool
        Whether it touches files, hosts or later scans of the machine: chains that come over the network may not set it.
    same_image : bool
        Whether images do not depend on it (folders, devices, time); all others are part of the series' UID.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "description": description,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "local": local,
            "same_image": same_image,
        },
    )


def local_parameters(kind: type) -> dict[str, Any]:
    """Properties that a chain from the network may not set, with their defaults."""
    return {field.name: field.default for field in dataclasses.fields(kind) if field.metadata.get("local")}


def image_parameters(parameters: Any) -> dict[str, Any]:
    """Values of those properties that may change images, by name."""
    fields = dataclasses.fields(parameters)
    return {field.name: getattr(parameters, field.name) for field in fields if not field.metadata.get("same_image")}


def _allowed(field: dataclasses.Field[Any], kind: type) -> str:
    meta = field.metadata
    if meta.get("choices"):
        return "one of " + ", ".join(repr(choice) for choice in meta["choices"])
    if kind is bool:
        return "true or false"
    name = {int: "a whole number", float: "a number"}.get(kind, "text")
    low, high = meta.get("minimum"), meta.get("maximum")
    if low is not None and high is not None:
        return f"{name} from {low} to {high}"
    if low is not None:
        return f"{name} of at least {low}"
    return name if high is None else f"{name} of at most {high}"


def _parse(text: str, kind: type) -> Any:
    if kind is bool:
        lowered = text.strip().lower()
        if lowered in {"true", "1", "yes"}:
            return True
        if lowered in {"false", "0", "no"}:
            return False
        raise ValueError(text)
    return text if kind is str else kind(text.strip())


def read_parameters(kind: type, properties: Mapping[str, str], gadget: str) -> Any:
    """Fill a frozen dataclass from the text properties of a chain.

    Raises ReconError naming the gadget, the property and what is allowed, for an unknown name or a bad value.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for name, text in properties.items():
        if name not in fields:
            known = ", ".join(fields) or "none"
            raise ReconError(f"gadget {gadget}: unknown property '{name}'{did_you_mean(name, fields)} it has: {known}")
        field, target = fields[name], hints[name]
        meta = field.metadata
        try:
            value = _parse(text, target)
            low, high, choices = meta.get("minimum"), meta.get("maximum"), meta.get("choices")
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(text)
            if numeric and ((low is not None and value < low) or (high is not None and value > high)):
                raise ValueError(text)
            if choices and value not in choices:
                raise ValueError(text)
        except ValueError:
            raise ReconError(
                f"gadget {gadget}: property '{name}' is '{text}'; it must be {_allowed(field, target)}"
            ) from None
        values[name] = value
    return kind(**values)


def connection_properties(config: Any) -> dict[str, str]:
    """Properties of a `<configuration>` element, written as attributes or as `<name>`/`<value>` children."""
    if config is None:
        return {}
    properties = {}
    for element in config.iter("property"):
        name = element.get("name") or element.findtext("name")
        value = element.get("value")
        properties[(name or "").strip()] = element.findtext("value", "") if value is None else value
    return properties
