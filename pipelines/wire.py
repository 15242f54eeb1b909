"""MRD streaming over a socket, from the side that sends a scan and takes its images."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ismrmrd
from gadgetron.external import constants, readers, writers
from gadgetron.types import ImageArray, ReconData
from gadgetron.types.image_array import read_image_array, write_image_array
from gadgetron.types.recon_data import read_recon_data, write_recon_data

from gadgets.stream import PeerGone, ReconError, one_line
from gadgets.stream.sockets import read_exactly
from gadgets.stream.wire import for_wire, from_wire

MESSAGE_DICOM = 1018
_ID = constants.GadgetMessageIdentifier

_WRITERS: dict[type, Callable[[Any, Any], None]] = {
    ismrmrd.Acquisition: writers.write_acquisition,
    ismrmrd.Waveform: writers.write_waveform,
    ismrmrd.Image: writers.write_image,
    ImageArray: write_image_array,
    ReconData: write_recon_data,
}
_READERS: dict[int, Callable[[Any], Any]] = {
    constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION: readers.read_acquisition,
    constants.GADGET_MESSAGE_ISMRMRD_WAVEFORM: readers.read_waveform,
    constants.GADGET_MESSAGE_ISMRMRD_IMAGE: readers.read_image,
    constants.GADGET_MESSAGE_IMAGE_ARRAY: read_image_array,
    constants.GADGET_MESSAGE_RECON_DATA: read_recon_data,
}


class MrdSocket:
    """Reads and writes MRD messages on a connected socket."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self._socket = sock
        self._peer = peer

    def read(self, count: int) -> bytearray:
        """So many bytes. Raises ReconError if the peer is silent or gone."""
        try:
            return read_exactly(self._socket, count)
        except TimeoutError:
            raise self._silent() from None
        except PeerGone:
            raise ReconError(f"{self._peer}: it closed the connection before the scan's end; see its log") from None
        except OSError as error:
            raise ReconError(f"{self._peer}: connection lost ({error.strerror}); see its log") from None

    def write(self, data: Any) -> None:
        """Send all of some bytes. Raises ReconError if the peer is silent."""
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise self._silent() from None

    def _silent(self) -> ReconError:
        seconds = self._socket.gettimeout()
        return ReconError(f"{self._peer}: no answer for {seconds:g} s; see its log or raise --timeout")

    def send_text(self, message: int, text: bytes) -> None:
        """Send a message that is a uint32 length and text (CONFIG, HEADER)."""
        self.write(_ID.pack(message) + struct.pack("<I", len(text)) + text)

    def send_all(self, items: Iterable[Any]) -> None:
        """Send items, then CLOSE. Raises TypeError for an item no message exists for."""
        for item in items:
            _WRITERS[type(item)](self, for_wire(item))
        self.write(_ID.pack(constants.GADGET_MESSAGE_CLOSE))

    def messages(self) -> Iterator[tuple[int, Any]]:
        """Yield (message id, item) up to CLOSE; TEXT is a str, DICOM is bytes.

        Raises ReconError with the peer's text at an ERROR message, at an unknown id, and when the peer is gone.
        """
        while True:
            (message,) = _ID.unpack(self.read(2))
            if message == constants.GADGET_MESSAGE_CLOSE:
                return
            if message in _READERS:
                yield message, self._item(message)
            elif message == constants.GADGET_MESSAGE_ERROR:
                text = self.read(struct.unpack("<Q", self.read(8))[0]).decode(errors="replace")
                raise ReconError(f"{self._peer}: {' '.join(text.split())}")
            elif message == constants.GADGET_MESSAGE_TEXT:
                yield message, self.read(struct.unpack("<I", self.read(4))[0]).decode(errors="replace").rstrip("\0")
            elif message == MESSAGE_DICOM:
                data = self.read(struct.unpack("<I", self.read(4))[0])
                for _ in range(2):  # file name, then meta
                    self.read(struct.unpack("<Q", self.read(8))[0])
                yield message, data
            else:
                raise ReconError(f"{self._peer}: it sent a message of unknown kind {message}; check what listens there")

    def _item(self, message: int) -> Any:
        try:
            return from_wire(_READERS[message](self))
        except ReconError:
            raise
        except Exception as error:
            reason = one_line(error)
            raise ReconError(
                f"{self._peer}: its message of kind {message} cannot be read ({reason}); check what listens there"
            ) from None


