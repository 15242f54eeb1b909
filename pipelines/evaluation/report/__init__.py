"""One self-contained HTML page that shows what a benchmark measured, or what a replay left."""

from pipelines.evaluation.report.report import report

__all__ = ["report"]
