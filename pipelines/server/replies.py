"""What the server writes to a client: images by gadgetron-python's writers, errors and warnings as texts, CLOSE."""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
import time
from typing import Any

from gadgetron.external import constants

from gadgets.stream import PeerGone, reason_of

CHUNK_BYTES = 2**20
CLOSE = constants.GADGET_MESSAGE_CLOSE.to_bytes(2, "little")
SILENCE_S = 1.0  # a client that sends nothing for this long has stopped to send
TAKEN_INTERVAL_S = 0.01


class ReplyWriter:
    """Writes to a client that must take something every `idle_s` seconds.

    Raises PeerGone when the client is gone or takes nothing.
    """

    def __init__(self, sock: socket.socket, idle_s: float) -> None:
        self._socket, self._idle_s = sock, idle_s

    def write(self, data: Any) -> None:
        """Send all of the data."""
        rest = memoryview(bytes(data))
        self._socket.settimeout(self._idle_s)
        try:
            while rest:
                rest = rest[self._socket.send(rest[:CHUNK_BYTES]) :]
        except TimeoutError:
            raise PeerGone(f"the client took nothing for {self._idle_s:g} s") from None
        except OSError as error:
            raise PeerGone(f"the client is gone ({reason_of(error)})") from None

    def text(self, level: str, text: str, of_fire: bool) -> None:
        """Send an error or a warning as a TEXT message.

        Gadgetron's client and FIRE's do not know the message ERROR; Gadgetron itself sends errors as texts. FIRE's
        log lines begin with their level and end with a NUL.
        """
        line = (f"{level:8} {text}\0" if of_fire else f"[genrecon] {level}: {text}").encode(errors="replace")
        self.write(struct.pack("<HI", constants.GADGET_MESSAGE_TEXT, len(line)) + line)

    def is_taken(self) -> bool:
        """End what is written; whether the client takes all of it.

        What `write` has sent may still be in the buffers of either system when the connection breaks. It is taken when
        the client's system has acknowledged all of it and the client ends the connection regularly, or holds it for
        `idle_s` seconds more: a program that ends with unread data resets it.
        """
        deadline = time.monotonic() + self._idle_s
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        ended = False
        try:
            self._socket.shutdown(socket.SHUT_WR)
            while not (ended and not self._unacknowledged()) and time.monotonic() < deadline:
                if ended:
                    time.sleep(TAKEN_INTERVAL_S)
                elif poller.poll(1000 * TAKEN_INTERVAL_S):
                    ended = not self._socket.recv(CHUNK_BYTES, socket.MSG_DONTWAIT)
            return not self._unacknowledged() and not self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError:
            return False

    def _unacknowledged(self) -> int:
        """Bytes that the client's system has not acknowledged (SIOCOUTQ of Linux)."""
        return int(struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))[0])


def discard_input(sock: socket.socket, seconds: float) -> None:
    """Drop what a client still sends, until it pauses: while it sends, it does not read a reply."""
    deadline = time.monotonic() + seconds
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    with contextlib.suppress(OSError):
        while (
            time.monotonic() < deadline
            and poller.poll(1000 * SILENCE_S)
            and sock.recv(CHUNK_BYTES, socket.MSG_DONTWAIT)
        ):
            pass
