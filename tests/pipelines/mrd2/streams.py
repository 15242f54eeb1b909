"""MRD 2 streams of every version, and all fields of their records filled."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np
from ismrmrd import xsd
from mrd.protocols import MrdWriterBase

from pipelines.mrd2.schema import Schema, read_schema
from pipelines.mrd2.source import Source
from pipelines.mrd2.streams import Mrd2Reader
from pipelines.mrd2.types import Array, Enumeration, Map, Option, Primitive, Record, Type, Union, Vector
from pipelines.mrd2.writing import write_scan

INSTALLED = read_schema(MrdWriterBase.schema)
_NS = {"name": "acquisitionTimeStampNs", "type": [None, "uint64"]}
_NS_LIST = {"name": "physiologyTimeStampNs", "type": {"vector": {"items": "uint64"}}}
_TICKS = {"name": "acquisitionTimeStamp", "type": [None, "uint32"]}
_TICKS_LIST = {"name": "physiologyTimeStamp", "type": {"vector": {"items": "uint32"}}}
_SAMPLE_NS = {"name": "sampleTimeNs", "type": [None, "uint64"]}
_SAMPLE_US = {"name": "sampleTimeUs", "type": [None, "float32"]}
_FREQUENCY = {"name": "acquisitionCenterFrequency", "type": [None, "uint64"]}
_PHASE = {"name": "phase", "type": [None, {"array": {"items": "float32", "dimensions": [{"name": "samples"}]}}]}
_OLD_NAMES = {"ImageUint32": "ImageUint", "ImageInt32": "ImageInt"}


def _content(schema: Schema) -> tuple[Any, dict[str, Any]]:
    content = json.loads(schema.text)
    return content, {one["name"]: one for one in content["types"]}


def _cases(content: Any) -> list[Any]:
    (item,) = (one for one in content["types"] if one["name"] == "StreamItem")
    cases: list[Any] = item["type"]
    return cases


def version_2_1(schema: Schema = INSTALLED) -> Schema:
    """Time stamps in ticks, tags that begin with capitals."""
    content, types = _content(schema)
    for name in ("AcquisitionHeader", "ImageHeader"):
        _replace(types[name], _NS, _TICKS)
        _replace(types[name], _NS_LIST, _TICKS_LIST)
        _replace(types[name], _SAMPLE_NS, _SAMPLE_US)
    _remove(types["AcquisitionHeader"], "acquisitionCenterFrequency")
    _remove(types["Acquisition"], "phase")
    for case in _cases(content):
        case["tag"] = case["tag"][0].upper() + case["tag"][1:]
        case.pop("explicitTag", None)
    return read_schema(json.dumps(content))


def version_2_2(schema: Schema = INSTALLED) -> Schema:
    """Times in nanoseconds, a frequency and phases of a line, tags that begin with small letters."""
    content, types = _content(version_2_1(schema))
    for name in ("AcquisitionHeader", "ImageHeader"):
        _replace(types[name], _TICKS, _NS)
        _replace(types[name], _TICKS_LIST, _NS_LIST)
        _replace(types[name], _SAMPLE_US, _SAMPLE_NS)
    types["AcquisitionHeader"]["fields"].insert(4, _FREQUENCY)
    for one in content["types"]:
        if one["name"] == "Acquisition":
            one["fields"].insert(2, _PHASE)
    for case in _cases(content):
        case["tag"] = case["tag"][0].lower() + case["tag"][1:]
        case["explicitTag"] = True
    return read_schema(json.dumps(content))


def version_2_0(schema: Schema = INSTALLED) -> Schema:
    """No headers of lines and images apart from them, meta attributes that are texts, fewer kinds of items."""
    content, types = _content(version_2_1(schema))
    for one in content["types"]:
        if one["name"] in ("Acquisition", "Image"):
            one["fields"] = [*types[f"{one['name']}Header"]["fields"], *one["fields"][1:]]
        if one["name"] == "Image":
            texts = {"map": {"keys": "string", "values": {"vector": {"items": "string"}}}}
            one["fields"][-1] = {"name": "meta", "type": texts}
        if one["name"] == "CalibrationMode":
            names = [value["symbol"] for value in one["values"] if value["symbol"] != "noacceleration"]
            one["values"] = [{"symbol": name, "value": number} for number, name in enumerate(names)]
    cases = _cases(content)
    kept = [case for case in cases if case["tag"].startswith(("Acquisition", "Waveform", "Image"))]
    cases[:] = [case for case in kept if case["tag"] not in ("AcquisitionBucket", "ImageArray", "AcquisitionPrototype")]
    for case in cases:
        case["tag"] = _OLD_NAMES.get(case["tag"], case["tag"])
    return read_schema(json.dumps(content))


def _replace(record: Any, old: Any, new: Any) -> None:
    record["fields"] = [new if field["name"] == old["name"] else field for field in record["fields"]]


def _remove(record: Any, name: str) -> None:
    record["fields"] = [field for field in record["fields"] if field["name"] != name]


VERSIONS = {"2.0": version_2_0(), "2.1": version_2_1(), "2.2": version_2_2()}


def stream(header: str, lines: Iterable[Any], schema: Schema = INSTALLED) -> bytes:
    """A scan as a stream."""
    found = io.BytesIO()
    write_scan(found.write, xsd.CreateFromDocument(header.encode()), lines, schema)
    return found.getvalue()


def reader(content: bytes, **options: Any) -> Mrd2Reader:
    return Mrd2Reader(Source(io.BytesIO(content).read), **options)


def images(content: bytes) -> list[dict[str, Any]]:
    """The images of a stream, which must be whole: the fields of header and image in one dict."""
    opened = reader(content)
    tags = {tag.lower() for tag, element in opened.schema.item.cases if _is_image(element)}
    found = [{**value.get("head", {}), **value} for _, value, _ in opened.items(tags, {})]
    assert opened.complete
    return found


def _is_image(element: Type | None) -> bool:
    return isinstance(element, Record) and element.name == "Image"


def filled(element: Type, numbers: Iterator[int] | None = None) -> Any:
    """A value of a type, all parts of it different and none empty; lists have two elements."""
    numbers = numbers or count(1)
    if isinstance(element, Option):
        return filled(element.element, numbers)
    if isinstance(element, Record):
        return {name: filled(own, numbers) for name, own in element.fields}
    if isinstance(element, Vector):
        return [filled(element.element, numbers) for _ in range(element.length or 2)]
    if isinstance(element, Array):
        shape = element.shape if element.shape is not None else (2,) * (element.dimensions or 1)
        return np.array([next(numbers) + 0.25 for _ in range(int(np.prod(shape)))]).astype(element.dtype).reshape(shape)
    if isinstance(element, Map):
        return {filled(element.key, numbers): filled(element.value, numbers)}
    if isinstance(element, Union):
        return element.cases[-1][0], filled(element.cases[-1][1] or element, numbers)
    if isinstance(element, Enumeration):
        return next(numbers) if element.flags else list(element.names.values())[-1]
    assert isinstance(element, Primitive)
    if element.name == "string":
        return f"text {next(numbers)}"
    number = next(numbers)
    return number + 0.25 if "float" in element.name else number


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """The values within a value, by their paths."""
    if isinstance(value, dict):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for name, part in parts:
        found |= leaves(part, f"{path}/{name}")
    return found


def without(value: Any, path: str) -> Any:
    """A copy of a value in which the part at a path is None, or an empty list."""
    found = copy.deepcopy(value)
    *parents, last = path.strip("/").split("/")
    part = found
    for name in parents:
        part = part[int(name)] if isinstance(part, list) else part[name]
    part[last] = [] if isinstance(part[last], list) else None
    return found
