"""Operating system settings of the server's processes: glibc's heap, open files, environment, memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

RETAINED_HEAP_BYTES = 512 * 2**20  # freed memory that a process keeps for the next slices and scans
PAGE_BYTES = resource.getpagesize()
MAX_DESCRIPTORS = 65536

try:
    _libc: ctypes.CDLL | None = ctypes.CDLL("libc.so.6")
except OSError:  # another C library
    _libc = None


def configure_malloc() -> None:
    """Make glibc use one heap for all threads and keep freed memory there, up to `RETAINED_HEAP_BYTES`.

    By default it maps the arrays of every slice anew, which costs a tenth of the time of a scan.
    """
    arena_max, mmap_threshold, trim_threshold = -8, -3, -1
    if _libc is not None:
        for option, value in ((arena_max, 1), (mmap_threshold, 32 * 2**20), (trim_threshold, RETAINED_HEAP_BYTES)):
            _libc.mallopt(option, value)


def trim_heap() -> None:
    """Return all freed memory to the system."""
    if _libc is not None:
        _libc.malloc_trim(0)


def private_memory(process: int) -> int:
    """Bytes of resident memory that a process shares with no other. Raises OSError when there is no such process."""
    _, resident, shared, *_ = map(int, Path(f"/proc/{process}/statm").read_text().split())
    return (resident - shared) * PAGE_BYTES


def raise_descriptor_limit() -> None:
    """Let this process open as many files and connections as the system allows, up to `MAX_DESCRIPTORS`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def child_environment() -> dict[str, str]:
    """Environment of a Python child process that is to import these packages."""
    root = str(Path(__file__).resolve().parents[2])
    return dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])))
