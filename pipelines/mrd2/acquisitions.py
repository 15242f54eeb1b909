"""Lines of MRD 2 as acquisitions of ISMRMRD, and back.

`docs/mrd2.md` lists the fields that only one of the two has, and where this differs from the converters of MRD 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ismrmrd
import numpy as np

from gadgets.acquisitions import IMAGE_COUNTERS
from gadgets.errors import ReconError
from pipelines.mrd2.fields import COUNTER_FORMS, LINE_FORMS, check_fields
from pipelines.mrd2.types import Record, Type

TAG = "acquisition"  # of lines, in lower case
STAMP_NS = 10**6  # of a tick of ISMRMRD's time stamps, by the converters of MRD 2
LARGEST_COUNTER = 65535
MASK_BITS = 64  # of a word of a channel mask
COUNTERS = {  # of ISMRMRD, by the names of MRD 2
    "kspaceEncodeStep1": "kspace_encode_step_1",
    "kspaceEncodeStep2": "kspace_encode_step_2",
    **{name: name for name in (*IMAGE_COUNTERS, "segment")},
}
_VECTORS = {  # of ISMRMRD, by the names of MRD 2
    "position": "position",
    "readDir": "read_dir",
    "phaseDir": "phase_dir",
    "sliceDir": "slice_dir",
    "patientTablePosition": "patient_table_position",
}


class LineConverter:
    """Converts the lines of one stream.

    Parameters
    ----------
    record : type of a line in the stream's schema

    Attributes
    ----------
    notes : for the user: what of the lines is not used

    Raises
    ------
    Damaged
        The schema describes lines in another way than MRD 2 does.
    """

    def __init__(self, record: Record) -> None:
        self.notes: list[str] = []
        self._is_flat = "head" not in record.types  # MRD 2.0
        head = record.types.get("head", record)
        unknown = check_fields(record, LINE_FORMS, "lines")
        counters = head.types["idx"] if isinstance(head, Record) else None
        if isinstance(counters, Record):
            unknown += check_fields(counters, COUNTER_FORMS, "lines")
        if unknown:
            self.notes.append(f"lines have fields of a newer MRD 2, which are not used: {', '.join(unknown)}")
        self._order: tuple[int, ...] = ()  # channels of the first line
        self._known_orders: dict[tuple[int, ...], list[int] | None] = {}

    def __call__(self, value: dict[str, Any], index: int) -> ismrmrd.Acquisition:
        """One line.

        Parameters
        ----------
        value : as it stands in the stream
        index : its number among the lines of the stream

        Raises
        ------
        ReconError
            It has no samples, a value that ISMRMRD has no place for, phases that nothing defines the use of, or other
            channels than the first line.
        """
        head = self.head(value, index)
        data = np.ascontiguousarray(self._in_order(value, index), np.complex64)
        trajectory = _trajectory(value["trajectory"], head.number_of_samples, index)
        return ismrmrd.Acquisition(head, data, trajectory)

    def head(self, value: dict[str, Any], index: int) -> ismrmrd.AcquisitionHeader:
        """The header of a line alone; parameters and errors as of a line."""
        given = value if self._is_flat else value["head"]
        coils, samples = value["data"].shape
        if not coils * samples:
            raise ReconError(f"line {index} has no samples; leave it out")
        if value.get("phase") is not None and np.any(value["phase"]):
            raise ReconError(
                f"line {index} has phases in addition to its samples, and MRD 2 does not say whether they are in the "
                "samples already; apply them and leave them out"
            )
        head = ismrmrd.AcquisitionHeader()
        head.version = 1
        head.flags = given["flags"]
        head.measurement_uid = given["measurementUid"]
        head.scan_counter = index if given["scanCounter"] is None else given["scanCounter"]
        head.acquisition_time_stamp = _stamp(given, "acquisitionTimeStamp", index)
        stamps = given.get("physiologyTimeStamp")
        if stamps is None:
            stamps = [_ticks(stamp, index) for stamp in given["physiologyTimeStampNs"]]
        self._put(head.physiology_time_stamp, stamps, "physiologyTimeStamp")
        head.number_of_samples = _small(samples, "samples", index)
        head.available_channels = head.active_channels = _small(coils, "coils", index)
        self._add_mask(head, given["channelOrder"], index)
        head.discard_pre = _small(given["discardPre"] or 0, "discardPre", index)
        head.discard_post = _small(given["discardPost"] or 0, "discardPost", index)
        middle = head.discard_pre + max(samples - head.discard_pre - head.discard_post, 0) // 2
        centre = middle if given["centerSample"] is None else given["centerSample"]
        head.center_sample = _small(centre, "centerSample", index)
        head.encoding_space_ref = _small(given["encodingSpaceRef"] or 0, "encodingSpaceRef", index)
        head.trajectory_dimensions = _dimensions(value["trajectory"].shape, samples)
        if "sampleTimeUs" in given:
            head.sample_time_us = given["sampleTimeUs"] or 0.0
        else:
            head.sample_time_us = (given["sampleTimeNs"] or 0) / 1e3
        for name, own in _VECTORS.items():
            getattr(head, own)[:] = given[name].tolist()
        for name, own in COUNTERS.items():
            setattr(head.idx, own, _small(given["idx"][name] or 0, name, index))
        user = given["idx"]["user"]
        if any(user[ismrmrd.USER_INTS :]):
            raise ReconError(f"line {index} has {len(user)} user counters, ISMRMRD has 8; leave out those that follow")
        self._put(head.idx.user, [_small(one, "user", index) for one in user], "user counters")
        self._put(head.user_int, given["userInt"], "userInt")
        self._put(head.user_float, given["userFloat"], "userFloat")
        return head

    def _put(self, target: Any, values: Sequence[Any], what: str) -> None:
        """Copy as many values as there is room for."""
        count = min(len(values), len(target))
        target[:count] = values[:count]
        if any(values[count:]):
            text = f"lines have {len(values)} values of {what}, ISMRMRD has {count}; the others are not used"
            if text not in self.notes and len(self.notes) < 20:
                self.notes.append(text)

    @staticmethod
    def _add_mask(head: Any, order: Sequence[int], index: int) -> None:
        """Set the mask's bits of a line's channels."""
        for channel in order:
            word, bit = divmod(channel, MASK_BITS)
            if word < len(head.channel_mask):
                head.channel_mask[word] |= 1 << bit

    def _in_order(self, value: dict[str, Any], index: int) -> Any:
        """The samples of a line, (coil, sample), with the channels in the order of the first line."""
        given = value if self._is_flat else value["head"]
        order, data = tuple(given["channelOrder"]), value["data"]
        if len(set(order)) != len(data):
            return data  # it says nothing of the channels
        self._order = self._order or order
        if order == self._order:
            return data
        if order not in self._known_orders:
            if len(order) != len(self._order):
                rows = None
            elif set(order) != set(self._order):
                raise ReconError(f"line {index} is of other channels than the first line; leave out those of one set")
            else:
                rows = [order.index(channel) for channel in self._order]
            self._known_orders[order] = rows
        rows = self._known_orders[order]
        return data if rows is None else data[rows]


def _small(value: int, what: str, index: int) -> int:
    """A number that ISMRMRD keeps in 16 bits."""
    if not 0 <= value <= LARGEST_COUNTER:
        raise ReconError(f"line {index} has {what} {value}, the most is {LARGEST_COUNTER}; correct that line")
    return int(value)


def _ticks(nanoseconds: int, index: int) -> int:
    ticks = round(nanoseconds / STAMP_NS)
    if ticks >= 1 << 32:
        raise ReconError(f"line {index} has a time stamp of {nanoseconds} ns, more than 49 days; correct that line")
    return ticks


def _stamp(given: dict[str, Any], name: str, index: int) -> int:
    if name in given:
        return int(given[name] or 0)
    return _ticks(given[f"{name}Ns"] or 0, index)


def _dimensions(shape: tuple[int, ...], samples: int) -> int:
    """Dimensions of a trajectory, (dimension, sample); (sample, dimension), as MRD 2's Python converter writes it."""
    dimensions = shape[0] if shape[1] == samples else shape[1]
    return int(dimensions) if shape[0] * shape[1] else 0


