"""Readouts, collected into buckets."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ismrmrd
from gadgetron.types import AcquisitionBucket
from gadgetron.types.acquisition_bucket import AcquisitionBucketStats

from gadgets.acquisition_flags import (
    counts_text,
    is_calibration,
    is_calibration_only,
    is_for_images,
    is_noise,
    kind_left_out,
)
from gadgets.acquisitions import COUNTERS, calibration_mode, counter_of, encoding_of
from gadgets.stream import Gadget, ReconError, parameter

log = logging.getLogger("genrecon")

_DIMENSIONS = (*COUNTERS, *(f"user_{index}" for index in range(8)), "n_acquisitions", "none", "")


class AcquisitionAccumulateTriggerGadget(Gadget):
    """Collects acquisitions into buckets, by `sorting_dimension`, until `trigger_dimension` changes.

    Unlike the C++ gadget it can send a slice's bucket as soon as that slice is complete
    (`release_complete_slices`; a real Gadgetron ignores the property): the first image is out before the scan ends,
    and memory does not grow with the number of slices. A slice is complete at a line flagged ACQ_LAST_IN_SLICE whose
    average, contrast, phase and set are the header's last ones, in a 2D encoding sorted by slice; with separate or
    external calibration, calibration lines of that slice must have come before in the same repetition. Calibration
    lines that come after that are left out. So are all readouts that are no line of an image
    (`gadgets.acquisition_flags`), of which the C++ gadget takes many for imaging or calibration lines. Lines with both
    calibration flags serve for both; in the C++ gadget they are for calibration only.
    """

    @dataclass(frozen=True)
    class Parameters:
        trigger_dimension: str = parameter("none", "counter whose change sends the buckets", choices=_DIMENSIONS)
        sorting_dimension: str = parameter("none", "counter that sorts lines into buckets", choices=_DIMENSIONS)
        n_acquisitions_before_trigger: int = parameter(40, "lines before the first trigger", minimum=1)
        n_acquisitions_before_ongoing_trigger: int = parameter(40, "lines before later triggers", minimum=1)
        release_complete_slices: bool = parameter(True, "send a slice when its last line has come")
        verbose: bool = parameter(False, "accepted for Gadgetron; not used", same_image=True)

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        trigger, sorting = self.parameters.trigger_dimension, self.parameters.sorting_dimension
        early = self.parameters.release_complete_slices and sorting == "slice"
        early = early and trigger in {"repetition", "none", ""}
        buckets: dict[int, list[ismrmrd.Acquisition]] = defaultdict(list)
        waveforms: list[Any] = []
        released: set[int] = set()
        calibrated: set[int] = set()
        left_out: Counter[str] = Counter()
        late = 0
        ends = _SliceEnds()
        previous: int | None = None
        count, target = 0, self.parameters.n_acquisitions_before_trigger

        def send() -> Iterator[AcquisitionBucket]:
            for index in sorted(buckets):
                yield _bucket(buckets.pop(index), waveforms)
                waveforms.clear()
            released.clear()
            calibrated.clear()

        for item in items:
            if isinstance(item, ismrmrd.Waveform):
                waveforms.append(item)
                continue
            if not isinstance(item, ismrmrd.Acquisition):
                yield item
                continue
            if not is_for_images(item):
                if not is_noise(item):
                    left_out[kind_left_out(item)] += 1
                    ends.add_end(item)
                continue
            ends.add(item)
            value = counter_of(item, trigger)
            if trigger != "n_acquisitions" and previous is not None and value != previous:
                yield from send()
            previous = value
            index = counter_of(item, sorting)
            if index in released and is_calibration_only(item):
                late += 1
                continue
            if index in released:
                raise ReconError(
                    f"gadget AcquisitionAccumulateTriggerGadget: a line of slice {index} came after its "
                    "ACQ_LAST_IN_SLICE; set its property release_complete_slices to false"
                )
            buckets[index].append(item)
            if is_calibration(item):
                calibrated.add(index)
            if early and self._completes_slice(item, index in calibrated):
                yield _bucket(buckets.pop(index), waveforms)
                waveforms.clear()
                released.add(index)
            count += 1
            if trigger == "n_acquisitions" and count >= target:
                yield from send()
                count, target = 0, self.parameters.n_acquisitions_before_ongoing_trigger
        yield from send()
        for text in ends.doubts(self.header):
            log.warning("%s: %s; the scan may be incomplete", self.name, text)
        if left_out:
            log.warning("%s: %s are left out", self.name, counts_text(left_out))
        if late:
            log.warning(
                "%s: %d calibration lines came after their slice was complete and are left out; set its property "
                "release_complete_slices to false to use them",
                self.name,
                late,
            )

    def _completes_slice(self, item: ismrmrd.Acquisition, calibrated: bool) -> bool:
        if not item.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE) or is_calibration_only(item):
            return False
        encoding = encoding_of(self.header, item)
        limits = encoding.encodingLimits
        if calibration_mode(encoding) in {"separate", "external"} and not calibrated:
            return False

        def last(name: str) -> bool:
            limit = getattr(limits, name)
            return int(getattr(item.idx, name)) == (limit.maximum if limit else 0)

        names = ["average", "contrast", "phase", "set"]
        if self.parameters.trigger_dimension != "repetition":
            names.append("repetition")
        return len(self.header.encoding) == 1 and encoding.encodedSpace.matrixSize.z == 1 and all(map(last, names))


class _SliceEnds:
    """Which slices of which repetitions came, and came to their end in a scan that flags these ends."""

    def __init__(self) -> None:
        self._slices: dict[tuple[int, int, int], bool] = {}
        self._flagged = False

    def add(self, item: ismrmrd.Acquisition) -> None:
        """Take a line into account."""
        if is_calibration_only(item):
            return  # it may come after the end of its slice
        key = (item.encoding_space_ref, item.idx.slice, item.idx.repetition)
        last = item.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE)
        self._flagged = self._flagged or last or item.is_flag_set(ismrmrd.ACQ_FIRST_IN_SLICE)
        self._slices[key] = self._slices.get(key, False) or last

    def add_end(self, item: ismrmrd.Acquisition) -> None:
        """Take a readout into account that is no line, but may have the flag of its slice's end."""
        key = (item.encoding_space_ref, item.idx.slice, item.idx.repetition)
        if key in self._slices and item.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE):
            self._slices[key] = True

    def doubts(self, header: Any) -> Iterator[str]:
        """One text for each thing that seems to be missing."""
        missing = sum(not ended for ended in self._slices.values()) if self._flagged else 0
        if missing:
            yield f"{missing} of {len(self._slices)} slices have no line flagged ACQ_LAST_IN_SLICE"
        for number, encoding in enumerate(header.encoding):
            limit = encoding.encodingLimits.slice
            came = len({index for space, index, _ in self._slices if space == number})
            if limit is not None and 0 < came <= limit.maximum - limit.minimum:
                yield f"{came} of {limit.maximum - limit.minimum + 1} slices of the header came"


def _bucket(acquisitions: list[ismrmrd.Acquisition], waveforms: list[Any]) -> AcquisitionBucket:
    data, ref = [], []
    for item in acquisitions:
        if is_calibration(item):
            ref.append(item)
        if not is_calibration_only(item):
            data.append(item)
    return AcquisitionBucket(data, _stats(data), ref, _stats(ref), list(waveforms))


def _stats(acquisitions: list[ismrmrd.Acquisition]) -> list[AcquisitionBucketStats]:
    spaces = 1 + max((item.encoding_space_ref for item in acquisitions), default=-1)
    values: list[dict[str, set[int]]] = [{name: set() for name in COUNTERS} for _ in range(spaces)]
    for item in acquisitions:
        for name in COUNTERS:
            values[item.encoding_space_ref][name].add(int(getattr(item.idx, name)))
    return [AcquisitionBucketStats(**space) for space in values]
