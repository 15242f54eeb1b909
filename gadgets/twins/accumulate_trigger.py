"""Readouts, collected into buckets."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ismrmrd
from gadgetron.types import AcquisitionBucket
from gadgetron.types.acquisition_bucket import AcquisitionBucketStats

from gadgets.acquisition_flags import (
    is_calibration,
    is_calibration_only,
    is_for_images,
    is_noise,
    kind_left_out,
    left_out_text,
)
from gadgets.acquisitions import COUNTERS, counter_of
from gadgets.stream import Gadget, parameter
from gadgets.twins.completeness import WITHIN_IMAGES, Bucket, ChangeEnds, StreamedEnds, SurveyedEnds, place_of

log = logging.getLogger("genrecon")

_DIMENSIONS = (*COUNTERS, *(f"user_{index}" for index in range(8)), "n_acquisitions", "none", "")


class AcquisitionAccumulateTriggerGadget(Gadget):
    """Collects acquisitions into buckets, by `sorting_dimension`, until `trigger_dimension` changes.

    Where it differs from the C++ gadget:

    - A change of `trigger_dimension` sends what is complete. The rest is held for lines that come later, so that a
      repetition that is an inner loop has all of its lines; the C++ gadget makes a bucket of each line. What is
      complete is known exactly in a replay (`survey`), in a stream from what came so far (`StreamedEnds`). Only
      counters that change within an image (phase encodings and segments) send all, as in the C++ gadget.
    - A slice's bucket goes out as soon as the slice is complete (`release_complete_slices`; a real Gadgetron ignores
      the property): the first image is out before the scan ends, and memory does not grow with the number of slices. In
      a stream it is complete at a line flagged ACQ_LAST_IN_SLICE, whose average, contrast, phase, set and segment are
      the header's last ones, when it has about as many lines as the header lets expect, in a 2D encoding sorted by
      slice; with separate or external calibration, calibration lines of that slice must have come before in the same
      repetition. Calibration lines that come after that are left out. After any other line the slice is sent again.
    - All readouts that are no line of an image (`gadgets.acquisition_flags`) are left out, of which the C++ gadget
      takes many for imaging or calibration lines. Lines with both calibration flags serve for both; in the C++ gadget
      they are for calibration only.
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
        by_count = trigger == "n_acquisitions"
        early = self.parameters.release_complete_slices and sorting == "slice"
        early = early and trigger in {"repetition", "none", ""}
        if by_count or trigger in WITHIN_IMAGES:
            ends = ChangeEnds()
        elif self.survey is not None:
            ends = SurveyedEnds(self.survey, trigger, sorting)
        else:
            ends = StreamedEnds(self.header, trigger)
        held: dict[int, dict[int, Bucket]] = {}  # by values of the trigger's counter and of the sorting one
        waveforms: list[Any] = []
        released: set[tuple[int, int]] = set()  # slices that were sent early
        slice_ends = _SliceEnds()
        left_out: Counter[str] = Counter()
        late = run = count = 0
        target = self.parameters.n_acquisitions_before_trigger
        previous: int | None = None

        def send(value: int, *indices: int) -> Iterator[AcquisitionBucket]:
            for index in indices or sorted(held[value]):
                bucket = held[value].pop(index)
                ends.sent((value, index), bucket)
                yield _bucket(bucket.lines, waveforms)
                waveforms.clear()
            if not held[value]:
                del held[value]

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
                    slice_ends.add_end(item)
                continue
            slice_ends.add(item)
            value, index = key = counter_of(item, trigger), counter_of(item, sorting)
            place = place_of(item, trigger)
            if previous is not None and value != previous:
                run += 1
                released.clear()
                for ended in ends.values_ended(previous, held):
                    yield from send(ended)
            previous = value
            if any(bucket.run < run for bucket in held.get(value, {}).values()):
                ends.came_again()
            found = held.get(value, {}).get(index)
            if found and found.run < run and place in found.places and ends.whole(key, found):
                yield from send(value, index)  # this line begins another image of the same counters
                found = None
            if found is None:
                if self.survey is None and key in released and is_calibration_only(item):
                    late += 1
                    continue
                found = held.setdefault(value, {})[index] = ends.earlier(key, place)
            found.add(item, place, run)
            ends.seen(key, place)
            if early and ends.slice_ended(item, key, found):
                yield from send(value, index)
                released.add(key)
            count += 1
            if by_count and count >= target:
                yield from send(value)
                count, target = 0, self.parameters.n_acquisitions_before_ongoing_trigger
        for value in list(held):
            yield from send(value)
        for text in slice_ends.doubts(self.header):
            log.warning("%s: %s; the scan may be incomplete", self.name, text)
        for text in ends.doubts():
            log.warning("%s: %s", self.name, text)
        if left_out:
            log.warning("%s: %s", self.name, left_out_text(left_out))
        if late:
            log.warning(
                "%s: %d calibration lines came after their slice was complete and are left out; set its property "
                "release_complete_slices to false to use them",
                self.name,
                late,
            )


class _SliceEnds:
    """Which slices of which repetitions came, and came to their end in a scan that flags these ends."""

    def __init__(self) -> None:
        self._slices: dict[tuple[int, int, int], bool] = {}
        self._flagged = False

    def add(self, item: ismrmrd.Acquisition) -> None:
        """Take a line into account."""
        if is_calibration_only(item):
            return  # it may come after the end of its slice
        idx = item.idx
        key = (item.encoding_space_ref, idx.slice, idx.repetition)
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
        idx, own = item.idx, values[item.encoding_space_ref]
        for name in COUNTERS:
            own[name].add(int(getattr(idx, name)))
    return [AcquisitionBucketStats(**space) for space in values]
