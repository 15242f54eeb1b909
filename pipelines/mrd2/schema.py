"""The schema that an MRD 2 stream begins with: which types its items have, whatever version of MRD 2 it is.

The schema comes with the stream and is checked like the rest of it: it may be as damaged, or as hostile.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipelines.mrd2.source import Damaged
from pipelines.mrd2.types import (
    PRIMITIVES,
    Array,
    Enumeration,
    Map,
    Option,
    Primitive,
    Record,
    Type,
    Union,
    Vector,
    primitive,
)

PROTOCOL = "Mrd"
MOST_TYPES = 8192  # of a schema; MRD 2.2 has 1600, generic ones counted each time
DEEPEST = 32  # types within types; MRD 2.2 has 16
LONGEST_FIXED = 256  # elements of a list or array of fixed length
_UNREADABLE = "its schema cannot be read; the stream is damaged, send it again"


@dataclass(frozen=True)
class Schema:
    """The types of a stream.

    Parameters
    ----------
    text : JSON, as it stands in the stream
    header : of the step `header`
    item : of the elements of the step `data`
    """

    text: str
    header: Type
    item: Union

    @property
    def header_record(self) -> Record:
        """Type of the header where there is one."""
        assert isinstance(self.header, Option) and isinstance(self.header.element, Record)
        return self.header.element

    def case(self, tag: str) -> Record | None:
        """The type of one kind of item; its tag is spelled differently in the versions of MRD 2."""
        found = (element for name, element in self.item.cases if name.lower() == tag.lower())
        return next((element for element in found if isinstance(element, Record)), None)


@lru_cache(maxsize=4)
def read_schema(text: str) -> Schema:
    """Read a schema. Raises Damaged when it is no JSON, too large, or not that of protocol Mrd."""
    try:
        content = json.loads(text)
        protocol = content["protocol"]
        name = protocol["name"]
        if name == PROTOCOL:
            steps = [(step["name"], step["type"]) for step in protocol["sequence"]]
            if [step for step, _ in steps] != ["header", "data"]:
                raise Damaged(f"its schema has other steps than header and data; {_UNREADABLE}")
            builder = _Builder({one["name"]: one for one in content["types"]})
            header, item = builder.type(steps[0][1]), builder.type(steps[1][1]["stream"]["items"])
            if isinstance(header, Option) and isinstance(header.element, Record) and isinstance(item, Union):
                return Schema(text, header, item)
    except Damaged:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise Damaged(_UNREADABLE) from None
    if name != PROTOCOL:
        shown = name if isinstance(name, str) and name.isidentifier() and len(name) < 40 else "unknown"
        raise Damaged(f"it is a stream of protocol {shown}, not of {PROTOCOL}: it holds no scan")
    raise Damaged(_UNREADABLE)


class _Builder:
    """Makes types of their descriptions."""

    def __init__(self, named: dict[str, Any]) -> None:
        self._named = named
        self._known: dict[str, Type] = {}  # by the description
        self._made = 0

    def type(self, description: Any, depth: int = 0) -> Type:
        key = json.dumps(description, sort_keys=True)
        if key not in self._known:
            self._known[key] = self._make(description, {}, depth)
        return self._known[key]

    def _make(self, description: Any, bound: dict[str, Type], depth: int) -> Type:
        self._made += 1
        if depth > DEEPEST or self._made > MOST_TYPES:
            raise Damaged("its schema has types without end; the stream is damaged, or made to take memory")

        def inner(one: Any) -> Type:
            return self._make(one, bound, depth + 1)

        if isinstance(description, str):
            return self._of_name(description, (), bound, depth)
        if isinstance(description, list):
            return self._of_cases(description, inner)
        if "name" in description:
            arguments = tuple(map(inner, description.get("typeArguments", ())))
            return self._of_name(description["name"], arguments, bound, depth)
        if "vector" in description:
            length = description["vector"].get("length")
            return Vector(inner(description["vector"]["items"]), None if length is None else _fixed(length))
        if "map" in description:
            return Map(inner(description["map"]["keys"]), inner(description["map"]["values"]))
        array = description["array"]
        return self._of_array(inner(array["items"]), array.get("dimensions"))

    def _of_cases(self, cases: list[Any], inner: Any) -> Type:
        """An optional value, or one of several."""
        if len(cases) == 2 and cases[0] is None and not (isinstance(cases[1], dict) and "tag" in cases[1]):
            return Option(inner(cases[1]))
        return Union(tuple(("", None) if case is None else (str(case["tag"]), inner(case["type"])) for case in cases))

    def _of_array(self, element: Type, dimensions: Any) -> Type:
        if dimensions is None:
            return Array(element, None)
        if isinstance(dimensions, int):
            return Array(element, _fixed(dimensions))
        lengths = [one.get("length") for one in dimensions]
        if all(length is not None for length in lengths):
            shape = tuple(map(_fixed, lengths))
            return Array(element, len(shape), shape)
        return Array(element, _fixed(len(lengths)))

    def _of_name(self, name: str, arguments: tuple[Type, ...], bound: dict[str, Type], depth: int) -> Type:
        if name in bound:
            return bound[name]
        if name in PRIMITIVES:
            return primitive(name)
        name = name.rpartition(".")[2]
        entry = self._named[name]
        given = dict(zip(entry.get("typeParameters", ()), arguments, strict=True))
        if "fields" in entry:
            fields = ((str(one["name"]), self._make(one["type"], given, depth + 1)) for one in entry["fields"])
            return Record(name, tuple(fields))
        if "values" in entry:
            names = {int(one["value"]): str(one["symbol"]) for one in entry["values"]}
            return Enumeration(_integer(entry.get("base", "int32")), names, flags="base" in entry)
        return self._make(entry["type"], given, depth + 1)


def _fixed(length: Any) -> int:
    if not isinstance(length, int) or not 0 <= length <= LONGEST_FIXED:
        raise Damaged(_UNREADABLE)
    return length


def _integer(name: str) -> Primitive:
    if name not in PRIMITIVES or name == "string" or "float" in name:
        raise Damaged(_UNREADABLE)
    return primitive(name)
