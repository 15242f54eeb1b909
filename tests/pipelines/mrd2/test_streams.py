"""MRD 2 streams, byte by byte: as the library of MRD 2 reads and writes them, and as nobody should."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import ismrmrd
import mrd
import numpy as np
import pytest

from gadgets.stream import ReconError
from pipelines.mrd2.images import mrd2_image
from pipelines.mrd2.schema import Schema, read_schema
from pipelines.mrd2.sink import Sink
from pipelines.mrd2.source import Damaged, FileSource, Source, StreamEnds
from pipelines.mrd2.streams import Mrd2Reader, Mrd2Writer
from pipelines.mrd2.types import Record
from tests.pipelines.mrd2.streams import INSTALLED, VERSIONS, filled, images, reader, stream
from tests.raw_files import header, kspace, lines

SMALL = kspace(samples=(16, 8))
each_version = pytest.mark.parametrize("schema", VERSIONS.values(), ids=VERSIONS)


def all_items(schema: Schema) -> bytes:
    """A stream with a filled and an empty item of every kind."""
    found = io.BytesIO()
    writer = Mrd2Writer(Sink(found.write), schema, filled(schema.header))
    for tag, element in schema.item.cases:
        assert element is not None
        for value in (filled(element), element.empty()):
            if tag.lower() not in {"recondata", "imagearray"}:  # arrays of records
                writer.write(tag, value)
    writer.end()
    return found.getvalue()


def of_library(content: bytes) -> bytes:
    """The stream as MRD 2's own library reads it and writes it again."""
    found = io.BytesIO()
    with mrd.BinaryMrdReader(io.BytesIO(content)) as opened, mrd.BinaryMrdWriter(found) as writer:
        writer.write_header(opened.read_header())
        for item in opened.read_data():
            writer.write_data(iter([item]))
    return found.getvalue()


def test_the_library_writes_the_same_bytes() -> None:
    """All kinds of items and all fields: what is written here is what it reads and writes."""
    content = all_items(INSTALLED)
    assert of_library(content) == content
    scan = stream(header(), lines(SMALL))
    assert of_library(scan) == scan


def test_the_library_says_the_same_of_a_line() -> None:
    (written,) = lines(SMALL, [3], contrast=2, sample_time_us=2.5)
    with mrd.BinaryMrdReader(io.BytesIO(stream(header(), [written]))) as opened:
        opened.read_header()
        (item,) = opened.read_data()
    head = item.value.head
    assert (head.idx.contrast, head.idx.slice) == (2, 0)
    assert getattr(head.idx, "kspaceEncodeStep1", None) or head.idx.kspace_encode_step_1 == 3
    assert head.flags.value == written.flags and np.array_equal(item.value.data, written.data)


@each_version
def test_all_items_are_read_and_passed_over_alike(schema: Schema) -> None:
    content = all_items(schema)
    wanted = {tag.lower() for tag, _ in schema.item.cases}
    opened, passing = reader(content), reader(content)
    found = list(opened.items(wanted, {}))
    passed: dict[str, int] = {}
    assert not list(passing.items((), passed))
    assert opened.complete and passing.complete
    assert sum(passed.values()) == len(found) and set(passed) == {tag for tag, _, _ in found}
    for tag, value, _ in found[::2]:
        element = schema.case(tag)
        if element is not None:
            again, before = io.BytesIO(), io.BytesIO()
            for target, one in ((again, value), (before, filled(element))):
                sink = Sink(target.write)
                element.write(sink, one)
                sink.flush()
            assert again.getvalue() == before.getvalue(), tag


