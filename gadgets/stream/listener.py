"""A server for Gadgetron's <connect>: one process serves all scans."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable

from gadgets.errors import PeerGone, one_line
from gadgets.stream.gadget import Gadget
from gadgets.stream.sockets import listening_socket

log = logging.getLogger("genrecon")

STOP_TIMEOUT_S = 10.0  # time that running scans have to end when the listener is stopped


class _Socket(socket.socket):
    """A socket whose `recv` raises PeerGone at end-of-file, where gadgetron-python would read again without end."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        if size and not data:
            raise PeerGone("connection: the peer closed it in the middle of the stream")
        return data


def listen(port: int, make_gadget: Callable[[], Gadget], address: str = "127.0.0.1") -> None:
    """Serve scans that come from Gadgetron's `<connect>`: a fresh gadget and a thread a connection, until stopped.

    Imports and weights stay warm between scans. An exception raised by a signal handler closes the port; running
    scans have `STOP_TIMEOUT_S` to end. Raises ReconError when the port cannot be opened.
    """
    from gadgetron.external import Connection

    server = listening_socket(address, port)

    def serve(sock: socket.socket) -> None:
        try:
            with sock, Connection(sock) as connection:
                make_gadget().handle(connection)
        except Exception as error:
            log.error("connection: %s", one_line(error))

    scans: list[threading.Thread] = []
    try:
        with server:
            log.info("listening on %s port %d", address, server.getsockname()[1])
            while True:
                conn, _ = server.accept()
                scans = [thread for thread in scans if thread.is_alive()]
                scans.append(threading.Thread(target=serve, args=(_Socket(fileno=conn.detach()),), daemon=True))
                scans[-1].start()
    finally:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for thread in scans:
            thread.join(max(deadline - time.monotonic(), 0.0))
