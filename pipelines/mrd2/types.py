"""The types that MRD 2 streams consist of, as yardl writes them: each one reads, passes over and writes its values.

A record is a dict by the schema's names of its fields, an enumeration the name of its value (flags: a number), a union
(tag, value), a date the days since 1970, a time the nanoseconds since midnight.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from pipelines.mrd2.sink import Sink
from pipelines.mrd2.source import Damaged, Source

_UNSIGNED = {"uint16": 16, "uint32": 32, "uint64": 64, "size": 64}
_SIGNED = {"int16": 16, "int32": 32, "int64": 64, "date": 64, "time": 64, "datetime": 64}
_PACKED = {  # as they lie in memory: form for `struct`, and for arrays
    "float32": ("<f", "<f4"),
    "float64": ("<d", "<f8"),
    "complexfloat32": ("<ff", "<c8"),
    "complexfloat64": ("<dd", "<c16"),
    "uint8": ("<B", "u1"),
    "int8": ("<b", "i1"),
    "bool": ("<B", "u1"),
}
PRIMITIVES = {*_UNSIGNED, *_SIGNED, *_PACKED, "string"}


class Type:
    """One of the types."""

    def read(self, source: Source) -> Any:
        """The value that comes next."""
        raise NotImplementedError

    def skip(self, source: Source) -> None:
        """Pass over the value that comes next, without memory for it."""
        self.read(source)

    def write(self, sink: Sink, value: Any) -> None:
        """Write a value."""
        raise NotImplementedError

    def empty(self) -> Any:
        """A value that says nothing."""
        raise NotImplementedError


@dataclass(frozen=True)
class Primitive(Type):
    """A number or a text, by the schema's name.

    Attributes
    ----------
    dtype : of an array of these
    is_plain : whether arrays of these are written as they lie in memory
    """

    name: str
    dtype: ClassVar[Any] = np.dtype(object)
    is_plain: ClassVar[bool] = False

    def empty(self) -> Any:
        return 0


class Text(Primitive):
    """A text."""

    def read(self, source: Source) -> Any:
        return source.text()

    def skip(self, source: Source) -> None:
        source.skip(source.spend(source.varint()))

    def write(self, sink: Sink, value: Any) -> None:
        encoded = value.encode("utf-8", "replace")
        sink.varint(len(encoded))
        sink.bytes(encoded)

    def empty(self) -> Any:
        return ""


class Unsigned(Primitive):
    """A number from 0 on."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        object.__setattr__(self, "bits", _UNSIGNED[name])
        object.__setattr__(self, "dtype", np.dtype(f"<u{_UNSIGNED[name] // 8}"))

    def read(self, source: Source) -> Any:
        value = source.varint()
        if value >> self.bits:  # type: ignore[attr-defined]
            raise _out_of_range(source, self.name)
        return value

    def write(self, sink: Sink, value: Any) -> None:
        sink.varint(int(value))


class Signed(Primitive):
    """A number of either sign; a date or a time."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        object.__setattr__(self, "limit", 1 << _SIGNED[name] - 1)
        object.__setattr__(self, "dtype", np.dtype(f"<i{_SIGNED[name] // 8}"))

    def read(self, source: Source) -> Any:
        value = source.signed()
        if not -self.limit <= value < self.limit:  # type: ignore[attr-defined]
            raise _out_of_range(source, self.name)
        return value

    def write(self, sink: Sink, value: Any) -> None:
        sink.signed(int(value))


class Packed(Primitive):
    """A number as it lies in memory."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        form, dtype = _PACKED[name]
        object.__setattr__(self, "form", struct.Struct(form))
        object.__setattr__(self, "dtype", np.dtype(dtype))
        object.__setattr__(self, "is_plain", name != "bool")

    def read(self, source: Source) -> Any:
        found = self.form.unpack(source.fixed(self.form.size))  # type: ignore[attr-defined]
        return found[0] if len(found) == 1 else complex(*found)

    def write(self, sink: Sink, value: Any) -> None:
        parts = (value.real, value.imag) if self.name.startswith("complex") else (value,)
        sink.bytes(self.form.pack(*parts))  # type: ignore[attr-defined]


def primitive(name: str) -> Primitive:
    """The type of one of `PRIMITIVES`."""
    if name == "string":
        return Text(name)
    return Unsigned(name) if name in _UNSIGNED else Signed(name) if name in _SIGNED else Packed(name)


def _out_of_range(source: Source, name: str) -> Damaged:
    return Damaged(f"{source.what} has a number too large for {name}; the stream is damaged, send it again")


@dataclass(frozen=True)
class Enumeration(Type):
    """One of some names; flags are a number."""

    base: Primitive
    names: dict[int, str]
    flags: bool

    def read(self, source: Source) -> Any:
        value = self.base.read(source)
        if self.flags:
            return value
        if value not in self.names:
            raise Damaged(
                f"{source.what} has {value} where one of {', '.join(self.names.values())} is due; the stream is "
                "damaged, send it again"
            )
        return self.names[value]

    def write(self, sink: Sink, value: Any) -> None:
        if not self.flags:
            value = next(number for number, name in self.names.items() if name == value)
        self.base.write(sink, value)

    def empty(self) -> Any:
        return 0 if self.flags else next(iter(self.names.values()))


