"""What is reconstructed with the time there is."""

from __future__ import annotations

import math

import pytest

from gadgets.solvers import budget
from gadgets.solvers.budget import ScanBudget, StopClock, affordable
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


def test_images_that_never_come_get_no_share() -> None:
    budget = ScanBudget(3240.0, announced=10000)
    assert budget.share(1, 1) >= 400
    budget.spent(1, 5.0)
    assert budget.share(1, 1) >= 400


def test_a_header_that_is_right_shares_evenly() -> None:
    budget = ScanBudget(60.0, announced=4)
    for _ in range(4):
        assert budget.share(1, 1) == pytest.approx(15.0)
        budget.spent(1, 15.0)


def test_a_survey_is_shared_evenly_however_long() -> None:
    budget = ScanBudget(3240.0, announced=1, known=10000)
    assert budget.share(1, 1) == pytest.approx(0.324)
    assert budget.share(1, 1, least=2.0) == 2.0  # as long as there is time each gets what makes it useful
    budget.spent(9000, 3239.0)
    assert budget.share(1, 1, least=2.0) == 1.0


def test_a_header_that_announces_too_few() -> None:
    budget = ScanBudget(80.0, announced=1)
    assert budget.share(1, 1) == 80.0
    budget.spent(1, 20.0)
    assert budget.share(1, 1) == pytest.approx(30.0)
    assert budget.share(2, 4) == pytest.approx(60 * 2 / 5)


def test_no_limit() -> None:
    budget = ScanBudget(math.inf, announced=10000)
    budget.spent(1, 5.0)
    assert budget.share(1, 1) == math.inf
