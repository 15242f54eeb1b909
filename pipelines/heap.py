"""Memory of a process: glibc's heap, one for all threads, that keeps what is freed until it is told otherwise."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from pathlib import Path

KEPT_BYTES = 512 * 2**20
PAGE_BYTES = resource.getpagesize()


def settle_allocator() -> None:
    """Let glibc have one heap for all threads, and keep what is freed there, up to 512 MiB.

    Otherwise it maps the arrays of every slice anew, which costs a tenth of the time of a scan.
    """
    arena_max, mmap_threshold, trim_threshold = -8, -3, -1
    with contextlib.suppress(OSError, AttributeError):  # another libc
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((arena_max, 1), (mmap_threshold, 32 * 2**20), (trim_threshold, KEPT_BYTES)):
            libc.mallopt(option, value)


def trim_heap() -> None:
    """Give all freed memory back to the system."""
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def memory_of(process: int) -> int:
    """Bytes of memory that a process has to itself. Raises OSError when there is no such process."""
    _, resident, shared, *_ = map(int, Path(f"/proc/{process}/statm").read_text().split())
    return (resident - shared) * PAGE_BYTES
