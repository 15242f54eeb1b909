"""What the status page and its JSON show of a server: plain values, no texts about a patient; paths of thumbnails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.server.estimates import seconds_left, seconds_to_start
from pipelines.server.listener import Server
from pipelines.server.metrics import readable_queues
from pipelines.server.scan import Scan

SETTLED_S = 10.0  # age of a scan from which its times are told in whole seconds


def overview(server: Server, spool: Path | None) -> dict[str, Any]:
    """State of a server, its scans and what waits for each PACS, ready for JSON.

    Parameters
    ----------
    server : what it is of
    spool : folder whose waiting files are counted

    Returns
    -------
    dict
        `state` ("ok", "stopping", "not ready"), `time` (seconds since 1970), `uptime_s`, `totals`; `running`, `late`
        (that go on in the background after an answer), `waiting` and `ended`, lists of scans (see `scan_facts`), the
        newest of those that ended first; `pacs`, a list of queues; `kept`, noise and reference scans for later scans.
    """
    queue = server.queue
    scans = list(queue.scans)
    waiting = [one for one in scans if one.state == "waits"]
    starts = seconds_to_start(scans, server.settings.scans)
    places = {one.number: (place + 1, start) for place, (one, start) in enumerate(zip(waiting, starts, strict=False))}
    queues = readable_queues(spool) if spool is not None else []
    return {
        "state": "stopping" if server.stopping else "ok" if queue.processes() else "not ready",
        "time": round(time.time(), 1),
        "uptime_s": round(server.uptime(), 1),
        "scans_at_a_time": server.settings.scans,
        "totals": dict(queue.totals),
        "running": [scan_facts(one, scans) for one in scans if one.state == "runs"],
        "late": [scan_facts(one, scans) for one in scans if one.state == "late"],
        "waiting": [scan_facts(one, scans, *places.get(one.number, (0, None))) for one in waiting],
        "ended": [scan_facts(one, scans) for one in reversed(scans) if one.state in ("done", "failed")],
        "pacs": [
            {"pacs": one.pacs, "waiting": one.waiting, "failed": one.failed, "text": one.text()} for one in queues
        ],
        "kept": queue.noise.kept(),
    }


def scan_facts(scan: Scan, scans: Sequence[Scan], place: int = 0, starts_in_s: float | None = None) -> dict[str, Any]:
    """What is shown of a scan.

    Parameters
    ----------
    scan : see there
    scans : all that are known, oldest first
    place : among those that wait, from 1
    starts_in_s : seconds until it starts; None: not known
    """
    left = seconds_left(scan, scans) if scan.state in ("runs", "late") else None
    return {
        "number": scan.number,
        "state": scan.state,
        "chain": scan.chain or scan.asked,
        "method": scan.method,
        "arrived": round(scan.arrived, 1),
        "elapsed_s": _rounded(scan.elapsed()),
        "seconds_left": _rounded(left),
        "place": place,
        "starts_in_s": _rounded(starts_in_s),
        "lines": scan.lines,
        "announced_lines": scan.announced_lines,
        "complete": scan.complete,
        "images": scan.images,
        "announced_images": scan.announced_images,
        "first_image_s": _rounded(scan.first_image_s) if scan.images else None,
        "facts": dict(scan.facts),
        "warnings": list(scan.warnings),
        "error": scan.error,
        "raw_kept": bool(scan.kept_id),  # not the id: who knows it gets late images
        # A name changes with its image, so that a page fetches it once.
        "thumbnails": [
            {"series": series, "kind": one.name, "path": f"/scan/{scan.number}/{series}.png?image={one.image}"}
            for series, one in sorted(scan.thumbnails.items())
        ],
    }


def _rounded(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    return round(seconds, 2) if seconds < SETTLED_S else round(seconds)