@dataclass(frozen=True)
class Option(Type):
    """A value, or None."""

    element: Type

    def read(self, source: Source) -> Any:
        return self.element.read(source) if source.byte() else None

    def skip(self, source: Source) -> None:
        if source.byte():
            self.element.skip(source)

    def write(self, sink: Sink, value: Any) -> None:
        sink.bytes(b"\0" if value is None else b"\1")
        if value is not None:
            self.element.write(sink, value)

    def empty(self) -> Any:
        return None


@dataclass(frozen=True)
class Union(Type):
    """A value of one of some types, each with a tag; "" with None for none of them."""

    cases: tuple[tuple[str, Type | None], ...]

    def case(self, source: Source) -> tuple[str, Type | None]:
        """Tag and type of the value that comes next."""
        number = source.byte()
        if number >= len(self.cases):
            raise Damaged(f"{source.what} is of unknown kind {number}; the stream is damaged, send it again")
        return self.cases[number]

    def read(self, source: Source) -> Any:
        tag, element = self.case(source)
        return tag, element.read(source) if element else None

    def skip(self, source: Source) -> None:
        _, element = self.case(source)
        if element:
            element.skip(source)

    def write(self, sink: Sink, value: Any) -> None:
        tag, content = value
        number, element = next((n, element) for n, (name, element) in enumerate(self.cases) if name == tag)
        sink.bytes(bytes([number]))
        if element:
            element.write(sink, content)

    def empty(self) -> Any:
        tag, element = self.cases[0]
        return tag, element.empty() if element else None


@dataclass(frozen=True)
class Vector(Type):
    """A list."""

    element: Type
    length: int | None = None

    def _count(self, source: Source) -> int:
        return source.spend(source.varint() if self.length is None else self.length)

    def read(self, source: Source) -> Any:
        return [self.element.read(source) for _ in range(self._count(source))]

    def skip(self, source: Source) -> None:
        for _ in range(self._count(source)):
            self.element.skip(source)

    def write(self, sink: Sink, value: Any) -> None:
        if self.length is None:
            sink.varint(len(value))
        for element in value:
            self.element.write(sink, element)

    def empty(self) -> Any:
        return [self.element.empty() for _ in range(self.length or 0)]


@dataclass(frozen=True)
class Map(Type):
    """A dict."""

    key: Type
    value: Type

    def read(self, source: Source) -> Any:
        return {self.key.read(source): self.value.read(source) for _ in range(source.spend(source.varint()))}

    def skip(self, source: Source) -> None:
        for _ in range(source.spend(source.varint())):
            self.key.skip(source)
            self.value.skip(source)

    def write(self, sink: Sink, value: Any) -> None:
        sink.varint(len(value))
        for key, content in value.items():
            self.key.write(sink, key)
            self.value.write(sink, content)

    def empty(self) -> Any:
        return {}


@dataclass(frozen=True)
class Array(Type):
    """An array of fixed shape, of a number of dimensions, or of any (`dimensions` None)."""

    element: Type
    dimensions: int | None
    shape: tuple[int, ...] | None = None

    @property
    def dtype(self) -> Any:
        """Of its elements, where they are numbers."""
        return self.element.dtype if isinstance(self.element, Primitive) else None

    def _shape(self, source: Source) -> tuple[int, ...]:
        if self.shape is not None:
            return self.shape
        dimensions = source.spend(source.varint()) if self.dimensions is None else self.dimensions
        return tuple(source.varint() for _ in range(dimensions))

    def read(self, source: Source) -> Any:
        shape = self._shape(source)
        if isinstance(self.element, Primitive) and self.element.is_plain:
            return source.array(self.element.dtype, shape)
        if not isinstance(self.element, Primitive) or isinstance(self.element, Text):
            return [self.element.read(source) for _ in range(source.spend(source.elements(shape, 1)))]
        count = source.elements(shape, self.element.dtype.itemsize)
        values = (self.element.read(source) for _ in range(count))
        return np.fromiter(values, self.element.dtype, count).reshape(shape)

    def skip(self, source: Source) -> None:
        shape = self._shape(source)
        if isinstance(self.element, Primitive) and self.element.is_plain:
            size = self.element.dtype.itemsize
            source.skip(source.elements(shape, size) * size)
            return
        count = source.elements(shape, 1)
        for _ in range(count if isinstance(self.element, Primitive) else source.spend(count)):
            self.element.skip(source)

    def write(self, sink: Sink, value: Any) -> None:
        value = np.asarray(value)
        if self.shape is None:
            if self.dimensions is None:
                sink.varint(value.ndim)
            for size in value.shape:
                sink.varint(size)
        if isinstance(self.element, Primitive) and self.element.is_plain:
            sink.array(np.ascontiguousarray(value, self.element.dtype))
            return
        for element in value.flat:
            self.element.write(sink, element)

    def empty(self) -> Any:
        shape = self.shape if self.shape is not None else (0,) * (self.dimensions or 0)
        return np.zeros(shape, self.dtype or object)


@dataclass(frozen=True)
class Record(Type):
    """Fields by their names."""

    name: str
    fields: tuple[tuple[str, Type], ...]

    @cached_property
    def types(self) -> dict[str, Type]:
        """Its fields."""
        return dict(self.fields)

    def read(self, source: Source) -> Any:
        return {name: element.read(source) for name, element in self.fields}

    def skip(self, source: Source) -> None:
        for _, element in self.fields:
            element.skip(source)

    def write(self, sink: Sink, value: Any) -> None:
        for name, element in self.fields:
            element.write(sink, value[name])

    def empty(self) -> Any:
        return {name: element.empty() for name, element in self.fields}
