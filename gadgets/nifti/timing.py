"""When slices and volumes of a stack were measured, by the time stamps of their acquisitions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gadgets.dicom.frames import VOLUME_COUNTERS
from gadgets.dicom.stacks import Stack

REPETITION = VOLUME_COUNTERS.index("repetition")
REGULAR = 0.05  # intervals that differ less from their mean are one


def _seconds(stack: Stack) -> NDArray[np.float64] | None:
    """Times (volume, slice) in seconds; None where one is not known."""
    times = np.array([[frame.seconds for frame in volume] for volume in stack.volumes])
    return times if np.all(times > 0) else None


def volume_starts(stack: Stack) -> list[float]:
    """Seconds from the first volume to each; empty where the volumes are no repetitions or times are not known."""
    others = {frame.volume[:REPETITION] + frame.volume[REPETITION + 1 :] for frame in stack.frames}
    times = _seconds(stack)
    if times is None or len(times) < 2 or len(others) > 1:
        return []
    starts = times.min(1) - times.min()
    return [float(value) for value in starts] if np.all(np.diff(starts) > 0) else []


def volume_interval(stack: Stack) -> float:
    """Seconds between volumes that are repetitions at regular times, or phases of a cycle; else 0."""
    steps = np.diff(volume_starts(stack) or _trigger_times(stack))
    if not len(steps) or np.abs(steps - steps.mean()).max() > REGULAR * steps.mean():
        return 0.0
    return float(steps.mean())


def _trigger_times(stack: Stack) -> list[float]:
    """Seconds after the trigger of each volume; empty where one has none."""
    times = [volume[0].dataset.get("TriggerTime") for volume in stack.volumes]
    known = [float(value) / 1e3 for value in times if value is not None]
    return known if len(known) == len(times) and np.all(np.diff(known) > 0) else []


def slice_times(stack: Stack) -> list[float]:
    """Seconds from the first slice of a volume to each, of the first volume; empty for 3D and where not known."""
    times = _seconds(stack)
    if times is None or stack.first.dataset.get("MRAcquisitionType") != "2D" or np.ptp(times[0]) == 0:
        return []
    return [float(value) for value in times[0] - times[0].min()]
