"""One reconstruction of a benchmark: its time, memory and quality."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import statistics
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from gadgets.stream import ReconError, one_line
from pipelines.evaluation.arrays import ArrayReconstruction
from pipelines.evaluation.cases import Array, Case
from pipelines.evaluation.entries import Entry
from pipelines.evaluation.metrics import METRICS, OBJECT_METRICS, measures


class PeakMemory:
    """The most memory, in MiB, that this process gained while a block ran, sampled every 5 ms."""

    def __enter__(self) -> PeakMemory:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # freed memory that is used again would not be seen
        self._process = psutil.Process()
        self._before = self._most = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._most = max(self._most, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._most = max(self._most, self._process.memory_info().rss)

    @property
    def megabytes(self) -> float:
        """How much more the process had at its peak than before, in MiB."""
        return (self._most - self._before) / 2**20


_one_at_a_time = threading.Lock()  # torch's threads, memory and time belong to the process


def run_task(case: Case, entry: Entry, repeats: int, threads: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """Reconstruct one case by one method: its row of the results, and its images.

    Parameters
    ----------
    repeats : timed runs after a first one that is not timed
    threads : of torch; 0: one a core

    Returns
    -------
    row, arrays (image, deviation) float32 (y, x); a method that failed leaves its error in the row.
    """
    threads = threads or os.cpu_count() or 1
    row = failed_row(case, entry, "") | {"processor": processor(), "threads": threads}
    with _one_at_a_time:
        torch.set_num_threads(threads)
        try:
            reconstruction = ArrayReconstruction(entry.all_properties)
            item = reconstruction.with_maps(case.measured())
            with PeakMemory() as memory:
                result = reconstruction(item)
            times = [reconstruction(item).seconds for _ in range(repeats)] or [result.seconds]
            image = np.abs(result.image).astype(np.float32)
            row |= measures(image, case.reference)
        except ReconError as error:
            return row | {"error": one_line(error)}, {}
        except Exception as error:  # the other tasks go on
            return row | {"error": f"{one_line(error)} (unexpected)"}, {}
    evaluations = result.notes.get("GenreconEvaluations")
    row |= {"seconds": statistics.median(times), "memory_mb": memory.megabytes, "warnings": result.warnings}
    row |= {"evaluations": int(evaluations) if evaluations else None}
    row["consistency"] = result.notes.get("GenreconDataConsistency", "")
    arrays = {"image": image}
    if result.deviation is not None:
        arrays["deviation"] = result.deviation
    return row, arrays


def failed_row(case: Case, entry: Entry, error: str) -> dict[str, Any]:
    """Row of a task without a result."""
    row: dict[str, Any] = {"case": case.name, "method": entry.label, **dict.fromkeys((*METRICS, *OBJECT_METRICS))}
    row |= {"seconds": None, "memory_mb": None, "evaluations": None, "consistency": "", "warnings": []}
    return row | {"processor": "", "threads": None, "error": error}


def processor() -> str:
    """Name of this machine's processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
