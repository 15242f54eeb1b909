"""The text of an ISMRMRD header, read: whatever its encoding, its namespace and the version of its writer."""

from __future__ import annotations

import dataclasses
import logging
import re
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import defusedxml.ElementTree
import ismrmrd
from defusedxml import DefusedXmlException

from gadgets.stream import ReconError
from pipelines.raw.header_defaults import add_defaults
from pipelines.raw.header_schema import complete_by_schema, content, copied_by_schema

# The header reader prints values that it cannot convert, among them birth dates of patients, which belong in no log.
warnings.filterwarnings("ignore", "Failed to convert value")
logging.getLogger("xsdata").setLevel(logging.CRITICAL)

ROOT = "ismrmrdHeader"
NAMESPACE = "http://www.ismrm.org/ISMRMRD"


@dataclasses.dataclass(frozen=True)
class Header:
    """A header that was read.

    Parameters
    ----------
    fields : ismrmrd.xsd.ismrmrdHeader, complete
    text : XML of the fields, UTF-8; the text as it came where nothing had to be repaired
    warnings : what was missing or wrong, and what is used instead; nothing of a patient in them
    assumed_cartesian : encodings without a trajectory
    """

    fields: Any
    text: bytes
    warnings: tuple[str, ...] = ()
    assumed_cartesian: tuple[int, ...] = ()


def read_header(path: Path | str, text: bytes) -> Header:
    """Read a header; what older and newer writers leave out gets its default, what the schema lacks is ignored.

    Raises
    ------
    ReconError
        It begins with `path`: the text is no ISMRMRD header, or what it lacks cannot be derived from the rest.
    """
    plain, encoded_well = _decoded(text)
    root = _root(path, plain)
    notes: list[str] = []
    try:
        copy = copied_by_schema(root, notes)
        encodings = copy.findall("encoding")
        unnamed = tuple(n for n, encoding in enumerate(encodings) if encoding.find("trajectory") is None)
        add_defaults(copy, notes)
        complete_by_schema(copy, notes)
    except ReconError as error:
        raise ReconError(f"{path}: {error}") from None
    copy.set("xmlns", NAMESPACE)
    clean: bytes = ElementTree.tostring(copy, encoding="utf-8", xml_declaration=True)
    try:
        fields = ismrmrd.xsd.CreateFromDocument(clean)
    except Exception:  # what the reader says is about its own classes
        raise ReconError(
            f"{path}: its ISMRMRD header cannot be read; look at it with an XML validator, or convert the raw data "
            "again"
        ) from None
    as_it_came = (
        encoded_well and f"<{ROOT}".encode() in text and NAMESPACE.encode() in text and content(copy) == content(root)
    )
    return Header(fields, text if as_it_came else clean, tuple(notes), unnamed)


def protocol_name(text: bytes) -> str:
    """The protocol name of a header's text; "" when it gives none or cannot be read."""
    try:
        root = _root("", _decoded(text)[0])
    except ReconError:
        return ""
    names = (child.text for child in root.iter() if str(child.tag).rpartition("}")[2] == "protocolName")
    return " ".join((next(names, "") or "").split())


def _decoded(text: bytes) -> tuple[str, bool]:
    """The text without byte order mark, trailing NULs and space around it; whether it was plain UTF-8 as it came."""
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _trimmed(text.decode("utf-16", "replace")), False
    named = re.match(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([^\"']*)", text)
    declared = named[1].decode("ascii", "replace") if named else "utf-8"
    for name in (declared, "utf-8"):
        try:
            plain = text.decode(name)
        except (LookupError, ValueError):
            continue
        trimmed = _trimmed(plain)
        return trimmed, trimmed == plain.rstrip() and declared.lower() in {"utf-8", "ascii", "us-ascii"}
    return _trimmed(text.decode("latin-1")), False


def _trimmed(text: str) -> str:
    return text.strip("\ufeff\0 \t\r\n")


def _root(path: Path | str, text: str) -> Any:
    try:
        # The text is decoded: what its declaration says of the encoding no longer holds.
        root = defusedxml.ElementTree.fromstring(re.sub(r"^<\?xml.*?\?>", "", text, count=1, flags=re.DOTALL))
    except DefusedXmlException:
        reason = "it defines entities"
    except (defusedxml.ElementTree.ParseError, ValueError) as error:
        reason = " ".join(str(error).split())
    else:
        if str(root.tag).rpartition("}")[2] == ROOT:
            return root
        reason = f"its root is not {ROOT}"
    raise ReconError(f"{path}: its ISMRMRD header cannot be read ({reason}); convert the raw data again") from None
