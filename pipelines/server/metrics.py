"""What Prometheus reads of a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gadgets.dicom.delivery import QueueStatus, spool_status
from gadgets.stream import ReconError
from pipelines.server.listener import Server

COUNTERS = {
    "scans": "Scans that ended",
    "failed": "Scans that failed",
    "refused": "Connections and scans that were refused",
    "images": "Images sent",
    "replaced": "Scan processes that were replaced",
}


def metrics_registry(server: Server, spool: Path | None) -> CollectorRegistry:
    """A registry whose metrics are those of the moment they are read."""
    registry = CollectorRegistry()
    registry.register(_ServerCollector(server, spool))
    return registry


class _ServerCollector(Collector):
    def __init__(self, server: Server, spool: Path | None) -> None:
        self._server, self._spool = server, spool

    def collect(self) -> Iterator[Metric]:
        """Current metric families."""
        queue = self._server.queue
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"genrecon_{name}", text, value=queue.totals[name])
        yield GaugeMetricFamily("genrecon_running", "Scans that run", value=queue.running())
        yield GaugeMetricFamily("genrecon_waiting", "Scans that wait", value=queue.waiting())
        yield GaugeMetricFamily("genrecon_start_time_seconds", "Start of the server", value=self._server.started)
        if self._spool is not None:
            spool_queues = readable_queues(self._spool)
            waiting, failed = sum(one.waiting for one in spool_queues), sum(one.failed for one in spool_queues)
            yield GaugeMetricFamily("genrecon_spool_files", "DICOM files that wait for a PACS", value=waiting)
            yield GaugeMetricFamily("genrecon_spool_failed_files", "DICOM files that were set aside", value=failed)


def readable_queues(spool: Path) -> list[QueueStatus]:
    """Status of a spool's queues; none while the spool cannot be read, which the delivery logs."""
    try:
        return spool_status(spool)
    except (ReconError, OSError):
        return []
