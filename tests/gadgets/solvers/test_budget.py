"""What is reconstructed with the time there is."""

from __future__ import annotations

import math

import pytest

from gadgets.solvers import budget
from gadgets.solvers.budget import StopClock, affordable
from priors.settings import ReconstructionSettings

WANTED = ReconstructionSettings(samples=8, steps=10)


@pytest.mark.parametrize(
    ("seconds", "samples", "steps", "text"),
    [
        (8.9, 8, 10, ""),
        (4.5, 4, 10, "4 samples instead of 8, to keep time_budget_s"),
        (1.2, 1, 10, "one sample instead of 8, to keep time_budget_s"),
        (0.95, 1, 8, "8 steps instead of 10 and one sample instead of 8, to keep time_budget_s"),
    ],
)
def test_fewer_samples_before_fewer_steps(seconds: float, samples: int, steps: int, text: str) -> None:
    settings, found = affordable(WANTED, "few_step", seconds, 0.1)
    assert settings is not None
    assert (settings.samples, settings.steps, found) == (samples, steps, text)


def test_no_time_for_a_useful_image() -> None:
    assert affordable(WANTED, "few_step", 0.5, 0.1) == (None, "")
    assert affordable(WANTED, "few_step", 0.0, None) == (None, "")


@pytest.mark.parametrize(
    ("rule", "seconds", "step_s"), [("few_step", 1.0, None), ("few_step", math.inf, 9.0), ("momentum", 1.0, 9.0)]
)
def test_what_is_not_known_to_be_too_long_is_tried(rule: str, seconds: float, step_s: float | None) -> None:
    assert affordable(WANTED, rule, seconds, step_s) == (WANTED, "")


@pytest.mark.parametrize(("deadline", "asked"), [(100.0, 20), (10.5, 10), (4.0, 2)])
def test_stops_before_the_deadline_or_as_soon_as_half_cannot_be_reached(
    deadline: float, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(budget.time, "monotonic", lambda: now)
    stop, done = StopClock(deadline, needed=8), 0
    while done < 20:
        now, done = now + 1, done + 1
        if stop():
            break
    assert done == asked
