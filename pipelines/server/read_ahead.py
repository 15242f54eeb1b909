"""Reads a waiting client's data into a temporary file, so that the server notices when the client leaves."""

from __future__ import annotations

import contextlib
import select
import socket
import tempfile
import time
from types import TracebackType
from typing import IO

from gadgets.stream import PeerGone, reason_of
from pipelines.server.replies import CHUNK_BYTES, CLOSE

MAX_POLL_MS = 2.0**31 - 1


class ReadAhead:
    """Data of a waiting scan, read into a file without a name.

    A context manager, which closes the file.

    Parameters
    ----------
    sock : connected socket
    next_message : id of a message that was already read from it
    limit_gib : most that is read; the rest stays in the connection, as it does when the file has no room

    Attributes
    ----------
    file : what was read; None while that is nothing
    """

    def __init__(self, sock: socket.socket, next_message: int, limit_gib: float) -> None:
        self._socket = sock
        self._remaining = int(limit_gib * 2**30)
        self._last_bytes = next_message.to_bytes(2, "little")
        self.file: IO[bytes] | None = None

    def read_until(self, event: int, seconds: float) -> bool:
        """Read until the descriptor `event` is readable; False when it was not within so many seconds.

        Raises PeerGone when the client leaves before its scan is complete.
        """
        deadline = time.monotonic() + seconds
        poller = select.poll()
        poller.register(event, select.POLLIN)
        poller.register(self._socket, self._events())
        while (left := deadline - time.monotonic()) > 0:
            found = dict(poller.poll(poll_milliseconds(left)))
            if event in found:
                return True
            if found and self._remaining > 0:
                self._read()
            elif found:
                raise PeerGone("the client is gone")
            poller.modify(self._socket, self._events())
        return False

    def _events(self) -> int:
        """Events to poll for; `poll` reports errors in any case."""
        return select.POLLIN if self._remaining > 0 else 0

    def _read(self) -> None:
        try:
            # A chunk is removed from the socket only once it is in the file.
            chunk = self._socket.recv(min(self._remaining, CHUNK_BYTES), socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise PeerGone(f"the client is gone ({reason_of(error)})") from None
        if not chunk:
            self._remaining = 0
            if self._last_bytes != CLOSE:  # a client that has sent all of its scan may end its half of the connection
                raise PeerGone("the client closed the connection before its CLOSE message")
            return
        try:
            if self.file is None:
                self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            written = self.file.write(chunk)
        except OSError:  # no room
            self._remaining = 0
            return
        self._socket.recv(written)
        self._remaining -= written
        self._last_bytes = (self._last_bytes + chunk[:written])[-2:]

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.file is not None:
            with contextlib.suppress(OSError):  # the scan's process has it open, too, and notices what is lost
                self.file.close()


def poll_milliseconds(seconds: float) -> float:
    """Timeout for `poll`, which takes 24 days at most."""
    return min(1000 * seconds, MAX_POLL_MS)
