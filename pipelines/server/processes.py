"""Processes: what they take of memory, what a child of this one needs, and glibc's heap."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

KEPT_BYTES = 512 * 2**20
PAGE_BYTES = resource.getpagesize()
DESCRIPTORS = 65536

try:
    _libc: ctypes.CDLL | None = ctypes.CDLL("libc.so.6")
except OSError:  # another libc
    _libc = None


def settle_allocator() -> None:
    """Let glibc have one heap for all threads, and keep what is freed there, up to 512 MiB.

    Otherwise it maps the arrays of every slice anew, which costs a tenth of the time of a scan.
    """
    arena_max, mmap_threshold, trim_threshold = -8, -3, -1
    if _libc is not None:
        for option, value in ((arena_max, 1), (mmap_threshold, 32 * 2**20), (trim_threshold, KEPT_BYTES)):
            _libc.mallopt(option, value)


def trim_heap() -> None:
    """Give all freed memory back to the system."""
    if _libc is not None:
        _libc.malloc_trim(0)


def memory_of(process: int) -> int:
    """Bytes of memory that a process has to itself. Raises OSError when there is no such process."""
    _, resident, shared, *_ = map(int, Path(f"/proc/{process}/statm").read_text().split())
    return (resident - shared) * PAGE_BYTES


def allow_descriptors() -> None:
    """Let this process have as many files and connections as the system lets it, up to 65536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def child_environment() -> dict[str, str]:
    """The environment of a Python child that is to find these packages."""
    root = str(Path(__file__).resolve().parents[2])
    return dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])))
