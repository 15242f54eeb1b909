"""Which chains and parameters clients may send, and which are refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gadgetron.external import constants

from gadgets.stream import ReconError
from pipelines.chain import Chain, read_chain, shipped_chains
from pipelines.replay import DICOM_MODULE
from pipelines.server.chain_names import plain_chain_name
from pipelines.server.listener import Server
from pipelines.server.request import Request
from pipelines.server.requested_chain import requested_chain
from pipelines.server.settings import Limits, ServeSettings
from tests.pipelines.server.serving import (
    CLOSE,
    error_of,
    exchanged,
    fire_error_of,
    message,
    named,
    serving,
    stream,
    text,
    works,
)


def changed(change: Callable[[str], str]) -> bytes:
    return text(constants.GADGET_MESSAGE_CONFIG, change(read_chain("cg_sense").to_xml().decode()).encode())


ENTITIES = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><configuration>&b;</configuration>'


EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><configuration>&x;</configuration>'


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (named("../../etc/passwd"), "letters that no name of a chain has"),
        (named("/etc/passwd"), "letters that no name of a chain has"),
        (named("..\\chain"), "letters that no name of a chain has"),
        (named(""), "letters that no name of a chain has"),
        (named("default"), "there is no chain 'default'; the server has: cg_sense"),
        (changed(lambda xml: xml.replace('"gadgets.reconstruction"', '"os"')), "external os Reconstruction is not"),
        (changed(lambda xml: xml.replace('target="Reconstruction"', 'target="run_stages"')), "is not among those"),
        (changed(lambda xml: xml.replace("NoiseAdjustGadget", "CPUGriddingReconGadget")), "is not among those"),
        (
            changed(lambda xml: xml.replace('<execute name="gadgets.reconstruction"', '<connect port="1"')),
            "may not make the server connect",
        ),
        (
            changed(lambda xml: xml.replace('"generative_recon.method"', '"generative_recon.prior"')),
            "'generative_recon.prior' is for the server's own chains",
        ),
        (
            changed(lambda xml: xml.replace('name="anonymize" value="false"', 'name="pacs_timeout_s" value="3600"')),
            "'pacs_timeout_s' is for the server's own chains",
        ),
        (
            changed(lambda xml: xml.replace('name="anonymize" value="false"', 'name="calling_ae" value="OTHER"')),
            "'calling_ae' is for the server's own chains",
        ),
        (changed(lambda xml: xml.replace('type="python"', 'type="matlab"')), "only python runs here"),
        (text(2, ENTITIES.encode()), "not an XML chain"),
        (text(2, EXTERNAL.encode()), "not an XML chain"),
        (text(2, b"<configuration>"), "not an XML chain"),
        (text(2, b'<?xml version="1.0" encoding="uQf-8"?><a/>'), "not an XML chain"),
    ],
)
def test_chains_that_are_refused(config: bytes, match: str, raw: Path, server: Server) -> None:
    found = error_of(exchanged(server, stream(raw, config)))
    assert match in found and "\n" not in found


@pytest.mark.parametrize("name", [name for name in shipped_chains() if not name.endswith("_connect")])
def test_shipped_chains_may_be_sent(name: str) -> None:
    xml = read_chain(name).to_xml().replace(b'name="anonymize" value="false"', b'name="anonymize" value="true"')
    chain = requested_chain(Request(None, xml, b"", (), 4), ServeSettings(dicom=Path("dicom")))
    node = chain.external(DICOM_MODULE)
    assert node is not None and node.properties["anonymize"] == "true" and node.properties["folder"] == "dicom"


def test_a_long_chain_of_references_takes_no_time() -> None:
    """Each names the next one, so that following each to its end takes hours."""
    row = [f'<property name="p{n}" value="p{n + 1}@ImageFinishGadget"/>' for n in range(40_000)]
    gadget = f"<gadget><dll>x</dll><classname>ImageFinishGadget</classname>{''.join(row)}"
    gadget += '<property name="p40000" value="end"/></gadget>'
    found = Chain(f"<gadgetronStreamConfiguration>{gadget}</gadgetronStreamConfiguration>".encode(), "a chain")
    assert set(found.nodes[0].properties.values()) == {"end"}


def test_chains_that_are_sent_import_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "not_for_clients.py").write_text("class Reconstruction: pass")
    monkeypatch.syspath_prepend(tmp_path)
    chain = read_chain("cg_sense").to_xml().replace(b'"gadgets.reconstruction"', b'"not_for_clients"')
    with pytest.raises(ReconError, match="external not_for_clients Reconstruction is not among those"):
        requested_chain(Request(None, chain, b"", (), 4), ServeSettings())
    assert "not_for_clients" not in sys.modules


@pytest.mark.parametrize(
    ("own", "of_the_server", "expected"),
    [("", 0.0, 90.0), ("", 20.0, 20.0), ("", 200.0, 90.0), ("30", 20.0, 30.0), ("0", 20.0, 90.0), ("1e9", 0.0, 90.0)],
)
def test_time_budgets_end_before_the_time_limit(own: str, of_the_server: float, expected: float) -> None:
    parameters = {"generative_recon.time_budget_s": own} if own else {}
    text = json.dumps({"parameters": parameters}).encode()
    settings = ServeSettings(time_budget_s=of_the_server, limits=Limits(scan_s=100.0))
    chain = requested_chain(Request("svd_wkgm", None, b"", (text,), 4), settings)
    (found,) = [value for node in chain.nodes for name, value in node.properties.items() if "time_budget" in name]
    assert float(found) == expected
    linear = requested_chain(Request("cg_sense", None, b"", (), 4), settings)
    assert not [name for node in linear.nodes for name in node.properties if "time_budget" in name]


def test_errors_are_one_printable_line(raw: Path, server: Server) -> None:
    odd = changed(lambda xml: xml.replace("NoiseAdjustGadget", "Noise\n\n[ERROR] Gadget" + 5000 * "x"))
    found = error_of(exchanged(server, stream(raw, odd)))
    assert found.isprintable() and found.startswith("gadget Noise [ERROR] Gadgetxxx") and len(found) <= 600


def test_dicom_folders_of_clients_are_ignored(raw: Path, tmp_path: Path) -> None:
    elsewhere = changed(lambda xml: xml.replace("/tmp/genrecon-dicom", str(tmp_path / "elsewhere")))
    with serving(dicom=tmp_path / "dicom") as server:
        exchanged(server, stream(raw, elsewhere))
    assert [path.name for path in tmp_path.iterdir()] == ["dicom"]


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"generative_recon.method": "magic"}, "property 'method' is 'magic'"),
        ({"generative_recon.prior": "/etc/passwd"}, "is for the server's own chains"),
        ({"dicom_output.folder": "/etc"}, "is for the server's own chains"),
        ({"dicom_output.keep_delivered": True}, "is for the server's own chains"),
        ({"dicom_output.anonymize": False}, "is for the server's own chains"),
        ({"generative_recon.training": "self"}, "is for the server's own chains"),
        ({"nobody.method": "x"}, "no gadget is called 'nobody'"),
        ({"generative_recon.method": ["x"]}, "neither a text nor a number"),
        ({"config": "../x"}, "letters that no name"),
    ],
)
def test_parameters_that_are_refused(parameters: dict[str, Any], match: str, raw: Path, server: Server) -> None:
    content = stream(raw, parameters=json.dumps({"parameters": parameters}).encode())
    found = exchanged(server, content)
    assert match in fire_error_of(found)


@pytest.mark.parametrize("body", [b"not json", b"[1]", b'{"parameters": 3}', b"[" * 100000, b"\xff"])
def test_texts_that_are_no_parameters_are_ignored(body: bytes, raw: Path, server: Server) -> None:
    found = exchanged(server, stream(raw, parameters=body))
    assert found.endswith(CLOSE) and found[:2] == message(constants.GADGET_MESSAGE_ISMRMRD_IMAGE)


def test_a_chain_of_too_many_gadgets_is_refused(raw: Path, server: Server) -> None:
    gadget = b"<gadget><dll>gadgetron_mricore</dll><classname>ImageFinishGadget</classname></gadget>"
    xml = read_chain("cg_sense").to_xml().replace(b"</stream>", 1000 * gadget + b"</stream>")
    found = exchanged(server, stream(raw, text(constants.GADGET_MESSAGE_CONFIG, xml)))
    assert "gadgets; 64 are allowed" in error_of(found)
    works(server, raw)


def test_an_unknown_dimension_is_an_error(raw: Path, server: Server) -> None:
    xml = read_chain("cg_sense").to_xml().replace(b'value="contrast"', b'value="contra|t"')
    found = exchanged(server, stream(raw, text(constants.GADGET_MESSAGE_CONFIG, xml)))
    assert "property 'N_dimension' is 'contra|t'" in error_of(found)
    works(server, raw)


@pytest.mark.parametrize("name", [*shipped_chains(), "genrecon_cg_sense.xml", "a-b_c.1"])
def test_names_of_chains(name: str) -> None:
    assert plain_chain_name(name)
