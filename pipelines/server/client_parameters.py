"""Parameters that a client sends with its scan, set in the chain it asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from gadgets.generative_recon import GenerativeRecon
from gadgets.solvers.methods import foreign_option
from gadgets.stream import ReconError
from gadgets.stream.parameters import local_parameters
from pipelines.chain import Chain
from pipelines.chain_nodes import Node
from pipelines.flat_parameters import FlatParameter, read_flat

log = logging.getLogger("genrecon")

RECON = "generative_recon"
MOST_NAMED = 5  # unknown parameters in a warning
LONGEST_NAME = 40


def set_parameters(chain: Chain, sent: Mapping[str, Any], table: tuple[FlatParameter, ...]) -> None:
    """Set what a client sent: first the flat names of a table, then keys `gadget.property`.

    A scanner sends its parameters whatever the chain: one that means nothing to the chain or to its method, and a name
    that nothing is known of, are warnings.

    Raises
    ------
    ReconError
        A value is not allowed, a key names no gadget of the chain, or a property that clients may not set.
    """
    found, unknown = read_flat(sent, table)
    if unknown:
        names = ", ".join(f"'{_shown(name)}'" for name in unknown[:MOST_NAMED])
        names += f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        log.warning(
            "unknown parameter %s: it changes nothing; there are: config, %s", names, ", ".join(p.id for p in table)
        )
    for parameter, text in found:
        for setting in parameter.settings:
            if not chain.kinds(setting.rpartition(".")[0]):
                log.warning("parameter '%s' does nothing: chain %s has no gadget for it", parameter.id, chain.name)
                break
            set_parameter(chain, setting, text)
    for node, prefix in _reconstructions(chain):
        _leave_out_foreign(node, prefix, [parameter for parameter, _ in found])
    for name, value in sent.items():
        if "." in name:
            set_parameter(chain, name, value)


def set_parameter(chain: Chain, name: str, value: object) -> None:
    """Set a property `gadget.property` that a client sent. Raises ReconError where it is local to the server."""
    gadget, _, own_name = name.rpartition(".")
    if not isinstance(value, str | int | float | bool):
        raise ReconError(f"parameter '{name}' is neither a text nor a number")
    chain.set(gadget, own_name, str(value).lower() if isinstance(value, bool) else str(value))
    if any(kind is None or own_name in local_parameters(kind.Parameters) for kind in chain.kinds(gadget)):
        raise local_property_error(name)


def local_property_error(name: str) -> ReconError:
    """The error for a property that clients may not set."""
    return ReconError(f"property '{name}' is for the server's own chains: it touches files, hosts or later scans")


def _reconstructions(chain: Chain) -> Iterator[tuple[Node, str]]:
    """Nodes with a `GenerativeRecon`, and the prefix of its properties."""
    for node in chain.nodes:
        kind = node.load()
        if kind is GenerativeRecon:
            yield node, ""
        elif RECON in getattr(kind, "members", {}):
            yield node, f"{RECON}."


def _leave_out_foreign(node: Node, prefix: str, given: list[FlatParameter]) -> None:
    """Take back what flat names set that means nothing to the method, and what of the chain means nothing to a new one.

    Raises nothing: a scanner's user cannot know.
    """
    defaults = GenerativeRecon.Parameters()
    own = {name.removeprefix(prefix) for name in node.properties if name.startswith(prefix)}
    values = {name: node.properties.get(f"{prefix}{name}", getattr(defaults, name)) for name in ("method", "sampler")}
    method = values["method"]
    by_name = {
        setting.rpartition(".")[2]: parameter
        for parameter in given
        for setting in parameter.settings
        if setting.startswith(f"{RECON}.")
    }
    for name in sorted(own):
        parameter = by_name.get(name)
        needs = (parameter.needs if parameter else None) or {}
        useless = any(values[other] not in allowed for other, allowed in needs.items())
        if not useless and foreign_option(method, {name}) is None:
            continue
        if parameter is not None:
            log.warning("parameter '%s' does nothing with method %s", parameter.id, method)
        elif "method" in by_name:
            log.warning("the chain's property '%s' means nothing to method %s and is left out", name, method)
        else:
            continue  # the chain's own fault, which its gadget reports
        del node.properties[f"{prefix}{name}"]


def _shown(name: str) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in name)
    return printable if len(printable) <= LONGEST_NAME else f"{printable[:LONGEST_NAME]}..."
