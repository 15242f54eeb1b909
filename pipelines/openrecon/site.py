"""What a site adds to the label of its package; `genrecon serve` reads its parameters too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gadgets.errors import ReconError, reason_of
from gadgets.stream.parameters import local_parameters, read_parameters
from pipelines.chain import Chain
from pipelines.flat_parameter_table import TABLE
from pipelines.flat_parameters import NOT_OF_GADGETS, FlatParameter
from pipelines.openrecon.schema import parameter_errors

SECTIONS = ("general", "reconstruction", "parameters", "leave_out")
PROPERTY = "property"  # of a parameter: gadget.property that it sets; it is no part of the label


@dataclass(frozen=True)
class Site:
    """Additions of a site.

    Parameters
    ----------
    general, reconstruction : replace those of the label, key by key
    parameters : of the label, besides those of `flat_parameter_table.TABLE`
    leave_out : ids of that table that the label does not offer
    """

    general: Mapping[str, Any] = field(default_factory=dict)
    reconstruction: Mapping[str, Any] = field(default_factory=dict)
    parameters: tuple[Mapping[str, Any], ...] = ()
    leave_out: tuple[str, ...] = ()

    def flat(self) -> tuple[FlatParameter, ...]:
        """Its parameters as a server reads them; every value that is sent is set."""
        return tuple(_flat(parameter) for parameter in self.parameters)


def read_site(path: Path | None) -> Site:
    """Read a site's additions from a JSON file.

    Raises ReconError: it cannot be read, or it is not what the label's schema allows.
    """
    if path is None:
        return Site()
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise ReconError(f"{path}: it cannot be read ({reason_of(error)})") from None
    except (ValueError, RecursionError) as error:
        raise ReconError(f"{path}: it is not JSON ({error})") from None
    if not isinstance(found, dict) or set(found) - set(SECTIONS):
        raise ReconError(f"{path}: it must be a JSON object with any of: {', '.join(SECTIONS)}")
    for key, kind in zip(SECTIONS, (dict, dict, list, list), strict=True):
        if not isinstance(found.get(key, kind()), kind):
            raise ReconError(f"{path}: {key} must be a JSON {'object' if kind is dict else 'list'}")
    ids = [parameter.id for parameter in TABLE]
    for name in found.get("leave_out", []):
        if name not in ids:
            raise ReconError(f"{path}: leave_out has {name}; the label's own parameters are {', '.join(ids)}")
    for number, parameter in enumerate(found.get("parameters", []), 1):
        _check(f"{path}: parameter {number}", parameter, ids)
    return Site(
        found.get("general", {}),
        found.get("reconstruction", {}),
        tuple(found.get("parameters", [])),
        tuple(found.get("leave_out", [])),
    )


def check_properties(site: Site, chains: Iterable[Chain]) -> None:
    """Check that the site's parameters set properties of gadgets in some chain, and that these take all their values.

    Raises
    ------
    ReconError
        A property is unknown, is not for clients, or does not take a value.
    """
    chains = list(chains)
    for parameter in site.flat():
        (setting,) = parameter.settings
        gadget, _, name = setting.rpartition(".")
        kinds = [kind for chain in chains for kind in chain.kinds(gadget) if kind is not None]
        if not kinds:
            raise ReconError(f"parameter '{parameter.id}': no chain has the gadget '{gadget}' of its property")
        for kind in dict.fromkeys(kinds):
            if name in local_parameters(kind.Parameters):
                raise ReconError(f"parameter '{parameter.id}': property '{setting}' is not for clients")
            for value in _extremes(parameter):
                text = parameter.text(value)
                try:
                    read_parameters(kind.Parameters, {name: "" if text is None else text}, gadget)
                except ReconError as error:
                    raise ReconError(f"parameter '{parameter.id}': {error}") from None


def _extremes(parameter: FlatParameter) -> list[Any]:
    """Values that stand for all that a client may send."""
    if parameter.values is not None:
        return list(parameter.values)
    of_kind: dict[str, list[Any]] = {"boolean": [True, False], "string": [""]}
    return of_kind.get(parameter.kind, [parameter.minimum, parameter.maximum])


def _check(where: str, parameter: Any, taken: list[str]) -> None:
    if not isinstance(parameter, dict) or not isinstance(parameter.get(PROPERTY), str):
        raise ReconError(
            f'{where}: it must be an object with "{PROPERTY}": "gadget.property" in addition to the label\'s keys'
        )
    if "." not in parameter[PROPERTY].strip("."):
        raise ReconError(f'{where}: its "{PROPERTY}" must be gadget.property')
    for error in parameter_errors(label_part(parameter), where):
        raise ReconError(error)
    if parameter["id"] in (*taken, *NOT_OF_GADGETS):
        raise ReconError(f"{where}: the id {parameter['id']} is taken")


def label_part(parameter: Mapping[str, Any]) -> dict[str, Any]:
    """A site's parameter without what is no part of the label."""
    return {key: value for key, value in parameter.items() if key != PROPERTY}


def _flat(parameter: Mapping[str, Any]) -> FlatParameter:
    values = {value["id"]: (value["name"]["en"], value["id"]) for value in parameter.get("values", [])}
    return FlatParameter(
        parameter["id"],
        parameter["label"]["en"],
        parameter.get("information", {}).get("en", ""),
        parameter["type"],
        (parameter[PROPERTY],),
        None,
        minimum=parameter.get("minimum", 0),
        maximum=parameter.get("maximum", 0),
        values=values or None,
    )
