"""When a running scan ends and a waiting one starts, by the pace of this scan and of those before it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pipelines.server.scan import Scan

SCANS_COMPARED = 5  # last ones of the same chain


def typical_seconds(chain: str, scans: Sequence[Scan]) -> float | None:
    """Median time of the last scans of a chain that gave images; None where there is none."""
    times = [one.seconds for one in scans if one.state == "done" and one.images and one.chain == chain]
    return statistics.median(times[-SCANS_COMPARED:]) if times else None


def seconds_left(scan: Scan, scans: Sequence[Scan]) -> float | None:
    """Seconds until a running scan ends; None where nothing tells.

    By the pace of its images where the header announces how many there are, else by the scans of its chain before; a
    time budget is an upper limit while no image is there.

    Parameters
    ----------
    scan : that runs
    scans : all that are known, oldest first
    """
    elapsed = scan.elapsed()
    if scan.images and scan.announced_images > scan.images:
        return max(scan.last_image_s * scan.announced_images / scan.images - elapsed, 0.0)
    if scan.images and scan.images == scan.announced_images:
        return 0.0
    typical = typical_seconds(scan.chain, scans)
    if typical is not None and typical > elapsed:
        return typical - elapsed
    return scan.budget_s - elapsed if scan.budget_s > elapsed and scan.complete else None


def seconds_to_start(scans: Sequence[Scan], slots: int) -> list[float | None]:
    """For each waiting scan, in order, seconds until it starts; None where nothing tells.

    Parameters
    ----------
    scans : all that are known, oldest first
    slots : scans that run at a time
    """
    waiting = [one for one in scans if one.state == "waits"]
    free: list[float | None] = [seconds_left(one, scans) for one in scans if one.state == "runs"]
    free += [0.0] * (slots - len(free))
    starts: list[float | None] = []
    for scan in waiting:
        known = [time for time in free if time is not None]
        if len(known) < len(free):  # one of unknown length may be the first to end
            return starts + [None] * (len(waiting) - len(starts))
        first = min(known)
        starts.append(first)
        free.remove(first)
        duration = typical_seconds(scan.asked, scans)
        free.append(None if duration is None else first + duration)
    return starts
