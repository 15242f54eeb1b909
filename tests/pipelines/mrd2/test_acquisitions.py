"""Lines of MRD 2 and acquisitions of ISMRMRD: every field and every flag, there and back."""

from __future__ import annotations

import ctypes
from itertools import count
from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.stream import ReconError
from pipelines.mrd2.acquisitions import LineConverter, mrd2_line
from pipelines.mrd2.header import plain
from pipelines.mrd2.types import Enumeration, Record
from tests.pipelines.mrd2.streams import VERSIONS, filled, leaves
from tests.raw_files import kspace, lines

# Fields of ISMRMRD that MRD 2 keeps elsewhere, or not at all. docs/mrd2.md says why.
DERIVED = {
    "version": 1,  # of the layout in memory
    "number_of_samples": 6,  # of the data
    "active_channels": 3,
    "trajectory_dimensions": 2,  # of the trajectory
    "available_channels": 3,  # MRD 2 has only those of the data
}
NO_PLACE = {"acquisitionCenterFrequency", "phase"}  # of MRD 2: ISMRMRD has none for them
RECORDS: dict[str, Record] = {version: schema.case("acquisition") for version, schema in VERSIONS.items()}  # type: ignore[misc]
each_version = pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)


def acquisition() -> ismrmrd.Acquisition:
    """All fields of its header are filled, and different."""
    numbers = count(11)
    head = ismrmrd.AcquisitionHeader()

    def fill(part: Any) -> None:
        for name, kind in part._fields_:
            if issubclass(kind, ctypes.Structure):
                fill(getattr(part, name))
            elif issubclass(kind, ctypes.Array):
                values = [next(numbers) + (0.25 if kind._type_ is ctypes.c_float else 0) for _ in range(kind._length_)]
                getattr(part, name)[:] = [int(v) if kind._type_ is not ctypes.c_float else v for v in values]
            else:
                setattr(part, name, next(numbers) + (0.25 if kind is ctypes.c_float else 0))

    fill(head)
    head.channel_mask[:] = [0b1001 << 61, 0b1, *[0] * 14]  # channels 61 and 64 of two words
    head.channel_mask[0] = 1 << 61 | 1 << 3
    head.active_channels, head.number_of_samples, head.trajectory_dimensions = 3, 6, 2
    data = np.arange(18).reshape(3, 6) * (1 + 2j)
    return ismrmrd.Acquisition(head, data.astype(np.complex64), np.arange(12, dtype=np.float32).reshape(6, 2))


