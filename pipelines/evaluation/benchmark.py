"""Compare methods on fully sampled scans that are undersampled here."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gadgets.files import replace_file
from pipelines.evaluation.cases import Case
from pipelines.evaluation.entries import Entry
from pipelines.evaluation.results import (
    case_row,
    npz_bytes,
    read_row,
    results_csv,
    results_of,
    save_case,
    task_key,
    writing,
)
from pipelines.evaluation.task import processor
from pipelines.evaluation.workers import Task, on_dask, on_this_machine

RESULTS = "results.json"

Progress = Callable[[int, int, str], None]  # tasks done, tasks in all, name of the last one


def benchmark(
    cases: Sequence[Case],
    entries: Sequence[Entry],
    folder: Path,
    *,
    repeats: int = 1,
    workers: int = 1,
    threads: int = 0,
    dask: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run all methods on all cases, with tables and images in a folder; an earlier run there is continued.

    Parameters
    ----------
    cases, entries : every case is reconstructed by every entry
    folder : gets results.csv, results.json, cases/*.npz and images/*.npz
    repeats : timed runs of each, after a first one; their median is reported
    workers : processes at a time on this machine
    threads : of each process; 0: the cores shared out among the workers
    dask : address of a dask scheduler whose workers run the tasks instead
    progress : called after every task

    Returns
    -------
    The content of results.json.

    Raises
    ------
    ReconError
        The folder cannot be written to, the scheduler cannot be reached, or a task failed on a dask worker.
    """
    if not dask:
        threads = threads or max(1, (os.cpu_count() or 1) // workers)
    tasks = [Task(case, entry, task_key(case, entry, repeats, threads)) for case in cases for entry in entries]
    rows: dict[str, dict[str, Any]] = {}
    with writing(folder):
        for name in ("cases", "images", "rows"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for case in cases:
            save_case(folder, case)
    for task in tasks:
        found = read_row(folder, task.key)
        if found is not None:
            rows[task.key] = found
    todo = [task for task in tasks if task.key not in rows]
    source = on_dask(dask, todo, repeats, threads) if dask else on_this_machine(todo, repeats, threads, workers)
    with contextlib.closing(source) as finished:
        for task, row, arrays in finished:
            with writing(folder):
                row["file"] = f"images/{task.key}.npz" if arrays else ""
                if arrays:
                    replace_file(folder / row["file"], npz_bytes(arrays))
                replace_file(folder / "rows" / f"{task.key}.json", json.dumps(row).encode())
            rows[task.key] = row
            if progress:
                progress(len(rows), len(tasks), f"{task.case.name}: {task.entry.label} is done")
    machine = {"processor": processor(), "threads": threads, "torch": torch.__version__}
    results = results_of([case_row(case) for case in cases], [rows[task.key] for task in tasks], machine)
    with writing(folder):
        replace_file(folder / "results.csv", results_csv(results).encode())
        replace_file(folder / RESULTS, json.dumps(results, indent=1).encode())
    return results
