"""ISMRMRD headers with a mark in every field that may hold something of a person."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any

from ismrmrd.xsd import ismrmrdHeader
from xsdata.models.datatype import XmlDate, XmlTime

TEXT = "Zzyzx"
NUMBER = 7310937
UID = "1.2.840.7310937.5"
DATE, TIME = XmlDate(1937, 10, 23), XmlTime(21, 43, 57)
# What no byte of an anonymized file may hold, in any form that DICOM or Python writes it.
MARKS = (TEXT, TEXT.upper(), TEXT.lower(), str(NUMBER), "19371023", "1937-10-23", "214357", "21:43:57")

TECHNIQUE = ("encoding", "experimentalConditions", "sequenceParameters")  # numbers of these are how it was measured


def filled(header: ismrmrdHeader) -> ismrmrdHeader:
    """The header with every field of the schema set: texts, dates and UIDs marked, as numbers outside `TECHNIQUE`."""
    return _filled(header, marked=True)


def with_texts(part: Any, text: str) -> Any:
    """A header as it is read from a file whose texts, dates and enumerations are all one text."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(part):
        own = getattr(part, field.name)
        values = own if isinstance(own, list) else [own]
        changed = [
            with_texts(one, text) if dataclasses.is_dataclass(one) else one if isinstance(one, int | float) else text
            for one in values
        ]
        changes[field.name] = changed if isinstance(own, list) else None if own is None else changed[0]
    return dataclasses.replace(part, **changes)


def _filled(part: Any, marked: bool) -> Any:
    hints = typing.get_type_hints(type(part))
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(part):
        own = getattr(part, field.name)
        numbers = marked and field.name not in TECHNIQUE
        if isinstance(own, list) and own and dataclasses.is_dataclass(own[0]):
            changes[field.name] = [_filled(one, numbers) for one in own]
        else:
            changes[field.name] = _value(field.name, hints[field.name], own, numbers)
    return dataclasses.replace(part, **changes)


def _value(name: str, hint: Any, own: Any, marked: bool) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if typing.get_origin(hint) is list:
        (kind,) = typing.get_args(hint)
        return own if own and kind is not str and not marked else [_value(name, kind, None, marked)]
    if dataclasses.is_dataclass(hint):
        return _filled(own if own is not None else _empty(hint), marked)
    if issubclass(hint, enum.Enum):
        return own or next(iter(hint))
    if hint is XmlDate:
        return DATE
    if hint is XmlTime:
        return TIME
    if hint is bytes:
        return TEXT.encode()
    if hint is str:
        return UID if "UID" in name else f"{TEXT}^{name}"
    if own is not None and not marked:
        return own
    return hint(NUMBER) if marked else hint(1)


def _empty(kind: Any) -> Any:
    """A dataclass with None in all fields, which `_filled` fills."""
    return kind(**{field.name: None for field in dataclasses.fields(kind) if field.init})