@each_version
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32", "float64", "complex64", "complex128"])
def test_images_of_every_type(schema: Schema, dtype: str) -> None:
    pixels = np.arange(24, dtype=dtype).reshape(1, 2, 3, 4)
    image = ismrmrd.Image.from_array(pixels, transpose=False)
    head = image.getHead()
    for number, (name, kind) in enumerate(head._fields_):
        if name in {"data_type", "channels", "matrix_size", "attribute_string_len", "version", "image_type"}:
            continue
        field = getattr(head, name)
        if hasattr(field, "_length_"):
            field[:] = [number * 10 + place for place in range(len(field))]
        else:
            setattr(head, name, kind(number + 1).value)
    head.image_type = ismrmrd.IMTYPE_PHASE
    image.setHead(head)
    image.attribute_string = ismrmrd.Meta({"GenreconMethod": "x", "list": ["1", "a<b"]}).serialize()
    written = io.BytesIO()
    writer = Mrd2Writer(Sink(written.write), schema, None)
    writer.write(*mrd2_image(image, schema))
    writer.end()
    (found,) = images(written.getvalue())
    assert found["data"].dtype == pixels.dtype and np.array_equal(found["data"], pixels)
    names = {"colDir": "read_dir", "lineDir": "phase_dir", "sliceDir": "slice_dir", "fieldOfView": "field_of_view"}
    names |= {
        name: name for name in ("position", "flags", "average", "slice", "contrast", "phase", "repetition", "set")
    }
    names |= {"measurementUid": "measurement_uid", "patientTablePosition": "patient_table_position"}
    names |= {"imageIndex": "image_index", "imageSeriesIndex": "image_series_index"}
    names |= {"userInt": "user_int", "userFloat": "user_float"}
    for name, own in names.items():
        assert np.array_equal(found[name], getattr(head, own)), name
    stamp = found.get("acquisitionTimeStampNs", found.get("acquisitionTimeStamp"))
    assert stamp in {head.acquisition_time_stamp, head.acquisition_time_stamp * 10**6}
    assert len(found.get("physiologyTimeStampNs", found.get("physiologyTimeStamp"))) == 3
    assert found["imageType"] == "phase"
    texts = {name: [one[1] if isinstance(one, tuple) else one for one in part] for name, part in found["meta"].items()}
    assert texts == {"GenreconMethod": ["x"], "list": ["1", "a<b"]}
    kinds = {"head", "data", "meta", "physiologyTimeStamp", "physiologyTimeStampNs"}
    kinds |= {"acquisitionTimeStamp", "acquisitionTimeStampNs", "imageType"}
    assert set(found) == {*names, *(kinds & set(found))}  # no field was forgotten


CONTENT = stream(header(), lines(SMALL))
BEGIN = CONTENT.index(INSTALLED.text.encode()) + len(INSTALLED.text)


def read_whole(content: bytes, **options: Any) -> int:
    return len(list(reader(content, **options).items({"acquisition"}, {})))


def test_wherever_a_stream_is_cut_it_is_not_taken_for_whole() -> None:
    assert read_whole(CONTENT) == 8
    for end in [0, 3, 7, 12, 500, *range(BEGIN, len(CONTENT), 7), len(CONTENT) - 1]:
        with pytest.raises(ReconError) as caught:
            read_whole(CONTENT[:end])
        assert end < 5 or isinstance(caught.value, StreamEnds), end


def test_bytes_may_come_one_by_one() -> None:
    content = io.BytesIO(CONTENT)
    opened = Mrd2Reader(Source(lambda count: content.read(1)))
    assert len(list(opened.items({"acquisition"}, {}))) == 8 and opened.complete


HUGE = (2**31, 2**40, 2**63, 2**64 - 1)


def varint(value: int) -> bytes:
    found = io.BytesIO()
    sink = Sink(found.write)
    sink.varint(value)
    sink.flush()
    return found.getvalue()


