"""What a client asks for before it sends the data of a scan."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from gadgets.noise.scan import NoiseScan


@dataclass(frozen=True)
class Request:
    """Chain, header and texts of a scan.

    Parameters
    ----------
    config : name of a chain, or None
    chain_text : the chain itself, where it was sent
    header_text : ISMRMRD header
    texts : texts that a FIRE client sends after the header, or instead of a chain
    next_message : id of the message that follows, already read from the connection
    of_fire : whether the client is FIRE's: it sends texts, or ends the header with a NUL
    noise : noise scans of earlier measurements that the server kept
    """

    config: str | None
    chain_text: bytes | None
    header_text: bytes
    texts: tuple[bytes, ...]
    next_message: int
    of_fire: bool = False
    noise: tuple[NoiseScan, ...] = ()

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """The `parameters` of FIRE's JSON texts; other texts have none."""
        found: dict[str, Any] = {}
        for text in self.texts:
            found |= _json_parameters(text)
        return found


def _json_parameters(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    parameters = found.get("parameters") if isinstance(found, dict) else None
    return parameters if isinstance(parameters, dict) else {}
