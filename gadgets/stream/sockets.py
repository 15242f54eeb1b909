"""Sockets that listen, and reading from one that may end."""

from __future__ import annotations

import select
import socket

from gadgets.stream.errors import PeerGone, ReconError, reason_of


def read_exactly(sock: socket.socket, count: int) -> bytearray:
    """Read `count` bytes from a blocking socket; arrays made of them are writable. Raises PeerGone at end-of-file."""
    chunks = bytearray()
    while len(chunks) < count:
        chunk = sock.recv(min(count - len(chunks), 1 << 20))
        if not chunk:
            raise PeerGone("connection: the peer closed it in the middle of the stream")
        chunks += chunk
    return chunks


def hung_up(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def listening_socket(address: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises ReconError when it cannot."""
    try:
        return socket.create_server((address, port), family=family_of(address))
    except (OSError, OverflowError, UnicodeError) as error:
        reason = reason_of(error).partition(" (")[0]  # without Python's repetition of the address
        raise ReconError(
            f"port {port}: cannot listen on {address} ({reason}); choose another port or address"
        ) from None


def family_of(address: str) -> socket.AddressFamily:
    """Of addresses with colons: IPv6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
