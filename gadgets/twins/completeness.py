"""Whether all lines of a bucket have come: from a survey of the scan, or, in a stream, from what came so far."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ismrmrd

from gadgets.acquisition_flags import is_calibration, is_calibration_only
from gadgets.acquisitions import COUNTERS, MERGED_COUNTERS, calibration_mode, encoding_of, signed_step
from gadgets.survey import Survey

Key = tuple[int, int]  # value of the trigger's counter, and of the sorting one
Place = tuple[int, ...]

RETAINED_BYTES = 64 * 2**20  # of lines that were sent: for lines of the same image that come late
REMEMBERED = 256  # buckets that were sent whose places are known
IN_ORDER = 8  # repetitions in a row that never came back: then each ends where the next begins
LEAST_LINES = 4
WITHIN_IMAGES = frozenset(("kspace_encode_step_1", "kspace_encode_step_2", "segment"))  # change within an image
LEAST_FRACTION = 1 / 8  # of the phase encodings, an image's; with fewer it is one line of many loops
ALL_BUT = 7 / 8  # of the phase encodings of a regular pattern: others with its acceleration have about as many
# Limits that span less than this fraction of the matrix say nothing (converters write zeros).
LEAST_SPAN = 0.25


@dataclass
class Bucket:
    """Lines of one value of the trigger's counter and of the sorting one."""

    lines: list[ismrmrd.Acquisition] = field(default_factory=list)
    places: set[Place] = field(default_factory=set)
    run: int = 0  # run of the trigger's counter that its last line came in

    def add(self, line: ismrmrd.Acquisition, place: Place, run: int) -> None:
        """Add a line."""
        self.lines.append(line)
        self.places.add(place)
        self.run = run


def place_of(line: ismrmrd.Acquisition, without: str = "") -> Place:
    """What a line has in common with another one of the same image and the same phase encoding."""
    calibration = is_calibration_only(line)
    idx = line.idx
    counters = (0 if name == without else int(getattr(idx, name)) for name in COUNTERS)
    return (int(line.encoding_space_ref), int(calibration), *counters)


class ChangeEnds:
    """Every bucket ends where the trigger's counter changes, as in a real Gadgetron."""

    def seen(self, key: Key, place: Place) -> None:
        """Take a line into account."""

    def came_again(self) -> None:
        """A value of the trigger's counter that is held came back after another one."""

    def earlier(self, key: Key, place: Place) -> Bucket:
        """The bucket for a line whose bucket is not held: an empty one, or lines of its image that were sent."""
        return Bucket()

    def values_ended(self, value: int, held: Mapping[int, Mapping[int, Bucket]]) -> list[int]:
        """Values of the trigger's counter that are complete, now that `value` was followed by another one."""
        return [*held]

    def slice_ended(self, line: ismrmrd.Acquisition, key: Key, bucket: Bucket) -> bool:
        """Whether a bucket is complete with this line."""
        return False

    def whole(self, key: Key, bucket: Bucket) -> bool:
        """Whether the next line for a place of a bucket that has one begins another image."""
        return False

    def sent(self, key: Key, bucket: Bucket) -> None:
        """A bucket was sent."""

    def doubts(self) -> list[str]:
        """What must be said at the scan's end."""
        return []


class SurveyedEnds(ChangeEnds):
    """Ends of buckets of a scan whose acquisition headers are all known: exact.

    Parameters
    ----------
    survey : of the lines that will come
    trigger, sorting : Gadgetron's names of the counters
    """

    def __init__(self, survey: Survey, trigger: str, sorting: str) -> None:
        self._counters = [
            None if name == trigger else _PLACE_OF[name] for name in MERGED_COUNTERS
        ]  # None: the trigger's own
        self._left = survey.lines(trigger, sorting)
        self._places = survey.places(trigger, sorting)
        self._left_of_image = survey.lines(trigger, sorting, "encoding_space_ref", *MERGED_COUNTERS)
        self._one_space = len(survey.spaces()) == 1
        # By values of the trigger's counter: images of held lines that have lines to come, and values without any.
        self._unfinished: dict[int, set[tuple[int, ...]]] = {}
        self._ended: set[int] = set()

    def seen(self, key: Key, place: Place) -> None:
        """Take a line into account."""
        image = self._image(key, place)
        self._left[key] -= 1
        self._left_of_image[image] -= 1
        unfinished = self._unfinished.setdefault(key[0], set())
        if self._left_of_image[image]:
            unfinished.add(image)
        else:
            unfinished.discard(image)
        self._note(key[0])

    def values_ended(self, value: int, held: Mapping[int, Mapping[int, Bucket]]) -> list[int]:
        """Values of the trigger's counter whose images have all of their lines."""
        self._ended = {number for number in self._ended if number in held}
        return [number for number in held if number in self._ended] if self._ended else []

    def slice_ended(self, line: ismrmrd.Acquisition, key: Key, bucket: Bucket) -> bool:
        """Whether a bucket is complete with this line."""
        return self._one_space and self._left[key] == 0

    def whole(self, key: Key, bucket: Bucket) -> bool:
        """Whether a bucket has a line for each place."""
        return len(bucket.places) >= self._places[key]

    def sent(self, key: Key, bucket: Bucket) -> None:
        """A bucket was sent."""
        value = key[0]
        self._unfinished[value] = {image for image in self._unfinished[value] if image[: len(key)] != key}
        self._note(value)

    def _note(self, value: int) -> None:
        if self._unfinished[value]:
            self._ended.discard(value)
        else:
            self._ended.add(value)

    def _image(self, key: Key, place: Place) -> tuple[int, ...]:
        return (*key, place[0], *(key[0] if at is None else place[at] for at in self._counters))


