"""What a reconstruction can afford in the time it has."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

from gadgets.acquisitions import IMAGE_COUNTERS
from priors.settings import ReconstructionSettings

FEWEST_STEPS = 8  # of the few-step rule: with fewer l1_wavelet is the better image
STEPS_IN_TIME = 0.9  # fraction of a time that is planned for steps
MORE_IMAGES = 7  # that may come besides those at hand, until as many were reconstructed; if the header announces them
RESERVE = 1.5  # times what images took so far is kept for each to come, before time goes into anything else
ENOUGH = 0.5  # fraction of the steps after which a stopped sampler's estimate is better than l1_wavelet


def affordable(
    settings: ReconstructionSettings, rule: str, seconds: float, step_s: float | None
) -> tuple[ReconstructionSettings | None, str]:
    """Settings with as many samples and steps as there is time for.

    Parameters
    ----------
    settings : what is wanted
    rule : name of the rule they lead to
    seconds : time there is
    step_s : seconds of a step of all problems together, as last measured; None before it was

    Returns
    -------
    Settings, None if the time is too short for a useful image; and what was cut, else an empty text
    """
    if step_s is None or rule != "few_step" or not math.isfinite(seconds):
        return (settings, "") if seconds > 0 else (None, "")
    wanted = settings.steps_of(rule)
    possible = int(STEPS_IN_TIME * seconds / step_s)
    if possible >= wanted * settings.samples:
        return settings, ""
    if possible >= 2 * wanted:
        fewer = replace(settings, samples=possible // wanted)
        return fewer, f"{fewer.samples} samples instead of {settings.samples}, to keep time_budget_s"
    if possible < min(FEWEST_STEPS, wanted):
        return None, ""
    fewer = replace(settings, samples=1, steps=min(possible, wanted))
    text = f"{fewer.steps} steps instead of {wanted}" if fewer.steps < wanted else ""
    text += " and " if text and settings.samples > 1 else ""
    text += f"one sample instead of {settings.samples}" if settings.samples > 1 else ""
    return fewer, f"{text}, to keep time_budget_s"


def expected_images(header: Any, averaged: bool) -> int:
    """How many images (volumes in 3D) the header announces, one or more.

    Parameters
    ----------
    header : ismrmrd.xsd.ismrmrdHeader
    averaged : whether the averages make one image
    """
    total = 0
    for encoding in header.encoding:
        count = 1
        for name in IMAGE_COUNTERS:
            limit = getattr(encoding.encodingLimits, name)
            if limit is not None and not (averaged and name == "average"):
                count *= limit.maximum + 1
        total += count
    return max(total, 1)


class ScanBudget:
    """The time of a scan, shared over its images: those at hand and those that are likely to come.

    A survey says how many will come. In a stream, header limits are a hint: no more are reckoned with than have come so
    far (MORE_IMAGES at first), so that images that never come get no share.

    Parameters
    ----------
    seconds : time of the scan; infinite for no limit
    announced : number of images by the header
    known : number of images by a survey; None in a stream
    """

    def __init__(self, seconds: float, announced: int, known: int | None = None) -> None:
        self._left, self._announced, self._known = seconds, announced, known
        self._done = 0
        self._images_s = 0.0  # that images took

    def share(self, images: int, at_hand: int, least: float = 0.0) -> float:
        """Seconds for the next images.

        Parameters
        ----------
        images : how many they are
        at_hand : how many wait, these among them
        least : seconds that they need to be of use; they get it as long as there is time
        """
        left = max(self._left, 0.0)
        if math.isinf(left):
            return left
        return min(left, max(left * images / self._to_come(at_hand), least))

    def spent(self, images: int, seconds: float) -> None:
        """Images were reconstructed, in so many seconds."""
        self._left -= seconds
        self._images_s += seconds
        self._done += images

    def spare(self, images: int, at_hand: int) -> float:
        """Seconds for what else is wanted of images that are done, without taking them from images to come.

        Parameters
        ----------
        images : how many they are
        at_hand : how many wait
        """
        if math.isinf(self._left):
            return self._left
        to_come = self._to_come(at_hand)
        needed = RESERVE * to_come * self._images_s / max(self._done, 1)
        return max(self._left - needed, 0.0) * images / (images + to_come)

    def spent_on_more(self, seconds: float) -> None:
        """Seconds went into something else than images."""
        self._left -= seconds

    def _to_come(self, at_hand: int) -> int:
        """Images that are likely to come, those at hand among them."""
        if self._known is not None:
            return max(self._known - self._done, at_hand)
        announced = self._announced - self._done
        if announced < at_hand:  # the header is wrong
            return at_hand + self._done
        return min(announced, at_hand + max(self._done, MORE_IMAGES))


class StopClock:
    """Says when a sampler's next step would pass a deadline, or when it will not get far enough before it."""

    def __init__(self, deadline: float, needed: float) -> None:
        self._deadline, self._needed = deadline, needed
        self._asked = time.monotonic()
        self._longest, self._steps = 0.0, 0

    def __call__(self) -> bool:
        now = time.monotonic()
        last, self._asked = now - self._asked, now
        self._longest = max(self._longest, last)
        self._steps += 1
        # The first step is slower than those that follow.
        hopeless = self._steps > 1 and now + (self._needed - self._steps) * last > self._deadline
        return hopeless or now + self._longest > self._deadline
