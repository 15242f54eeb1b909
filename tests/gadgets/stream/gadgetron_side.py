"""Gadgetron's side of the wire, and gadgets that serve the other end of a loopback connection."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

import ismrmrd
import numpy as np
from gadgetron.external import Connection, constants

from gadgets.stream import Gadget
from gadgets.stream.wire import for_wire
from pipelines import wire
from pipelines.simulation import SimulationSettings
from pipelines.wire import MrdSocket
from tests.gadgets.stream import socket_gadgets

MODULE = socket_gadgets.__name__
ACQUISITION, CLOSE, ERROR = (
    constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION,
    constants.GADGET_MESSAGE_CLOSE,
    constants.GADGET_MESSAGE_ERROR,
)
SCAN = SimulationSettings(
    matrix=(32, 32, 1),
    coils=4,
    slices=2,
    sampling="uniform",
    acceleration=2,
    calibration_lines=12,
    noise_scan=True,
    noise_level=0.01,
)


def line(number: int = 0, coils: int = 4, samples: int = 32) -> ismrmrd.Acquisition:
    data = np.full((coils, samples), number + 1j, np.complex64)
    return ismrmrd.Acquisition.from_array(data, scan_counter=number)


def configuration(**properties: object) -> bytes:
    inner = "".join(f"<property name={quoteattr(k)} value={quoteattr(str(v))}/>" for k, v in properties.items())
    return f"<configuration>{inner}</configuration>".encode()


class Gadgetron:
    """The server's side of one external gadget."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.socket.settimeout(20.0)
        self.mrd = MrdSocket(sock, "gadget")

    def begin(self, header: bytes, **properties: object) -> None:
        self.mrd.send_text(constants.GADGET_MESSAGE_CONFIG, configuration(**properties))
        self.mrd.send_text(constants.GADGET_MESSAGE_HEADER, header)

    def send(self, *items: Any) -> None:
        for item in items:
            wire._WRITERS[type(item)](self.mrd, for_wire(item))

    def close(self) -> None:
        self.mrd.write(struct.pack("<H", CLOSE))

    def answers(self) -> list[tuple[int, Any]]:
        """Everything that comes up to the end of the connection, message by message."""
        found: list[tuple[int, Any]] = []
        while start := self.socket.recv(1):
            (message,) = struct.unpack("<H", start + self.mrd.read(1))
            if message == CLOSE:
                found.append((message, None))
            elif message == ERROR:
                (length,) = struct.unpack("<Q", self.mrd.read(8))
                found.append((message, self.mrd.read(length).decode("utf-8")))
            else:
                found.append((message, self.mrd._item(message)))
        return found

    def says_nothing_for(self, seconds: float) -> bool:
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(20.0)
        return False


@contextlib.contextmanager
def in_process(gadget: Gadget) -> Iterator[tuple[Gadgetron, list[BaseException]]]:
    """A gadget that serves the other end of a loopback connection in a thread; what it raises is collected."""
    raised: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()

    def serve() -> None:
        try:
            with far, Connection(far) as connection:
                gadget.handle(connection)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with near:
        yield Gadgetron(near), raised
    thread.join(5.0)
    assert not thread.is_alive()


def pixels(images: list[Any]) -> Any:
    return np.stack([image.data for image in sorted(images, key=lambda image: image.slice)]).astype(np.int32)