class StreamedEnds(ChangeEnds):
    """Ends of buckets of a scan that still comes, by flags and by which phase encodings came.

    A bucket that may not be complete is held. Limits of the header only say what to wait for; a value of the trigger's
    counter that comes back was not complete, and from then on all is held to the end. Lines that were sent are kept
    for a while (RETAINED_BYTES): with a late line of the same image the image is made again.

    Parameters
    ----------
    header : ismrmrd.xsd.ismrmrdHeader
    trigger : Gadgetron's name of the counter
    """

    def __init__(self, header: Any, trigger: str) -> None:
        self._header, self._trigger = header, trigger
        self._inner = False  # the trigger's counter is an inner loop, or flags of ends are wrong
        self._in_order = False
        self._sent: OrderedDict[Key, frozenset[Place]] = OrderedDict()
        self._patterns: dict[frozenset[Place], frozenset[Place]] = {}
        self._retained: OrderedDict[Key, list[ismrmrd.Acquisition]] = OrderedDict()
        self._retained_bytes = 0
        self._made_again: set[Key] = set()
        self._on_its_own: set[Key] = set()
        self._repeated: set[Key] = set()

    def earlier(self, key: Key, place: Place) -> Bucket:
        """The bucket that a line goes to whose bucket is not held: lines of the same image that were sent, or none."""
        sent = self._sent.get(key)
        if sent is None:
            return Bucket()
        if place in sent or _image_of(place) not in {_image_of(one) for one in sent}:
            self._repeated.add(key)
            return Bucket()
        self._inner = True
        lines = self._forget(key)
        if lines is None:
            self._on_its_own.add(key)
            return Bucket()
        self._made_again.add(key)
        return Bucket(lines, {place_of(line, self._trigger) for line in lines})

    def values_ended(self, value: int, held: Mapping[int, Mapping[int, Bucket]]) -> list[int]:
        """Values of the trigger's counter that are complete, now that `value` was followed by another one."""
        buckets = held.get(value)
        if self._inner or not buckets or not all(self._averages_came(bucket) for bucket in buckets.values()):
            return []
        if all(self.whole((value, index), bucket) for index, bucket in buckets.items()) or self._flagged_end(buckets):
            return [value]
        if self._trigger not in {"repetition", "slice"}:
            return []
        if not self._in_order and len(held) >= IN_ORDER:
            waiting = [bucket for group in held.values() for bucket in group.values()]
            self._in_order = all(self._enough(bucket) and self._spread(bucket) for bucket in waiting)
        return [*held] if self._in_order and all(map(self._enough, buckets.values())) else []

    def slice_ended(self, line: ismrmrd.Acquisition, key: Key, bucket: Bucket) -> bool:
        """Whether a bucket is complete with this line."""
        if self._inner or not line.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE):
            return False
        encoding = encoding_of(self._header, line)
        own_calibration = calibration_mode(encoding) in {"separate", "external"}
        if is_calibration_only(line):
            return False
        if own_calibration and not any(map(is_calibration, bucket.lines)):
            return False
        names = ["average", "contrast", "phase", "set", "segment"]
        if self._trigger != "repetition":
            names.append("repetition")
        limits = ((getattr(encoding.encodingLimits, name), int(getattr(line.idx, name))) for name in names)
        last = all(value >= (limit.maximum if limit else 0) for limit, value in limits)
        partitions = encoding.encodingLimits.kspace_encoding_step_2
        depth = max(encoding.encodedSpace.matrixSize.z, encoding.reconSpace.matrixSize.z)
        one_plane = len(self._header.encoding) == depth == 1 and not (partitions and partitions.maximum)
        return last and one_plane and self.whole(key, bucket)

    def whole(self, key: Key, bucket: Bucket) -> bool:
        """Whether each image of a bucket has as many lines as header and acceleration let expect."""
        images: dict[Place, set[tuple[int, int]]] = {}
        for place in bucket.places:
            if not place[1]:  # no calibration line
                images.setdefault(_image_of(place), set()).add((place[2], place[3]))
        return bool(images) and all(len(steps) >= self._expected(image[0]) for image, steps in images.items())

    def sent(self, key: Key, bucket: Bucket) -> None:
        """A bucket was sent."""
        places = frozenset(bucket.places)
        self._sent[key] = self._patterns.setdefault(places, places)
        self._sent.move_to_end(key)
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        if len(self._patterns) > REMEMBERED:
            self._patterns = {places: places for places in self._sent.values()}
        self._forget(key)  # the lines that were sent before
        self._retained[key] = bucket.lines
        self._retained_bytes += _bytes_of(bucket.lines)
        while self._retained_bytes > RETAINED_BYTES:
            self._forget(next(iter(self._retained)))

    def came_again(self) -> None:
        """A value of the trigger's counter that is held came back after another one."""
        self._inner = True

    def doubts(self) -> list[str]:
        """What must be said at the scan's end."""
        texts = []
        for keys, text in (
            (self._made_again, "lines came after their image was sent; it is made again from all lines, use the later"),
            (
                self._on_its_own,
                "lines came long after their image was sent and make one of their own",
            ),
            (self._repeated, "it came again after it was sent; the later lines make images of their own"),
        ):
            if keys:
                values = sorted({value for value, _ in keys})
                shown = ", ".join(map(str, values[:5])) + (" and others" if len(values) > 5 else "")
                name = self._trigger if self._trigger not in {"", "none"} else "trigger"
                texts.append(f"{name} {shown}: {text}")
        return texts

    def _forget(self, key: Key) -> list[ismrmrd.Acquisition] | None:
        """The lines of a bucket that were kept after it was sent, which are kept no longer; None without."""
        lines = self._retained.pop(key, None)
        self._retained_bytes -= _bytes_of(lines or [])
        return lines

    def _expected(self, space: int) -> int:
        """Phase encodings of an image that is complete, by limits, matrix and acceleration of the header."""
        encoding = self._header.encoding[space]
        matrix, parallel = encoding.encodedSpace.matrixSize, encoding.parallelImaging
        count = 1
        for name, size in (("kspace_encoding_step_1", matrix.y), ("kspace_encoding_step_2", matrix.z)):
            factor = max(getattr(parallel.accelerationFactor, name), 1) if parallel else 1
            limit = getattr(encoding.encodingLimits, name)
            span = limit.maximum - limit.minimum + 1 if limit else size
            span = span if LEAST_SPAN * size <= span <= size else size
            count *= max(span // factor, 1)
        return max(int(ALL_BUT * count), 1)

    def _averages_came(self, bucket: Bucket) -> bool:
        """Whether the last average that the header announces has come; averages may be an outer loop."""
        if self._trigger == "average":
            return True
        limits = (self._header.encoding[place[0]].encodingLimits.average for place in bucket.places)
        announced = max((limit.maximum for limit in limits if limit), default=0)
        return announced == 0 or max(place[_PLACE_OF["average"]] for place in bucket.places) >= announced

    def _enough(self, bucket: Bucket) -> bool:
        least = LEAST_FRACTION * max(self._expected(place[0]) for place in bucket.places)
        return len(bucket.places) >= max(LEAST_LINES, least)

    def _spread(self, bucket: Bucket) -> bool:
        """Whether the phase encodings are spread over k-space, unlike those of one of many segments."""
        steps = [signed_step(place[2]) for place in bucket.places]
        return max(steps) - min(steps) >= max(self._expected(place[0]) for place in bucket.places) / 2

    def _flagged_end(self, buckets: Mapping[int, Bucket]) -> bool:
        flags = [ismrmrd.ACQ_LAST_IN_MEASUREMENT]
        flags += [_END_FLAGS[self._trigger]] if self._trigger in _END_FLAGS else []
        last = [bucket.lines[-1] for bucket in buckets.values()]
        return all(map(self._enough, buckets.values())) and any(any(map(line.is_flag_set, flags)) for line in last)


_PLACE_OF = {name: 2 + number for number, name in enumerate(COUNTERS)}

_END_FLAGS = {
    "average": ismrmrd.ACQ_LAST_IN_AVERAGE,
    "slice": ismrmrd.ACQ_LAST_IN_SLICE,
    "contrast": ismrmrd.ACQ_LAST_IN_CONTRAST,
    "phase": ismrmrd.ACQ_LAST_IN_PHASE,
    "repetition": ismrmrd.ACQ_LAST_IN_REPETITION,
    "set": ismrmrd.ACQ_LAST_IN_SET,
    "segment": ismrmrd.ACQ_LAST_IN_SEGMENT,
}


def _bytes_of(lines: list[ismrmrd.Acquisition]) -> int:
    return sum(line.data.nbytes for line in lines)


def _image_of(place: Place) -> Place:
    """Encoding space and counters of the image that a place belongs to; averages are of one image."""
    return (place[0], *(place[_PLACE_OF[name]] for name in MERGED_COUNTERS))
