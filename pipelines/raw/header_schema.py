"""The elements of a header by the schema: values that are what they should be, and nothing that it does not know."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import typing
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from ismrmrd import xsd

from gadgets.stream import ReconError

LARGEST_COUNTER = 65535  # ISMRMRD keeps counters, their limits and matrix sizes as uint16
LARGEST_NUMBER = 2**53
# Their parts are required, though the reader has defaults for them, which would be taken for values.
_ALL_PARTS = (xsd.limitType, xsd.matrixSizeType)
_NEEDED = ("encoding", "experimentalConditions")  # numbers in them are right, or an error
_FREE_NUMBERS = {"accessionNumber"}  # numbers by the schema; hospitals have letters in them


@dataclasses.dataclass(frozen=True)
class _Field:
    """What the schema says of one element."""

    kind: type
    required: bool
    repeated: bool


@functools.cache
def _fields(kind: type) -> dict[str, _Field]:
    """The elements in one of the schema, by their names."""
    hints = typing.get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        types = [one for one in typing.get_args(hint) or (hint,) if one is not type(None)]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        repeated = typing.get_origin(hint) is list
        found[field.name] = _Field(types[0], required or kind in _ALL_PARTS, repeated)
    return found


def copied_by_schema(element: Any, notes: list[str], kind: type = xsd.ismrmrdHeader, path: str = "") -> Element:
    """A copy of an element with the parts that the schema knows, without namespaces.

    Numbers are numbers, terms have the spelling of their list, and empty elements are left out.

    Parameters
    ----------
    element : of a header
    notes : gets a line for each part that is left out because it cannot be used
    kind, path : class of the element in `ismrmrd.xsd`, and its path in the header with "/" at its end

    Raises
    ------
    ReconError
        A part that a reconstruction needs is no number, not finite or too large, or stands there twice with different
        values. The text quotes nothing but names of elements.
    """
    copy = Element(_local(element))
    fields = _fields(kind)
    children: dict[str, list[Any]] = {name: [] for name in fields}
    for child in element:
        if (name := _local(child)) in fields:
            children[name].append(child)
    for name, field in fields.items():
        copy.extend(list(_copies(children[name], field, path + name, notes)))
    return copy


def complete_by_schema(element: Element, notes: list[str], kind: type = xsd.ismrmrdHeader, path: str = "") -> None:
    """Take out optional parts that lack parts of their own, with a note each.

    Raises ReconError when a part is missing that a reconstruction needs.
    """
    fields = _fields(kind)
    for name, field in fields.items():
        if field.required and not field.repeated and element.find(name) is None:
            raise _Missing(path + name)
        if not dataclasses.is_dataclass(field.kind):
            continue
        for number, child in enumerate(element.findall(name)):
            own_path = f"{path}{name} {number}" if field.repeated else path + name
            try:
                complete_by_schema(child, notes, field.kind, own_path + "/")
            except _Missing as error:
                if field.required or name == "encoding":
                    raise
                element.remove(child)
                notes.append(f"header: {error.path} is missing; {own_path} is not used")


class _Missing(ReconError):
    """An element lacks a part."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is missing in its ISMRMRD header; correct the header")
        self.path = path


def _copies(children: list[Any], field: _Field, path: str, notes: list[str]) -> Iterator[Element]:
    if not field.repeated and len(children) > 1:
        if len({content(child) for child in children}) > 1:
            if path.startswith("encoding"):
                raise ReconError(
                    f"{path} stands {len(children)} times in its ISMRMRD header, with different values; correct the "
                    "header"
                )
            notes.append(f"header: {path} stands {len(children)} times; the first one is used")
        children = children[:1]
    for number, child in enumerate(children):
        if dataclasses.is_dataclass(field.kind):
            own_path = f"{path} {number}" if field.repeated else path
            copy: Element | None = copied_by_schema(child, notes, field.kind, own_path + "/")
            if field.kind is xsd.limitType and _is_no_range(copy):
                notes.append(f"header: {own_path} is no range of a counter (0 to {LARGEST_COUNTER}); it is not used")
                continue
        else:
            copy = _leaf(child, field, path, notes)
        if copy is not None:
            yield copy


def _is_no_range(limit: Any) -> bool:
    return not all(0 <= int(part.text) <= LARGEST_COUNTER for part in limit)


def _leaf(child: Any, field: _Field, path: str, notes: list[str]) -> Element | None:
    """An element that has a value; None when it has none that can be used."""
    copy = Element(_local(child))
    copy.text = child.text or ""
    term = copy.text.strip()
    is_term = issubclass(field.kind, enum.Enum)
    if not term and (is_term or field.kind in {int, float}):
        return None
    if field.kind in {int, float} and copy.tag not in _FREE_NUMBERS:
        number, problem = _number(term, field.kind, path)
        if not problem:
            copy.text = number
            if field.kind is int and float(term) != float(number) and not path.endswith("_Hz"):
                notes.append(f"header: {path} is not a whole number; {number} is used")
        elif path.startswith(_NEEDED):
            raise ReconError(f"{path} in its ISMRMRD header {problem}; correct the header")
        else:
            notes.append(f"header: {path} {problem}; it is not used")
            return None
    if is_term:
        spellings = {str(one.value).lower(): str(one.value) for one in field.kind}  # type: ignore[attr-defined]
        if term.lower() not in spellings and not field.required:  # whoever needs a required one says what is wrong
            notes.append(f"header: {path} is no term of the standard; it is not used")
            return None
        copy.text = spellings.get(term.lower(), copy.text)
    return copy


def _number(text: str, kind: type, path: str) -> tuple[str, str]:
    """A number as it is written in a header, or what is wrong with it."""
    try:
        value = float(text.replace("_", "x"))  # Python's own way to write 1_000 is none of XML's
    except ValueError:
        return "", "is not a number"
    if math.isnan(value) or math.isinf(value):
        return "", "is not a finite number"
    if kind is float:
        return text, ""
    if abs(value) > (LARGEST_COUNTER if "/matrixSize/" in path else LARGEST_NUMBER):
        return "", "is too large"
    return str(round(value)), ""


def _local(element: Any) -> str:
    """The name of an element without its namespace; "" of a comment."""
    return str(element.tag).rpartition("}")[2] if isinstance(element.tag, str) else ""


def content(element: Any) -> tuple[Any, ...]:
    """What an element says, to compare: names and texts, without namespaces, comments, and the order of parts."""
    parts = sorted((part for part in element if _local(part)), key=_local)
    return (_local(element), (element.text or "").strip(), *map(content, parts))
