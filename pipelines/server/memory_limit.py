"""The limit on the memory that a scan's process really takes.

`memory_estimate` refuses a scan before it takes too much memory. This limit ends a scan whose estimate was too low:
`worker_slot` checks it every `CHECK_INTERVAL_S` while a scan runs, and kills a process that is above it.
"""

from __future__ import annotations

import contextlib

from pipelines.server.processes import private_memory

CHECK_INTERVAL_S = 0.05


class MemoryLimit:
    """The most memory that a process may take for a scan, beyond what it has without one.

    Parameters
    ----------
    limit_gib : GiB

    Attributes
    ----------
    limit_gib : GiB
    idle_bytes : private memory of the process before its first scan
    """

    def __init__(self, limit_gib: float) -> None:
        self.limit_gib = limit_gib
        self.idle_bytes = 0

    def measure_idle(self, process: int) -> None:
        """Note what a process that has run no scan takes. Raises OSError when there is no such process."""
        self.idle_bytes = private_memory(process)

    def exceeded(self, process: int) -> bool:
        """Whether the process takes more than the limit for its scan; False when it has just ended."""
        with contextlib.suppress(OSError):
            return private_memory(process) - self.idle_bytes > self.limit_gib * 2**30
        return False