def head_of_a_line() -> bytes:
    """A line up to its data."""
    record = INSTALLED.case("acquisition")
    assert record is not None
    found = io.BytesIO()
    sink = Sink(found.write)
    for name, element in record.fields:
        if name == "data":
            break
        element.write(sink, element.empty())
    sink.flush()
    return found.getvalue()


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize("kind", ["array", "list", "text", "schema"])
def test_memory_is_not_taken_for_a_size_alone(size: int, kind: str) -> None:
    start = CONTENT[:BEGIN] + b"\0"  # without a header
    content = {
        "array": start + b"\1\0" + head_of_a_line() + varint(8) + varint(size),
        "list": CONTENT[:BEGIN] + b"\1" + bytes(4) + b"\1" + varint(size),
        "text": CONTENT[:BEGIN] + b"\1\0\1\1" + varint(size),
        "schema": b"yardl" + struct.pack("<i", 1) + varint(size) + b"{}",
    }[kind] + bytes(1000)
    tracemalloc.start()
    with pytest.raises(ReconError):
        read_whole(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


def test_an_array_may_have_its_limit_and_no_more() -> None:
    data = kspace(samples=(512, 2))  # 4 coils of 512 samples, 16 KiB
    content = stream(header(), lines(data))
    assert read_whole(content, array_mib=1 / 63) == 2
    with pytest.raises(Damaged, match="item 0 has an array of 4 x 512 values; the limit of its arrays is exceeded"):
        read_whole(content, array_mib=1 / 65)


def described(content: Any) -> str:
    return json.dumps(content)


def endless(kind: str) -> str:
    """Schemas that a program without limits would never finish."""
    content = json.loads(INSTALLED.text)
    record: Any = {"name": "Header", "fields": [{"name": "it", "type": "Mrd.Header"}]}
    if kind == "nested":
        record["fields"][0]["type"] = "uint8"
        for _ in range(100):
            record["fields"][0]["type"] = {"vector": {"items": record["fields"][0]["type"]}}
    elif kind == "wide":
        names = [f"T{n}" for n in range(40)]
        twice = [{"name": name, "fields": [{"name": f"f{n}", "type": f"Mrd.{after}"} for n in range(2)]}
                 for name, after in zip(names, [*names[1:], "Nothing"], strict=True)]  # fmt: skip
        content["types"] += [*twice, {"name": "Nothing", "fields": []}]
        record["fields"][0]["type"] = "Mrd.T0"
    elif kind == "fixed":
        record["fields"][0]["type"] = {"vector": {"items": "uint8", "length": 2**40}}
    content["types"] = [one for one in content["types"] if one["name"] != "Header"] + [record]
    return described(content)


@pytest.mark.parametrize("kind", ["itself", "nested", "wide", "fixed"])
def test_schemas_without_end(kind: str) -> None:
    with pytest.raises(Damaged):
        read_schema(endless(kind))


def test_lists_of_nothing_end() -> None:
    """Elements that take no byte could be counted for ever."""
    content = json.loads(INSTALLED.text)
    content["types"] = [one for one in content["types"] if one["name"] != "Header"]
    nothing: Any = {"vector": {"items": {"vector": {"items": "Mrd.Nothing", "length": 200}}}}
    content["types"] += [
        {"name": "Nothing", "fields": []},
        {"name": "Header", "fields": [{"name": "it", "type": nothing}]},
    ]
    text = described(content)
    begin = b"yardl" + struct.pack("<i", 1) + varint(len(text)) + text.encode()
    with pytest.raises(Damaged, match=r"its header has \d+ values in one list or text"):
        reader(begin + b"\1" + varint(2**20 - 1) + bytes(100))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[" * 10**5, "cannot be read"),
        ("[]", "cannot be read"),
        ('{"protocol": {"name": "MrdNoiseCovariance"}}', "a stream of protocol MrdNoiseCovariance, not of Mrd"),
        ('{"protocol": {"name": "<b>"}}', "a stream of protocol unknown, not of Mrd"),
        (INSTALLED.text.replace('"name":"data"', '"name":"other"'), "cannot be read"),
        (INSTALLED.text.replace("complexfloat32", "complexfloat33"), "cannot be read"),
    ],
)
def test_schemas_that_are_none(text: str, message: str) -> None:
    with pytest.raises(Damaged, match=message):
        read_schema(text)


def test_numbers_out_of_range() -> None:
    start = CONTENT[:BEGIN] + b"\0"
    for rest, message in (
        (b"\1\x63", "item 0 is of unknown kind 99"),
        (b"\xff" * 11, "a number of more than 64 bits"),
        (b"\1\0" + varint(0) + b"\1" + varint(2**40), "a number too large for uint32"),
    ):
        with pytest.raises(Damaged, match=message):
            read_whole(start + rest + bytes(50))


def test_another_binary_format() -> None:
    with pytest.raises(Damaged, match="its binary format has version 2, this reads 1"):
        reader(b"yardl" + struct.pack("<i", 2) + bytes(100))


def test_a_place_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.mrd"
    path.write_bytes(CONTENT)
    source = FileSource(path, skip_arrays=True)
    opened = Mrd2Reader(source)
    found = list(opened.items({"acquisition"}, {}))
    assert [value["data"].shape for _, value, _ in found] == [(4, 16)] * 8
    source.skip_arrays = False
    source.go(found[5][2])
    assert np.array_equal(opened.item("acquisition")["data"], SMALL[:, 5])
    source.close()


def test_records_have_no_field_twice() -> None:
    for schema in VERSIONS.values():
        for _, element in schema.item.cases:
            if isinstance(element, Record):
                assert len(element.types) == len(element.fields)
