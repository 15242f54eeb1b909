"""Headers of MRD 2 as headers of ISMRMRD, and back.

The fields have the same names but for case and underscores, and the same units. `docs/mrd2.md` lists those that only
one of the two has.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import re
import typing
from functools import cache
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from ismrmrd import xsd

from pipelines.mrd2.types import Array, Enumeration, Option, Primitive, Record, Type, Vector

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
EPOCH = datetime.date(1970, 1, 1).toordinal()
SECOND_NS = 10**9
DAY_NS = 86400 * SECOND_NS
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def header_xml(header: dict[str, Any], record: Record, notes: list[str]) -> bytes:
    """The XML of an ISMRMRD header.

    Parameters
    ----------
    header : fields of an MRD 2 header
    record : its type in the stream's schema
    notes : gets a line for each part that ISMRMRD has no place for; nothing of a patient in it
    """
    root = Element("ismrmrdHeader", xmlns=NAMESPACE)
    _add_fields(root, header, record, xsd.ismrmrdHeader, "", notes)
    found: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return found


def mrd2_header(header: Any, record: Record, notes: list[str]) -> dict[str, Any]:
    """The fields of an MRD 2 header.

    Parameters
    ----------
    header : ismrmrd.xsd.ismrmrdHeader
    record : type of the MRD 2 header in a stream's schema
    notes : gets a line for each part that MRD 2 has no place for
    """
    found: dict[str, Any] = _converted(header, record, "", notes)
    return found


def plain(name: str) -> str:
    """A name without case and underscores."""
    return name.replace("_", "").lower()


@cache
def _kinds(kind: type) -> dict[str, tuple[str, Any]]:
    """The elements in one of ISMRMRD's schema and their types, by their plain names, in the schema's order."""
    hints = typing.get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        types = [one for one in typing.get_args(hints[field.name]) or (hints[field.name],) if one is not type(None)]
        found[plain(field.name)] = (field.name, types[0])
    return found


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, list) and not value)


# --- MRD 2 to ISMRMRD


def _add_fields(
    parent: Element, value: dict[str, Any], record: Record, kind: type, path: str, notes: list[str]
) -> None:
    fields = {plain(name): (name, element) for name, element in record.fields}
    for key, (name, own_kind) in _kinds(kind).items():
        if key in fields:
            given, element = fields[key]
            _add(parent, name, value[given], element, own_kind, path + name, notes)
    for key, (given, _) in fields.items():
        if key not in _kinds(kind) and not _is_missing(value[given]):
            notes.append(f"header: {path}{given} has no place in an ISMRMRD header; it is not used")


def _add(parent: Element, name: str, value: Any, element: Type, kind: Any, path: str, notes: list[str]) -> None:
    if isinstance(element, Option):
        if value is not None:
            _add(parent, name, value, element.element, kind, path, notes)
    elif isinstance(element, Vector | Array):
        for one in value:
            _add(parent, name, one, element.element, kind, path, notes)
    elif isinstance(element, Record) and dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        _add_fields(SubElement(parent, name), value, element, kind, f"{path}/", notes)
    elif (text := _text(value, element, kind)) is not None:
        SubElement(parent, name).text = text
    else:
        notes.append(f"header: {path} has a value that an ISMRMRD header cannot have; it is not used")


def _text(value: Any, element: Type, kind: Any) -> str | None:
    """A value as it is written in XML; None when it cannot be."""
    if isinstance(element, Enumeration):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return next((str(one.value) for one in kind if plain(str(one.value)) == plain(str(value))), None)
        return str(value).upper()  # the patient's sex
    if not isinstance(element, Primitive):
        return None
    if element.name == "date":
        return _date_text(value)
    if element.name == "time":
        return _time_text(value)
    if element.name == "float32":
        return str(np.float32(value))  # 5.2, not 5.199999809265137
    if element.name == "string":
        return _NOT_IN_XML.sub(" ", value)
    return repr(value)


def _date_text(days: int) -> str | None:
    place = days + EPOCH
    return datetime.date.fromordinal(place).isoformat() if 1 <= place <= datetime.date.max.toordinal() else None


def _time_text(nanoseconds: int) -> str | None:
    if not 0 <= nanoseconds < DAY_NS:
        return None
    seconds, rest = divmod(nanoseconds, SECOND_NS)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}"


# --- ISMRMRD to MRD 2


def _converted(value: Any, element: Type, path: str, notes: list[str]) -> Any:
    if isinstance(element, Option):
        return None if value is None else _converted(value, element.element, path, notes)
    if isinstance(element, Vector):
        return [_converted(one, element.element, path, notes) for one in value or []]
    if value is None:
        return element.empty()
    if isinstance(element, Record):
        own_kind: type = type(value)
        kinds = _kinds(own_kind)
        given = {plain(name): name for name, _ in element.fields}
        notes += [
            f"header: {path}{name} has no place in an MRD 2 header; it is left out"
            for key, (name, _) in kinds.items()
            if key not in given and not _is_missing(getattr(value, name))
        ]
        return {
            name: _converted(
                getattr(value, kinds[plain(name)][0]) if plain(name) in kinds else None, own, f"{path}{name}/", notes
            )
            for name, own in element.fields
        }
    if isinstance(element, Enumeration):
        wanted = plain(str(getattr(value, "value", value)))
        found = next((name for name in element.names.values() if plain(name) == wanted), None)
        if found is None:
            notes.append(f"header: {path.rstrip('/')} has a term that MRD 2 lacks; {element.empty()} is written")
        return element.empty() if found is None else found
    assert isinstance(element, Primitive)
    return _number_or_text(value, element)


def _number_or_text(value: Any, element: Primitive) -> Any:
    if element.name == "date":
        return datetime.date(value.year, value.month, value.day).toordinal() - EPOCH
    if element.name == "time":
        seconds = (value.hour * 60 + value.minute) * 60 + value.second
        return seconds * SECOND_NS + value.fractional_second
    if element.name == "string":
        return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
    return float(value) if "float" in element.name else int(value)
