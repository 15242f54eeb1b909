"""Listening, and reading from a socket whose peer may close it."""

from __future__ import annotations

import select
import socket

from gadgets.errors import PeerGone, ReconError, reason_of


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
    """Whether the peer closed its side of the connection."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def listening_socket(address: str, port: int) -> socket.socket:
    """A listening socket; port 0 chooses a free port. Raises ReconError when it cannot."""
    try:
        return socket.create_server((address, port), family=family_of(address))
    except (OSError, OverflowError, UnicodeError) as error:
        reason = reason_of(error).partition(" (")[0]  # without Python's repetition of the address
        raise ReconError(
            f"port {port}: cannot listen on {address} ({reason}); choose another port or address"
        ) from None


def family_of(address: str) -> socket.AddressFamily:
    """IPv6 for addresses with colons, else IPv4."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
