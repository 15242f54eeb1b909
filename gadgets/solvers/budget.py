"""What a reconstruction can afford in the time it has."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from priors.rules.rule import RULES
from priors.settings import ReconstructionSettings

FEWEST_STEPS = 8  # of the few-step rule: with fewer l1_wavelet is the better image
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
    wanted = settings.steps or RULES[rule].steps
    possible = int(0.9 * seconds / step_s)
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
