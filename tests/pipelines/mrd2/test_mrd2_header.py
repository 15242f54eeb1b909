"""Headers of MRD 2 and of ISMRMRD: every field of both, there and back."""

from __future__ import annotations

import base64
import dataclasses
import enum
import typing
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from ismrmrd import xsd
from xsdata.models.datatype import XmlDate, XmlTime

from pipelines.mrd2.header import header_xml, mrd2_header, plain
from pipelines.mrd2.schema import Schema
from pipelines.mrd2.types import Enumeration, Option, Record, Type, Vector
from pipelines.raw import read_header
from tests.pipelines.mrd2.streams import INSTALLED, VERSIONS, filled, leaves, without
from tests.raw_files import header

# Terms of MRD 2 that ISMRMRD does not have; everything else has its counterpart. docs/mrd2.md lists them.
ONLY_MRD2 = {("CalibrationMode", "noacceleration")}
RECORD = INSTALLED.header_record


def filled_ismrmrd(kind: Any, numbers: Iterator[int]) -> Any:
    """An element of an ISMRMRD header, all parts of it there and different; lists have two elements."""
    if dataclasses.is_dataclass(kind) and kind not in (XmlDate, XmlTime):
        assert isinstance(kind, type)
        hints = typing.get_type_hints(kind)
        values = {}
        for field in dataclasses.fields(kind):
            hint = hints[field.name]
            own = next(one for one in typing.get_args(hint) or (hint,) if one is not type(None))
            repeated = typing.get_origin(hint) is list
            found = [filled_ismrmrd(own, numbers) for _ in range(2 if repeated else 1)]
            values[field.name] = found if repeated else found[0]
        if "patientGender" in values:
            values["patientGender"] = "O"
        return kind(**values)
    number = next(numbers)
    if issubclass(kind, enum.Enum):
        return list(kind)[-1]
    if kind is XmlDate:
        return XmlDate(2024, 2, number % 28 + 1)
    if kind is XmlTime:
        return XmlTime(number % 24, 59, 58, 123_456_789)
    if kind is bytes:
        return f"bytes {number}".encode()
    return {str: f"text {number}", int: number, float: number + 0.25}[kind]


def to_ismrmrd(value: Any, schema: Schema = INSTALLED) -> tuple[Any, list[str]]:
    notes: list[str] = []
    return xsd.CreateFromDocument(header_xml(value, schema.header_record, notes)), notes


def to_mrd2(value: Any, schema: Schema = INSTALLED) -> tuple[Any, list[str]]:
    notes: list[str] = []
    return mrd2_header(value, schema.header_record, notes), notes


def test_all_fields_of_ismrmrd_come_back() -> None:
    whole = filled_ismrmrd(xsd.ismrmrdHeader, count(1))
    there, notes = to_mrd2(whole)
    assert not notes
    back, notes = to_ismrmrd(there)
    assert not notes
    assert back == whole
    assert len(leaves(dataclasses.asdict(whole))) > 150  # the walk found them all, and none is empty
    assert None not in leaves(dataclasses.asdict(whole)).values()


def test_all_fields_of_mrd2_come_back() -> None:
    whole = filled(RECORD)
    assert None not in leaves(whole).values()
    there, notes = to_ismrmrd(whole)
    assert not notes
    back, notes = to_mrd2(there)
    assert not notes
    assert leaves(back) == leaves(whole)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_header_of_each_version(version: str) -> None:
    fields = xsd.CreateFromDocument(header().encode())
    back, notes = to_ismrmrd(to_mrd2(fields, VERSIONS[version])[0], VERSIONS[version])
    assert back == fields and not notes


def optional_paths(value: Any, element: Type, path: str = "") -> Iterator[str]:
    """Paths of the parts of a value that may be missing."""
    if isinstance(element, Option | Vector):
        if path and not path[-1].isdigit():
            yield path
        element = element.element
    if isinstance(value, list):
        for number, part in enumerate(value):
            yield from optional_paths(part, element, f"{path}/{number}")
    elif isinstance(element, Record):
        for name, own in element.fields:
            yield from optional_paths(value[name], own, f"{path}/{name}")


@pytest.mark.slow
def test_whatever_may_be_missing_is_missing_there_too() -> None:
    whole = filled(RECORD)
    paths = list(optional_paths(whole, RECORD))
    assert len(paths) > 80
    for path in paths:
        lacking = without(whole, path)
        there, notes = to_ismrmrd(lacking)
        assert leaves(to_mrd2(there)[0]) == leaves(lacking), path
        assert not notes