def fields_of(head: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in head._fields_:
        value = getattr(head, name)
        if issubclass(kind, ctypes.Structure):
            found |= {f"{name}.{own}": part for own, part in fields_of(value).items()}
        else:
            found[name] = list(value) if issubclass(kind, ctypes.Array) else value
    return found


@each_version
def test_all_fields_of_ismrmrd_come_back(record: Record) -> None:
    before = acquisition()
    converter = LineConverter(record)
    after = converter(mrd2_line(before, record), 0)
    wanted = fields_of(before.getHead()) | DERIVED
    assert fields_of(after.getHead()) == wanted
    assert np.array_equal(after.data, before.data) and np.array_equal(after.traj, before.traj)
    assert not converter.notes


@each_version
def test_all_fields_of_mrd2_come_back(record: Record) -> None:
    value = filled(record)
    for name in NO_PLACE:
        for part in (value, value.get("head", {})):
            if name in part:
                part[name] = None
    stamps = value.get("head", value)
    for name in ("acquisitionTimeStampNs", "physiologyTimeStampNs"):
        if name in stamps:
            stamps[name] = np.multiply(stamps[name], 10**6).tolist()
    back = mrd2_line(LineConverter(record)(value, 0), record)
    padded = {"physiologyTimeStamp": 3, "physiologyTimeStampNs": 3, "user": 8, "userInt": 8, "userFloat": 8}
    for part in (stamps, stamps["idx"]):
        for name in part:
            if plain(name) in map(plain, padded):
                part[name] = [*part[name], *[0] * (padded[name] - len(part[name]))]
    found, wanted = leaves(back), leaves(value)
    assert set(found) == set(wanted)
    for path, one in wanted.items():
        assert np.array_equal(found[path], one), path


def test_fields_without_a_place_are_these_alone() -> None:
    known = {plain(name) for name, _ in ismrmrd.AcquisitionHeader._fields_}
    counters = {plain(name) for name, _ in ismrmrd.EncodingCounters._fields_}
    for record in RECORDS.values():
        head = record.types.get("head", record)
        assert isinstance(head, Record)
        idx = head.types["idx"]
        assert isinstance(idx, Record)
        assert {plain(name) for name in idx.types} == counters
        names = {*head.types, *record.types} - {"head", "data", "trajectory"}
        spelled = {plain(name).removesuffix("ns") for name in names} - {plain("sampleTimeUs")}
        assert spelled - known - {"sampletime"} - {plain(name) for name in NO_PLACE} == {"channelorder"}


def test_every_flag() -> None:
    record = RECORDS["2.2"]
    head = record.types["head"]
    assert isinstance(head, Record)
    flags = head.types["flags"]
    assert isinstance(flags, Enumeration)
    named = {plain(name): value for value, name in flags.names.items()}
    standard = {
        plain(name.removeprefix("ACQ_")): 1 << getattr(ismrmrd, name) - 1
        for name in dir(ismrmrd)
        if name.startswith("ACQ_") and getattr(ismrmrd, name) <= 31
    }
    assert {name.replace("encodestep1", "encodestep1"): value for name, value in named.items()} == standard
    line = lines(kspace(samples=(16, 8)))[0]
    for bit in range(64):
        line.flags = 1 << bit
        value = mrd2_line(line, record)
        assert value["head"]["flags"] == 1 << bit
        assert LineConverter(record)(value, 0).flags == 1 << bit


def value_of(record: Record = RECORDS["2.2"], samples: int = 16, **changes: Any) -> dict[str, Any]:
    value = mrd2_line(lines(kspace(samples=(samples, 8)))[0], record)
    for name, new in changes.items():
        (value if name in value else value["head"])[name] = new
    return value


def test_what_a_line_does_not_say() -> None:
    record = RECORDS["2.2"]
    value = record.empty() | {"data": np.ones((2, 20), np.complex64)}
    head = LineConverter(record).head(value, 7)
    assert (head.center_sample, head.scan_counter, head.encoding_space_ref, head.trajectory_dimensions) == (10, 7, 0, 0)
    assert (head.sample_time_us, head.acquisition_time_stamp, list(head.idx.user)) == (0, 0, [0] * 8)
    value["head"] |= {"discardPre": 6, "discardPost": 2}
    assert LineConverter(record).head(value, 7).center_sample == 12  # the middle of samples 6 to 17


def test_times() -> None:
    """The converters of MRD 2 take a tick for a millisecond, and cut nanoseconds off where these are rounded here."""
    record = RECORDS["2.2"]
    line = lines(kspace(samples=(16, 8)), acquisition_time_stamp=14_400_000, sample_time_us=2.6)[0]
    head = mrd2_line(line, record)["head"]
    assert head["acquisitionTimeStampNs"] == 14_400_000_000_000
    assert head["sampleTimeNs"] == 2600  # 2.6 in 32 bits is below that
    back = LineConverter(record)(value_of(sampleTimeNs=2600, acquisitionTimeStampNs=5_999_999), 0)
    assert back.sample_time_us == np.float32(2.6) and back.acquisition_time_stamp == 6


def test_a_trajectory_as_the_python_converter_writes_it() -> None:
    """It leaves (sample, dimension) as it was, where MRD 2 says (dimension, sample)."""
    points = np.arange(48, dtype=np.float32).reshape(16, 3)
    for given in (points, points.T):
        found = LineConverter(RECORDS["2.1"])(value_of(RECORDS["2.1"], trajectory=given), 0)
        assert np.array_equal(found.traj, points)
    with pytest.raises(ReconError, match="line 3 has a trajectory of 5 x 7 values and 16 samples"):
        LineConverter(RECORDS["2.1"])(value_of(RECORDS["2.1"], trajectory=np.ones((5, 7), np.float32)), 3)


def test_channels_in_another_order() -> None:
    converter = LineConverter(RECORDS["2.2"])
    value = value_of()
    data = value["data"]
    value["head"]["channelOrder"] = [5, 1, 9, 2]
    assert np.array_equal(converter(value, 0).data, data)
    value = value_of(channelOrder=[1, 5, 2, 9], data=data[[1, 0, 3, 2]])
    assert np.array_equal(converter(value, 1).data, data)
    mask = converter(value, 1).getHead().channel_mask[0]
    assert mask == 1 << 1 | 1 << 5 | 1 << 2 | 1 << 9
    for silent in ([], [0, 0, 0, 0], [1, 2]):
        assert np.array_equal(converter(value_of(channelOrder=silent), 2).data, data)
    with pytest.raises(ReconError, match="line 3 is of other channels than the first line"):
        converter(value_of(channelOrder=[5, 1, 9, 3]), 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"idx": {**value_of()["head"]["idx"], "kspaceEncodeStep1": 65536}},
            "kspaceEncodeStep1 65536, the most is 65535",
        ),
        ({"idx": {**value_of()["head"]["idx"], "user": [0] * 8 + [1]}}, "9 user counters, ISMRMRD has 8"),
        ({"encodingSpaceRef": 70000}, "encodingSpaceRef 70000, the most is 65535"),
        ({"centerSample": 65536}, "centerSample 65536, the most is 65535"),
        ({"acquisitionTimeStampNs": 2**63}, "a time stamp of 9223372036854775808 ns, more than 49 days"),
        ({"data": np.ones((0, 16), np.complex64)}, "has no samples"),
        ({"data": np.ones((1, 65536), np.complex64)}, "samples 65536, the most is 65535"),
        ({"phase": np.ones(16, np.float32)}, "phases in addition to its samples, and MRD 2 does not say"),
    ],
)
def test_lines_that_cannot_be_kept(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ReconError, match=f"line 4 has .*{message}|line 4 {message}"):
        LineConverter(RECORDS["2.2"])(value_of(**changes), 4)


