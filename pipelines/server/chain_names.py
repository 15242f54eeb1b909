"""Names of chains as clients give them."""

from __future__ import annotations

import contextlib
import re

from gadgets.stream import ReconError
from pipelines.chain import INSTALLED_PREFIX, Chain, shipped_chain, shipped_chains
from pipelines.server.request import Request
from pipelines.server.settings import ServeSettings

CHAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
# Names that stand for the default chain: what Siemens Open Recon sends, whatever its user chose, and what scanners'
# clients send with a noise measurement, whose chain does not matter.
DEFAULT_NAMES = ("openrecon", "default_measurement_dependencies")


def asked_chain(request: Request) -> str:
    """Name of the chain that a client asks for, as far as it can be one; "" where it sent a chain itself."""
    if request.chain_text is not None:
        return ""
    with contextlib.suppress(ReconError):
        return plain_chain_name(request.asked_name or "")
    return ""


def plain_chain_name(config: str) -> str:
    """Name of a chain as clients give it, without `.xml` and without the prefix of installed chains.

    Raises ReconError for what cannot be a name, for instance a path.
    """
    name = config.strip().removesuffix(".xml").removeprefix(INSTALLED_PREFIX)
    if not CHAIN_NAME.fullmatch(name):
        raise ReconError("the name of the configuration has letters that no name of a chain has")
    return name


def chain_by_name(config: str, settings: ServeSettings) -> Chain:
    """The chain of a name that a client sent. Raises ReconError where there is none."""
    name = plain_chain_name(config)
    own = sorted(path.stem for path in settings.chains.glob("*.xml")) if settings.chains else []
    if name in DEFAULT_NAMES and name not in own:
        name = plain_chain_name(settings.default_chain)
    if settings.chains is not None and name in own:
        return Chain((settings.chains / f"{name}.xml").read_bytes(), name)
    if name not in shipped_chains():
        raise ReconError(f"there is no chain '{name}'; the server has: {', '.join([*own, *shipped_chains()])}")
    return shipped_chain(name)
