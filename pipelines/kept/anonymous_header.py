"""ISMRMRD headers without patient, study, institution, device, dates and free texts."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

# What stays of the elements that say who, when or where; other elements stay whole.
STAYS = {
    "subjectInformation": set[str](),
    "studyInformation": set[str](),
    "measurementInformation": {"patientPosition", "relativeTablePosition", "initialSeriesNumber"},
    "acquisitionSystemInformation": {
        "systemVendor",
        "systemFieldStrength_T",
        "relativeReceiverNoiseBandwidth",
        "receiverChannels",
        "coilLabel",
    },
    "userParameters": {"userParameterLong", "userParameterDouble"},
}
KNOWN = {"version", "experimentalConditions", "encoding", "sequenceParameters", "waveformInformation", *STAYS}
NAMESPACE = "http://www.ismrm.org/ISMRMRD"


def without_identity(header: bytes) -> bytes:
    """A header that says how a scan was measured, not of whom, when and where.

    Elements that the standard does not have are left out; names of coils stay: noise scans are matched by them. Empty
    where the text is no header.
    """
    try:
        root = defusedxml.ElementTree.fromstring(header)
    except (ElementTree.ParseError, DefusedXmlException, ValueError, LookupError):
        return b""
    ElementTree.register_namespace("", NAMESPACE)
    for element in list(root):
        name = _name(element)
        for child in list(element):
            if name in STAYS and _name(child) not in STAYS[name]:
                element.remove(child)
        if name not in KNOWN or (name in STAYS and not len(element)):
            root.remove(element)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]