def enumerations(element: Type) -> Iterator[Enumeration]:
    if isinstance(element, Enumeration):
        yield element
    elif isinstance(element, Record):
        for _, own in element.fields:
            yield from enumerations(own)
    elif isinstance(element, Option | Vector):
        yield from enumerations(element.element)


@pytest.mark.slow
def test_every_term() -> None:
    seen = {plain(str(one.value)) for kind in vars(xsd).values() if _is_enum(kind) for one in kind}
    names = {name for found in enumerations(RECORD) for name in found.names.values()}
    assert {plain(name) for name in names} - seen == {"noacceleration", "m", "f", "o"}
    for found in set(map(str, enumerations(RECORD))):
        assert found
    whole = filled(RECORD)
    for path, types in _paths_of_terms(whole, RECORD):
        for name in types.names.values():
            changed = _with(whole, path, name)
            there, notes = to_ismrmrd(changed)
            if name == "noacceleration":
                assert notes == [
                    "header: " + _shown(path) + " has a value that an ISMRMRD header cannot have; it is not used"
                ]
                changed = _with(whole, path, None)
            else:
                assert not notes
            assert leaves(to_mrd2(there)[0]) == leaves(changed), (path, name)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _shown(path: str) -> str:
    return "encoding/parallelImaging/calibrationMode" if "calibrationMode" in path else path


def _paths_of_terms(value: Any, element: Type, path: str = "") -> Iterator[tuple[str, Enumeration]]:
    if isinstance(element, Option | Vector):
        element = element.element
    if isinstance(element, Enumeration):
        yield path, element
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _paths_of_terms(part, element, f"{path}/{number}")
    elif isinstance(element, Record):
        for name, own in element.fields:
            yield from _paths_of_terms(value[name], own, f"{path}/{name}")


def _with(value: Any, path: str, new: Any) -> Any:
    found = without(value, path)
    *parents, last = path.strip("/").split("/")
    part = found
    for name in parents:
        part = part[int(name)] if isinstance(part, list) else part[name]
    part[last] = new
    return found


def test_numbers_keep_the_digits_they_were_written_with() -> None:
    """5.2 mm are 5.199999809265137 in 32 bits, which is no thickness of a slice."""
    text = header(encoded_extent=(440, 220, 5.2), recon_extent=(220, 220, 5.2))
    fields = xsd.CreateFromDocument(text.encode())
    back, _ = to_ismrmrd(to_mrd2(fields)[0])
    assert back.encoding[0].encodedSpace.fieldOfView_mm.z == 5.2
    for_binary = filled(RECORD)
    for_binary["encoding"][0]["encodedSpace"]["fieldOfViewMm"]["z"] = 5.199999809265137
    assert to_ismrmrd(for_binary)[0].encoding[0].encodedSpace.fieldOfView_mm.z == 5.2


def test_values_that_xml_cannot_have_cost_no_scan() -> None:
    value = to_mrd2(xsd.CreateFromDocument(header().encode()))[0]
    value["subjectInformation"]["patientName"] = "A\0B\x1b^C\ufffe"
    value["studyInformation"]["studyDate"] = 10**9
    value["studyInformation"]["studyTime"] = -5
    notes: list[str] = []
    found = read_header("it", header_xml(value, RECORD, notes))
    assert found.fields.subjectInformation.patientName == "A B ^C "
    assert found.fields.studyInformation.studyDate is None and found.fields.studyInformation.studyTime is None
    assert notes == [
        f"header: studyInformation/{name} has a value that an ISMRMRD header cannot have; it is not used"
        for name in ("studyDate", "studyTime")
    ]


def test_bytes_stay_base64() -> None:
    value = xsd.userParameterBase64Type(name="it", value=b"\0\1\2")
    fields = xsd.CreateFromDocument(header().encode())
    fields.userParameters = xsd.userParametersType(userParameterBase64=[value])
    there, _ = to_mrd2(fields)
    (found,) = there["userParameters"]["userParameterBase64"]
    assert found == {"name": "it", "value": base64.b64encode(b"\0\1\2").decode()}
    assert to_ismrmrd(there)[0].userParameters.userParameterBase64 == [value]


def test_a_field_of_a_newer_version_is_told() -> None:
    newer = Record("Header", (*RECORD.fields, ("magnetColour", RECORD.types["version"])))
    value = filled(newer)
    notes: list[str] = []
    assert b"magnetColour" not in header_xml(value, newer, notes)
    assert notes == ["header: magnetColour has no place in an ISMRMRD header; it is not used"]
    notes.clear()
    assert mrd2_header(to_ismrmrd(filled(RECORD))[0], newer, notes)["magnetColour"] is None and not notes
