"""The items that come over a Gadgetron connection, read ahead in a thread of their own."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from gadgetron.external import constants

from gadgets.errors import Aborted, PeerGone, ReconError, one_line
from gadgets.stream.queues import BoundedQueue
from gadgets.stream.sockets import hung_up, read_exactly
from gadgets.stream.wire import from_wire

log = logging.getLogger("genrecon")

# gadgetron-python makes object arrays of ctypes headers; numpy then warns once a process, for nothing.
warnings.filterwarnings("ignore", ".*PEP3118", RuntimeWarning, r"gadgetron\.external\.readers")


class SocketSource:
    """Reads a connection ahead in its own thread, so that a peer that closes it is noticed while a gadget computes.

    gadgetron-python's `SocketWrapper.read` reads again without end at end-of-file; here it is replaced by a read
    that raises. When the peer ends before CLOSE, a process that serves this scan alone (`python -m gadgetron`) exits at
    once; elsewhere the iteration raises PeerGone.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socket: socket.socket = connection.socket.socket
        self._queue = BoundedQueue(items=512)
        self._finished = threading.Event()
        self._closed = False
        self._stopped = False
        self._failure: ReconError | None = None
        connection.socket.read = self._read_exactly
        connection.add_reader(constants.GADGET_MESSAGE_CLOSE, self._read_close)
        threading.Thread(target=self._read_all, name="socket", daemon=True).start()

    def _read_exactly(self, count: int) -> bytearray:
        return read_exactly(self._socket, count)

    def _read_close(self, _: Any) -> None:
        self._closed = True
        raise StopIteration

    def _read_all(self) -> None:
        try:
            self._read_to_close()
        except (PeerGone, OSError) as error:
            self._failure = error if isinstance(error, PeerGone) else PeerGone(f"connection: {one_line(error)}")
            self._end_process()
        except Exception as error:
            self._failure = ReconError(
                f"connection: the stream cannot be read ({one_line(error)}); check what the chain sends to this gadget"
            )
            self._discard()
        self._finished.set()
        self._queue.close()
        if self._closed and self._is_end_of_file():
            self._end_process()

    def _read_to_close(self) -> None:
        """Queue the items up to CLOSE, or drop them once the queue is aborted."""
        try:
            for item in self._connection:
                item = from_wire(item)
                while not self._queue.put(item, timeout=0.2):
                    if hung_up(self._socket):  # the kernel holds little more: read all of it, to find CLOSE
                        self._queue.put_unbounded(item)
                        break
        except Aborted:
            for _ in self._connection:
                pass
        if not self._closed:  # gadgetron-python ends the iteration at a message it does not know
            raise ReconError("a message of unknown kind")

    def _discard(self) -> None:
        """Read on until the peer pauses: an error may be sent to it only when it does not send."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        try:
            while poll.poll(1000):
                if not self._socket.recv(1 << 20):
                    raise PeerGone("connection: the peer closed it in the middle of the stream")
        except (PeerGone, OSError) as error:
            self._failure = PeerGone(one_line(error))
            self._end_process()

    def _is_end_of_file(self) -> bool:
        """Whether the connection ends after CLOSE; waits for that."""
        try:
            return not self._socket.recv(1)
        except (PeerGone, OSError):
            return True

    def _end_process(self) -> None:
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        if not self._stopped and spec is not None and spec.name == "gadgetron.__main__":
            log.error("the peer is gone; this process ends")
            logging.shutdown()
            os._exit(1)

    def __iter__(self) -> Iterator[Any]:
        yield from self._queue
        if self._failure is not None:
            raise self._failure

    def drain(self) -> bool:
        """Read the input to its CLOSE and drop it. False when the peer is gone and no error can be sent to it."""
        self._queue.abort()
        self._finished.wait()
        return not isinstance(self._failure, PeerGone)

    def stop(self) -> None:
        """End the reading thread; the connection can still be written to."""
        self._stopped = True
        self._queue.abort()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
