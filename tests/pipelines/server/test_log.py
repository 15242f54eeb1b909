"""Logs and status page show nothing of a patient, and each line the scan it belongs to."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import ismrmrd
import pytest
from gadgetron.external import constants, writers

from benchmarks.fuzz import Recorded
from gadgets.dicom.sender import DELIVERY
from gadgets.stream.logs import collected_warnings, log
from pipelines.cli.console import JsonLines
from pipelines.server.overview import overview
from pipelines.server.scan_process import ServerLink
from pipelines.server.status_page import status_page
from pipelines.simulation import simulate
from tests.pipelines.server.serving import (
    CLOSE,
    SCAN,
    exchanged,
    named,
    serving,
    text,
)

CANARY = "Doe^Jane_19700401"


def canaries() -> list[bytes]:
    """Headers in which all texts, and then one field after the other, hold a patient's name."""
    simulation = simulate(replace(SCAN, slices=1))
    measurement = simulation.header.measurementInformation
    reference = ismrmrd.xsd.referencedImageSequenceType(referencedSOPInstanceUID=["1.2.3"])
    measurement.referencedImageSequence = reference
    dependency = ismrmrd.xsd.measurementDependencyType(dependencyType="Noise", measurementID="1")
    measurement.measurementDependency = [dependency]
    root = ElementTree.fromstring(ismrmrd.xsd.ToXML(simulation.header))
    leaves = [leaf for leaf in root.iter() if not len(leaf)]
    texts = [leaf.text for leaf in leaves]
    assert len(leaves) > 80
    variants = []
    for leaf, content in zip(leaves, texts, strict=True):
        leaf.text = CANARY
        variants.append(ElementTree.tostring(root))
        leaf.text = content
    for leaf, content in zip(leaves, texts, strict=True):
        is_text = leaf.tag.endswith(("Name", "ID", "UID", "Description", "Examined", "Model", "Vendor"))
        leaf.text = CANARY if is_text else content
    return [ElementTree.tostring(root), *variants]


@pytest.mark.slow
def test_logs_and_page_quote_nothing_of_a_header(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = Recorded()
    for line in simulate(replace(SCAN, slices=1)).acquisitions():
        writers.write_acquisition(lines, line)
    with caplog.at_level("INFO", "genrecon"), serving(dicom=tmp_path / "dicom") as server:
        for number, header in enumerate(canaries()):
            content = named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, header) + lines.data + CLOSE
            exchanged(server, content)
            shown = caplog.text + status_page(overview(server, None))
            assert "Doe" not in shown and "19700401" not in shown, (number, header)
        assert server.queue.totals["scans"] == number + 1 and 10 < server.queue.totals["failed"] < number
    logged = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name == "genrecon"]
    assert all(line["message"] for line in logged)
    assert len({line["scan"] for line in logged if "NoiseAdjustGadget" in line["message"]}) > 10


def test_log_lines_of_a_delivery_belong_to_no_scan() -> None:
    """It goes on beside later scans, and the client need not know about the PACS."""
    sent: list[tuple[str, Any]] = []
    link: Any = SimpleNamespace(send=sent.append)
    handler = ServerLink(link, None)
    handler.in_scan = True
    warned: list[str] = []
    log.addHandler(handler)
    try:
        with collected_warnings(warned, leave_out=DELIVERY):
            log.warning("of the scan")
            thread = threading.Thread(target=log.warning, args=("of the PACS",), name=DELIVERY)
            thread.start()
            thread.join()
    finally:
        log.removeHandler(handler)
    assert [(about[0]["msg"], about[1]) for _, about in sent] == [("of the scan", True), ("of the PACS", False)]
    assert warned == ["of the scan"]
