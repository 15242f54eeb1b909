"""The ends of pipes: whether another program is still there, and what to do when it is not."""

from __future__ import annotations

import errno
import os
import select

from gadgets.errors import ReconError, reason_of


def hung_up(descriptor: int) -> bool:
    """Whether the program at the other end of a pipe or socket has ended."""
    poller = select.poll()
    poller.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))


def nobody_reads() -> ReconError:
    """The error for an output that nobody reads any more."""
    return ReconError(
        "the output: the program that reads the images ended early; the scan is not reconstructed further"
    )


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of some bytes. Raises ReconError when nobody reads them, or there is no room."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        if error.errno in {errno.EPIPE, errno.ECONNRESET}:
            raise nobody_reads() from None
        raise ReconError(
            f"the output cannot be written ({reason_of(error)}); free space or choose another place"
        ) from None
