"""The chain that a client asks for: by name, or sent itself and then restricted to what is safe for the server."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

from gadgets.dicom_output import DicomOutput
from gadgets.stream import ReconError
from gadgets.stream.parameters import local_parameters
from gadgets.twins import TWINS
from pipelines.chain import Chain
from pipelines.chain_nodes import Node
from pipelines.flat_parameter_table import TABLE
from pipelines.replay import DICOM_MODULE
from pipelines.server.chain_names import chain_by_name
from pipelines.server.client_parameters import local_property_error, set_parameters
from pipelines.server.request import Request
from pipelines.server.settings import ServeSettings
from priors.registry import is_generative

# Python gadgets that a chain from a client may run, besides the twins of Gadgetron's own gadgets.
ALLOWED_GADGETS = {
    "gadgets.coil_compression": "CoilCompression",
    "gadgets.espirit": "Espirit",
    "gadgets.generative_recon": "GenerativeRecon",
    "gadgets.reconstruction": "Reconstruction",
    DICOM_MODULE: "DicomOutput",
}
# Properties of DICOM output that a client's chain may have; the server writes to a folder of its own all the same.
ALLOWED_DICOM_PROPERTIES = {"folder", "anonymize", "salt"}
MAX_GADGETS = 64  # of a chain; each is a thread
GENERATIVE_TIME_SHARE = 0.9  # of the time limit of a scan, so that a generative method ends with images before it


def requested_chain(
    request: Request, settings: ServeSettings, asked_for: Callable[[Chain], None] = lambda _: None
) -> Chain:
    """The chain of `chain_as_asked`, with which `asked_for` is called, with the server's own settings."""
    chain = chain_as_asked(request, settings)
    asked_for(chain)
    return _with_dicom_of_server(chain, settings)


def chain_as_asked(request: Request, settings: ServeSettings) -> Chain:
    """The chain a client asks for, with the parameters it sent, and time budgets within the time limit of a scan.

    Raises
    ------
    ReconError
        There is none of that name; or a chain or parameter that was sent has a gadget or property that is not allowed.
    """
    config = request.asked_name
    if request.chain_text is not None:
        chain = Chain(request.chain_text, "the chain that was sent")
        if len(chain.nodes) > MAX_GADGETS:
            raise ReconError(f"the chain that was sent has {len(chain.nodes)} gadgets; {MAX_GADGETS} are allowed")
        for node in chain.nodes:
            _check_node(node)
    else:
        chain = chain_by_name(config or "", settings)
    set_parameters(chain, request.parameters, (*TABLE, *settings.parameters))
    _limit_time_budgets(chain, settings)
    return chain


def _check_node(node: Node) -> None:
    """Raise ReconError for what a client's chain may not have. It imports nothing that the chain names."""
    if node.classname:
        if node.classname not in TWINS:
            raise ReconError(f"gadget {node.classname} is not among those that this server runs")
    elif node.address is not None:
        raise ReconError(f"<connect> to {node.names[0]}: a chain that is sent may not make the server connect")
    elif ALLOWED_GADGETS.get(node.module) != node.target:
        raise ReconError(f"external {node.module} {node.target} is not among those that this server runs")
    _check_properties(node)


def _check_properties(node: Node) -> None:
    kind = node.load()
    for name, value in node.properties.items():
        member, _, own_name = name.rpartition(".")
        owner = getattr(kind, "members", {}).get(member) if member else kind
        if owner is None or (node.module == DICOM_MODULE and own_name in ALLOWED_DICOM_PROPERTIES):
            continue
        defaults = local_parameters(owner.Parameters)
        if own_name in defaults and value != str(defaults[own_name]):
            raise local_property_error(name)


def _with_dicom_of_server(chain: Chain, settings: ServeSettings) -> Chain:
    """The chain with DICOM output as the server has it, or without any."""
    node = chain.external(DICOM_MODULE)
    if node is not None and not (settings.dicom or settings.pacs or node.properties.get("pacs")):
        chain = chain.without(DICOM_MODULE)
        if not chain.nodes:
            raise ReconError("the chain has no gadgets but DICOM output, which this server does not write")
    for node in chain.nodes:
        if node.module == DICOM_MODULE:
            node.properties["folder"] = str(settings.dicom or "")
            if settings.pacs:
                node.properties["pacs"] = settings.pacs
            if settings.spool is not None:
                node.properties |= {"spool": str(settings.spool), "deliver": "false"}  # the server delivers
    return chain


def kept_xml(chain: Chain) -> bytes:
    """A chain as it is kept with raw data: a replay of it sends nothing to a PACS of the server."""
    kept = copy.deepcopy(chain)
    for node in kept.nodes:
        if node.module == DICOM_MODULE:
            local = local_parameters(DicomOutput.Parameters).keys() - ALLOWED_DICOM_PROPERTIES | {"folder"}
            node.properties = {name: value for name, value in node.properties.items() if name not in local}
    return kept.to_xml()


def _limit_time_budgets(chain: Chain, settings: ServeSettings) -> None:
    """Let generative methods end within the time limit of a scan."""
    for node in chain.nodes:
        for prefix in ("", "generative_recon."):
            if is_generative(node.properties.get(f"{prefix}method", "")):
                budget = f"{prefix}time_budget_s"
                own = node.properties.get(budget, str(settings.time_budget_s))
                with contextlib.suppress(ValueError):  # the gadget reports what is wrong with it
                    most = GENERATIVE_TIME_SHARE * settings.limits.scan_s
                    node.properties[budget] = str(min(float(own) or most, most))
