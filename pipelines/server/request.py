"""What a client asks for before it sends the data of a scan."""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gadgets.noise.scan import NoiseScan
from gadgets.reference_scan import ReferenceScan
from gadgets.stream import ReconError


@dataclass(frozen=True)
class Request:
    """Chain, header and texts of a scan.

    Parameters
    ----------
    config : name of a chain, or None
    chain_text : the chain itself, where it was sent
    header_text : ISMRMRD header
    texts : texts that a FIRE client sends after the header, or instead of a chain
    next_message : id of the message that follows, already read from the connection; None: none was
    of_fire : whether the client is FIRE's: it sends texts, or ends the header with a NUL
    noise, references : noise and reference scans of earlier measurements that the server kept
    number : of the scan in the server's log
    kept_id : under which its raw data are kept; empty: they are not
    peer : address of the client's host
    again : its client had its answer, and its raw data are kept: its late images are made anew
    """

    config: str | None
    chain_text: bytes | None
    header_text: bytes
    texts: tuple[bytes, ...]
    next_message: int | None
    of_fire: bool = False
    noise: tuple[NoiseScan, ...] = ()
    references: tuple[ReferenceScan, ...] = ()
    number: int = 0
    kept_id: str = ""
    peer: str = ""
    again: bool = False

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """The `parameters` of FIRE's JSON texts; other texts have none."""
        found: dict[str, Any] = {}
        for text in self.texts:
            found |= _json_parameters(text)
        return found

    @property
    def asked_name(self) -> str | None:
        """Name of the chain, which FIRE's parameters may give; None where the chain was sent."""
        renamed = self.parameters.get("customconfig") or self.parameters.get("config")
        return renamed if isinstance(renamed, str) and renamed and self.config is not None else self.config


def _json_parameters(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    parameters = found.get("parameters") if isinstance(found, dict) else None
    return parameters if isinstance(parameters, dict) else {}


def seconds_of(parameters: Mapping[str, Any], *names: str, default: float = 0.0) -> float:
    """A parameter that is a number of seconds, by one of its names. Raises ReconError for what is none."""
    for name in names:
        if name in parameters:
            with contextlib.suppress(ValueError, TypeError):
                if 0 <= (found := float(parameters[name])) < math.inf:
                    return found
            raise ReconError(f"parameter '{name}' is no number of seconds; give one, 0 for none")
    return default