def test_values_beyond_those_of_ismrmrd_are_told_once() -> None:
    converter = LineConverter(RECORDS["2.2"])
    for index in range(3):
        found = converter(value_of(userInt=list(range(12)), physiologyTimeStampNs=[0] * 7), index)
        assert list(found.user_int) == list(range(8))
    assert converter.notes == ["lines have 12 values of userInt, ISMRMRD has 8; the others are not used"]


def test_a_field_of_a_newer_version_is_told() -> None:
    record = RECORDS["2.2"]
    newer = Record("Acquisition", (*record.fields, ("colour", record.types["data"])))
    assert LineConverter(newer).notes == ["lines have fields of a newer MRD 2, which are not used: colour"]


def test_fields_that_are_missing_or_something_else() -> None:
    record = RECORDS["2.1"]
    for name, _ in record.fields:
        if name != "head":
            lacking = Record("Acquisition", tuple(field for field in record.fields if field[0] != name))
            with pytest.raises(ReconError, match=f"its schema describes {name} of lines in another way than MRD 2.0"):
                LineConverter(lacking)
    swapped = {"data": record.types["trajectory"], "trajectory": record.types["data"], "head": record.types["data"]}
    for name, element in swapped.items():
        fields = tuple((own, element if own == name else other) for own, other in record.fields)
        with pytest.raises(ReconError, match=r"its schema describes \w+ of lines in another way"):
            LineConverter(Record("Acquisition", fields))
