"""Processes that are killed."""

from __future__ import annotations

from pipelines.evaluation import workers
from pipelines.evaluation.workers import Task
from tests.pipelines.evaluation import stand_ins
from tests.pipelines.evaluation.stand_ins import StandInCase, StandInEntry


def in_processes(monkeypatch, *entries):
    """Rows and images of stand-ins that two processes run, by method."""
    monkeypatch.setattr(workers, "run_task", stand_ins.run)
    tasks = [Task(StandInCase("case"), entry, entry.label) for entry in entries]
    return {task.key: (row, arrays) for task, row, arrays in workers.on_this_machine(tasks, 1, 2, workers=2)}


def test_a_process_that_is_killed_loses_nothing(tmp_path, monkeypatch):
    found = in_processes(
        monkeypatch,
        StandInEntry("first"),
        StandInEntry("killed once", str(tmp_path / "flag")),
        StandInEntry("last"),
    )
    assert set(found) == {"first", "killed once", "last"}
    assert all(not row["error"] and arrays["image"].tolist() == [3, 3] for row, arrays in found.values())


def test_a_process_that_always_dies_is_a_failed_row(monkeypatch):
    monkeypatch.setattr(workers, "ATTEMPTS", 1)
    found = in_processes(monkeypatch, StandInEntry("first"), StandInEntry("killed always"), StandInEntry("last"))
    errors = {name: row["error"] for name, (row, _) in found.items()}
    assert "its process was killed" in errors.pop("killed always")
    assert errors == {"first": "", "last": ""}
