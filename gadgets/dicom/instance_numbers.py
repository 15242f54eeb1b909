"""InstanceNumbers: from the counters of the images, unique in a series."""

from __future__ import annotations

from collections import defaultdict

import ismrmrd
from ismrmrd.xsd import ismrmrdHeader

from gadgets.numbering import Numbers
from gadgets.survey import Survey

HIGHEST = 2**31 - 1
COUNTERS = ("repetition", "average", "set", "phase", "contrast", "slice")  # outermost first


class InstanceNumbers:
    """InstanceNumbers of the images of a scan.

    Slices count fastest, then contrasts, phases, sets, averages and repetitions, so that a replay in any order numbers
    alike. How many there are of each is known from a survey; in a stream it is what the header announces. An image
    whose number was given before, because its counters are beyond what was announced or another image has the same,
    gets the next one after the series' last.

    Parameters
    ----------
    header : header of the scan
    survey : what came, where that is known beforehand
    """

    def __init__(self, header: ismrmrdHeader, survey: Survey | None = None) -> None:
        self._sizes = {name: survey.count(name) if survey else _announced(header, name) for name in COUNTERS}
        self._ranks: dict[str, dict[int, int]] = {}  # for counters so high that the numbers would not do
        if survey:
            self._ranks = {name: {value: rank for rank, value in enumerate(survey.values(name))} for name in COUNTERS}
        self._of_series: defaultdict[str, Numbers] = defaultdict(lambda: Numbers(HIGHEST))

    def size(self, name: str) -> int:
        """Number of values a counter takes, from 0 on; 1 when the header is silent."""
        return self._sizes[name]

    def take(self, series: str, image: ismrmrd.Image, channel: int, partition: int) -> int:
        """InstanceNumber of a channel and partition of an image in a series (its UID)."""
        counters = {name: int(getattr(image, name)) for name in COUNTERS}
        number = self._number(image, counters, self._sizes, channel, partition)
        if number > HIGHEST and self._ranks:
            places = {name: self._ranks[name].get(value, value) for name, value in counters.items()}
            sizes = {name: len(ranks) for name, ranks in self._ranks.items()}
            number = self._number(image, places, sizes, channel, partition)
        return self._of_series[series].take(number)

    @staticmethod
    def _number(
        image: ismrmrd.Image, counters: dict[str, int], sizes: dict[str, int], channel: int, partition: int
    ) -> int:
        number = 0
        for name in COUNTERS:
            number = number * sizes[name] + counters[name]
        channels, partitions = image.data.shape[:2]
        return int((number * channels + channel) * partitions + partition + 1)


def _announced(header: ismrmrdHeader, name: str) -> int:
    limits = (getattr(encoding.encodingLimits, name, None) for encoding in header.encoding)
    return max([int(limit.maximum) + 1 for limit in limits if limit is not None], default=1)
