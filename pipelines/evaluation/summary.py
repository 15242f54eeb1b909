"""The results of a benchmark as a table for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from gadgets.stream import ReconError
from pipelines.evaluation.metrics import METRICS, OBJECT_METRICS


def check_metrics(text: str) -> list[str]:
    """Read names of metrics, separated by commas. Raises ReconError for an unknown one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = (*METRICS, *OBJECT_METRICS)
    for name in names:
        if name not in known:
            raise ReconError(f"benchmark: there is no metric '{name}'; there are {', '.join(known)}")
    return names


def summary(results: Mapping[str, Any], metrics: Sequence[str]) -> Table:
    """Make a table of one row a method and one column a case with the metrics, then time, memory and evaluations.

    Parameters
    ----------
    results : what `benchmark` returned
    metrics : their names
    """
    scans = dict.fromkeys(f"{case['data']}, slice {case['slice']}" for case in results["cases"])
    title = f"{' / '.join(metrics)}; seconds, memory: median over the cases"
    table = Table(title=escape(f"{next(iter(scans))}: {title}") if len(scans) == 1 else title, title_justify="left")
    table.add_column("method", no_wrap=True)
    for case in results["cases"]:
        name = case["mask"] if len(scans) == 1 else f"{case['data']}, slice {case['slice']}, {case['mask']}"
        table.add_column(escape(name) + (f", noise {case['noise']:g}" if case["noise"] else ""))
    for name in ("s", "MiB", "evaluations"):
        table.add_column(name, justify="right", no_wrap=True)
    for method in dict.fromkeys(row["method"] for row in results["rows"]):
        rows = {row["case"]: row for row in results["rows"] if row["method"] == method}
        cells = []
        for case in results["cases"]:
            row = rows[case["case"]]
            values = [
                f"{row[name]:.2f}" if name.startswith("psnr") else f"{row[name]:.4f}"
                for name in metrics
                if not row["error"]
            ]
            cells.append("failed" if row["error"] else " / ".join(values) + ("*" if row["warnings"] else ""))
        last = []
        for name, digits in (("seconds", 2), ("memory_mb", 0), ("evaluations", 0)):
            numbers = [float(row[name]) for row in rows.values() if row[name] is not None]
            last.append(f"{statistics.median(numbers):.{digits}f}" if numbers else "")
        table.add_row(escape(method), *cells, *last)
    if any(row["warnings"] for row in results["rows"]):
        table.caption = "*: with warnings, see results.csv"
    return table