def _trajectory(values: Any, samples: int, index: int) -> Any:
    """The trajectory of a line as ISMRMRD has it, (sample, dimension); None without."""
    if not values.size:
        return None
    if samples not in values.shape or _dimensions(values.shape, samples) > LARGEST_COUNTER:
        raise ReconError(
            f"line {index} has a trajectory of {values.shape[0]} x {values.shape[1]} values and {samples} samples; "
            "correct or leave it out"
        )
    return np.ascontiguousarray(values.T if values.shape[1] == samples else values, np.float32)


def mrd2_line(acquisition: ismrmrd.Acquisition, record: Record) -> dict[str, Any]:
    """The fields of a line of MRD 2.

    Parameters
    ----------
    acquisition : of ISMRMRD
    record : type of a line in a stream's schema
    """
    head = acquisition.getHead()
    values = {
        "flags": head.flags,
        "idx": {
            **{name: getattr(head.idx, own) for name, own in COUNTERS.items()},
            "user": list(head.idx.user),
        },
        "measurementUid": head.measurement_uid,
        "scanCounter": head.scan_counter,
        "acquisitionCenterFrequency": None,
        "acquisitionTimeStamp": head.acquisition_time_stamp,
        "acquisitionTimeStampNs": head.acquisition_time_stamp * STAMP_NS,
        "physiologyTimeStamp": list(head.physiology_time_stamp),
        "physiologyTimeStampNs": [stamp * STAMP_NS for stamp in head.physiology_time_stamp],
        "channelOrder": _channels(head),
        "discardPre": head.discard_pre,
        "discardPost": head.discard_post,
        "centerSample": head.center_sample,
        "encodingSpaceRef": head.encoding_space_ref,
        "sampleTimeUs": head.sample_time_us,
        "sampleTimeNs": round(head.sample_time_us * 1e3),
        **{name: np.array(getattr(head, own), np.float32) for name, own in _VECTORS.items()},
        "userInt": list(head.user_int),
        "userFloat": list(head.user_float),
        "data": acquisition.data,
        "phase": None,
        "trajectory": acquisition.traj.T if acquisition.traj.size else np.zeros((0, 0), np.float32),
    }
    return fields_of(values, record)


def _channels(head: Any) -> list[int]:
    """The channels of a line: those of its mask where that has as many, else from 0 on."""
    mask = sum(word << MASK_BITS * place for place, word in enumerate(head.channel_mask))
    masked = [channel for channel in range(mask.bit_length()) if mask >> channel & 1]
    return masked if len(masked) == head.active_channels else list(range(head.active_channels))


def fields_of(values: dict[str, Any], record: Record) -> dict[str, Any]:
    """Those of some values that a record has; what it has besides them says nothing. MRD 2.0 has no `head`."""

    def value(name: str, element: Type) -> Any:
        if name == "head" and isinstance(element, Record):
            return fields_of(values, element)
        return values[name] if name in values else element.empty()

    return {name: value(name, element) for name, element in record.fields}