def exchange(
    connect: Callable[[], socket.socket],
    peer: str,
    config: bytes | str,
    header: bytes,
    items: Iterable[Any],
    *texts: bytes,
) -> Iterator[tuple[int, Any]]:
    """Send a scan while reading what comes back: yield (message id, item).

    Parameters
    ----------
    connect : opens the socket
    peer : its name in error texts
    config : chain as XML, or the name of a chain of the server
    header : ISMRMRD header; empty: none is sent
    items : acquisitions, or other items that the peer reads
    texts : sent after the header, as FIRE sends its parameters; empty ones are not

    Raises ReconError when the peer fails or ends before it has read the whole scan, and the error of `items` when
    reading them fails.
    """
    failures: list[BaseException] = []
    sent = threading.Event()
    with connect() as sock:
        mrd = MrdSocket(sock, peer)

        def send() -> None:
            try:
                if isinstance(config, str):
                    mrd.write(_ID.pack(constants.GADGET_MESSAGE_FILENAME) + config.encode()[:1023].ljust(1024, b"\0"))
                else:
                    mrd.send_text(constants.GADGET_MESSAGE_CONFIG, config)
                if header:
                    mrd.send_text(constants.GADGET_MESSAGE_HEADER, header)
                for text in filter(None, texts):
                    mrd.send_text(constants.GADGET_MESSAGE_TEXT, text)
                mrd.send_all(items)
                sent.set()
            except ConnectionError:
                pass  # the peer closed early; what it sent before says why
            except BaseException as error:
                failures.append(error)
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

        sender = threading.Thread(target=send, name=f"to {peer}", daemon=True)
        sender.start()
        try:
            yield from mrd.messages()
        except ReconError:
            if failures:
                raise failures[0] from None
            raise
        except GeneratorExit:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the sender
            raise
        sender.join(timeout=10.0)
        if failures:
            raise failures[0]
        if not sent.is_set():
            raise ReconError(f"{peer}: it ended before it had read the whole scan; see its log")


def connect_to(host: str, port: int, timeout: float) -> socket.socket:
    """Connect to a server. Raises ReconError when none answers there."""
    try:
        sock = socket.create_connection((host, port), timeout=min(timeout, 10.0))
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReconError(f"{host}:{port}: no server answers there ({reason}); start it or correct HOST:PORT") from None
    sock.settimeout(timeout)
    return sock


def parse_address(text: str) -> tuple[str, int]:
    """Split HOST:PORT, or [::1]:9002 for IPv6. Raises ReconError for anything else."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ReconError(f"server {text}: give HOST:PORT, for instance localhost:9002")
    return host.strip("[]"), int(port)


def reconstruct_remotely(
    address: str, config: bytes | str, header: bytes, items: Iterable[Any], timeout: float, *texts: bytes
) -> Iterator[ismrmrd.Image | str]:
    """Send a scan to a Gadgetron server; yield its images as they come, and its texts (see `exchange`).

    Raises
    ------
    ReconError
        No server answers, it reports an error or sends nothing for `timeout` seconds.
    """
    host, port = parse_address(address)
    # A server whose ISMRMRD library has another schema version refuses the header, and then hangs.
    header = re.sub(rb"<(\w+:)?version>\s*\d+\s*</(\w+:)?version>", b"", header, count=1)
    peer = f"server {address}"
    for _, item in exchange(lambda: connect_to(host, port, timeout), peer, config, header, items, *texts):
        if isinstance(item, str) and "ERROR" in item:
            raise ReconError(f"{peer}: {' '.join(item.split())}")
        if isinstance(item, ismrmrd.Image | str):
            yield item
