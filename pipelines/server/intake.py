"""Reads MRD messages of a client within limits, which are checked before memory is taken."""

from __future__ import annotations

import ctypes
import math
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import ismrmrd
import numpy as np
from gadgetron.external import constants

from gadgets.acquisition_flags import COMPRESSED, is_compressed
from gadgets.errors import Aborted
from gadgets.stream import PeerGone, ReconError, one_line, reason_of
from gadgets.stream.queues import BoundedQueue
from pipelines.server.read_ahead import poll_milliseconds
from pipelines.server.replies import CHUNK_BYTES
from pipelines.server.request import Request
from pipelines.server.retrieval import is_retrieval
from pipelines.server.settings import Limits

MIB = 2**20
QUEUED_ITEMS = 512  # lines and waveforms that are read before the chain takes them
CONNECTION_CHECK_S = 0.5  # how often the connection is checked while the queue is full
HTTP_METHODS = {b"GE", b"PO", b"HE", b"OP", b"PU", b"DE", b"CO", b"TR", b"PA"}  # their first two letters


class ScanReader:
    """Reads a scan from a connection: the request, then the data, in a thread of its own ahead of the chain.

    Parameters
    ----------
    sock : connected socket
    limits : see there
    next_message : id of a message that was already read from the socket
    ahead : file of what was already read after that; closed at its end
    on_reset : called when the client resets the connection after its CLOSE
    on_complete : called when all data have come
    record : called with the bytes of all data, as they come

    Attributes
    ----------
    complete : whether all data of the scan came

    Raises
    ------
    PeerGone
        In all methods: the client ended the connection.
    ReconError
        In all methods: it is no MRD stream, something is above a limit or does not come in time.
    """

    def __init__(
        self,
        sock: socket.socket,
        limits: Limits,
        next_message: int | None = None,
        ahead: IO[bytes] | None = None,
        on_reset: Callable[[], None] = lambda: None,
        on_complete: Callable[[], None] = lambda: None,
        record: Callable[[bytes | bytearray], None] | None = None,
    ) -> None:
        self._socket, self._limits, self._record = sock, limits, record
        self._on_reset, self._on_complete = on_reset, on_complete
        self._scan_deadline = time.monotonic() + limits.scan_s
        self._phase_deadline = time.monotonic() + limits.handshake_s
        self._late_text = f"chain and header did not come within {limits.handshake_s:g} s"
        self._bytes = self._text_bytes = 0
        self._queue = BoundedQueue(items=QUEUED_ITEMS)
        self._error: ReconError | None = None
        self._next_id = next_message
        self._ahead = ahead
        self._thread: threading.Thread | None = None
        self._stop_descriptor: int | None = None  # readable when the thread is to end
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        self.complete = False
        self._only_record = False
        self._read_to_end = threading.Event()

    # --- the request

    def first_message(self) -> int | None:
        """Id of the first message; None when the client ends the connection without one."""
        try:
            (message,) = struct.unpack("<H", self._read(2))
        except PeerGone:
            return None
        if message not in (constants.GADGET_MESSAGE_FILENAME, constants.GADGET_MESSAGE_CONFIG):
            kind = "an HTTP request" if struct.pack("<H", message) in HTTP_METHODS else f"a message of kind {message}"
            raise ReconError(f"the connection began with {kind}, not with an MRD configuration")
        self._next_id = message
        return message

    def request(self) -> Request | None:
        """The request; None when the client closes the stream before a header."""
        config: str | None = None
        chain_text: bytes | None = None
        texts: list[bytes] = []
        if self._message() == constants.GADGET_MESSAGE_FILENAME:
            config = bytes(self._read(1024)).partition(b"\0")[0].decode("ascii", "replace")
        else:
            chain_text = self._request_text("chain").rstrip(b"\0")
        if chain_text is not None and chain_text.lstrip().startswith(b"{"):  # FIRE's client may send its JSON here
            texts.append(chain_text)
            config, chain_text = "", None
        message = self._message()
        while is_retrieval(config) and message == constants.GADGET_MESSAGE_TEXT:  # it needs no header
            texts.append(self._request_text("text").rstrip(b"\0"))
            message = self._message()
        if message == constants.GADGET_MESSAGE_CLOSE:
            return Request(config, None, b"", tuple(texts), message, bool(texts)) if is_retrieval(config) else None
        if message != constants.GADGET_MESSAGE_HEADER:
            raise ReconError(f"a message of kind {message} came where the ISMRMRD header (3) is due")
        header = self._request_text("header")
        self._phase_deadline = time.monotonic() + self._limits.idle_s
        self._late_text = f"no data came within {self._limits.idle_s:g} s after the header"
        while (message := self._message()) == constants.GADGET_MESSAGE_TEXT:
            texts.append(self._request_text("text").rstrip(b"\0"))
        self._next_id = message
        of_fire = bool(texts) or header.endswith(b"\0")
        return Request(config, chain_text, header.rstrip(b"\0"), tuple(texts), message, of_fire)

    def _request_text(self, what: str) -> bytes:
        """A text that is kept in memory until its scan starts."""
        text = self._text(what)
        self._text_bytes += len(text)
        if self._text_bytes > self._limits.text_mib * MIB:
            raise ReconError(
                f"chain, header and texts of {self._text_bytes} bytes are above the limit of "
                f"{self._limits.text_mib:g} MiB"
            )
        return text

    # --- the data

    def start(self) -> None:
        """Begin to read the data, in a thread."""
        self._phase_deadline = math.inf
        if self._record is not None and self._next_id is not None:
            self._record(struct.pack("<H", self._next_id))
        self._stop_descriptor = os.eventfd(0)
        self._poller.register(self._stop_descriptor, select.POLLIN)
        self._thread = threading.Thread(target=self._read_all, name="scan reader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Any]:
        """Acquisitions and waveforms up to CLOSE."""
        yield from self._queue
        if self._error is not None:
            raise self._error

    def record_rest(self) -> None:
        """Read on, but only to record the data, until all came, the client left, or the time is over."""
        self._only_record = True
        self._queue.abort()
        if self._thread is None:
            self.start()
        self._read_to_end.wait()

    def stop(self) -> None:
        """End the thread; what the client still sends stays in the connection, which can still be written to."""
        self._queue.abort()
        if self._stop_descriptor is not None and self._thread is not None:
            os.eventfd_write(self._stop_descriptor, 1)
            self._thread.join()
            os.close(self._stop_descriptor)
            self._stop_descriptor = None

    def _queue_has_taken(self, item: Any) -> bool:
        try:
            return self._queue.put(item, timeout=CONNECTION_CHECK_S)
        except Aborted:
            if not self._only_record:
                raise
            return True

    def _read_all(self) -> None:
        try:
            self._read_messages()
        finally:
            self._read_to_end.set()
        if self.complete:
            self._on_complete()
            self._wait_for_reset()

    def _read_messages(self) -> None:
        try:
            while (message := self._message()) != constants.GADGET_MESSAGE_CLOSE:
                item = self._item(message)
                while item is not None and not self._queue_has_taken(item):
                    self._check_connection()
            self.complete = True
        except Aborted:
            return
        except ReconError as error:
            self._error = error
        except Exception as error:
            self._error = ReconError(f"a message cannot be read ({one_line(error)})")
        self._queue.close()

    def _check_connection(self) -> None:
        """Raise PeerGone when the client has reset the connection; a regular end shows once all before it is read."""
        poller = select.poll()
        poller.register(self._socket, 0)
        if poller.poll(0):
            raise PeerGone("the client is gone")

    def _wait_for_reset(self) -> None:
        """Call `on_reset` when the client resets the connection. One that only ends its half may still read images."""
        self._poller.modify(self._socket, 0)
        if self._stop_descriptor not in dict(self._poller.poll()):
            self._on_reset()

    def _item(self, message: int) -> Any:
        if message == constants.GADGET_MESSAGE_ISMRMRD_ACQUISITION:
            return self._acquisition()
        if message == constants.GADGET_MESSAGE_ISMRMRD_WAVEFORM:
            return self._waveform()
        if message == constants.GADGET_MESSAGE_TEXT:
            self._text("text")
            return None
        raise ReconError(f"a message of kind {message} came among the data; acquisitions and waveforms may")

    def _acquisition(self) -> ismrmrd.Acquisition:
        head = ismrmrd.AcquisitionHeader.from_buffer_copy(self._read(ctypes.sizeof(ismrmrd.AcquisitionHeader)))
        if is_compressed(head):  # what follows has another layout
            raise ReconError(f"acquisition {head.scan_counter} {COMPRESSED}")
        samples, coils, dimensions = head.number_of_samples, head.active_channels, head.trajectory_dimensions
        self._check_size(8 * samples * coils + 4 * samples * dimensions, "an acquisition")
        trajectory = np.frombuffer(self._read(4 * samples * dimensions), np.float32).reshape(samples, dimensions)
        data = np.frombuffer(self._read(8 * samples * coils), np.complex64).reshape(coils, samples)
        return ismrmrd.Acquisition(head, data, trajectory if trajectory.size else None)

    def _waveform(self) -> ismrmrd.Waveform:
        head = ismrmrd.WaveformHeader.from_buffer_copy(self._read(ctypes.sizeof(ismrmrd.WaveformHeader)))
        self._check_size(4 * head.number_of_samples * head.channels, "a waveform")
        data = np.frombuffer(self._read(4 * head.number_of_samples * head.channels), np.uint32)
        return ismrmrd.Waveform(head, data.reshape(head.channels, head.number_of_samples))

    # --- bytes

    def _message(self) -> int:
        if self._next_id is not None:
            message, self._next_id = self._next_id, None
            return message
        return int(struct.unpack("<H", self._read(2))[0])

    def _text(self, what: str) -> bytes:
        (size,) = struct.unpack("<I", self._read(4))
        if size > self._limits.text_mib * MIB:
            raise ReconError(f"a {what} of {size} bytes is above the limit of {self._limits.text_mib:g} MiB")
        return bytes(self._read(size))

    def _check_size(self, size: int, what: str) -> None:
        if size > self._limits.message_mib * MIB:
            raise ReconError(f"{what} of {size} bytes is above the limit of {self._limits.message_mib:g} MiB")

    def _read(self, count: int) -> bytearray:
        """Read so many bytes, a number that the caller has checked; memory is taken as they come, not at once."""
        self._bytes += count
        if self._bytes > self._limits.scan_gib * 2**30:
            raise ReconError(f"the scan is above the limit of {self._limits.scan_gib:g} GiB")
        received = bytearray()
        while len(received) < count:
            if self._ahead is not None:
                if chunk := self._ahead.read(min(count - len(received), CHUNK_BYTES)):
                    received += chunk
                    continue
                self._ahead.close()
                self._ahead = None
            left = min(self._scan_deadline, self._phase_deadline) - time.monotonic()
            if left <= 0 and self._phase_deadline < self._scan_deadline:
                raise ReconError(self._late_text)
            if left <= 0:
                raise ReconError(f"the scan took longer than {self._limits.scan_s:g} s")
            found = dict(self._poller.poll(poll_milliseconds(min(left, self._limits.idle_s))))
            if self._stop_descriptor in found:
                raise Aborted
            if not found:
                if left > self._limits.idle_s:
                    raise ReconError(f"nothing came for {self._limits.idle_s:g} s")
                continue
            try:
                chunk = self._socket.recv(min(count - len(received), CHUNK_BYTES), socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError as error:
                raise PeerGone(f"the client is gone ({reason_of(error)})") from None
            if not chunk:
                raise PeerGone("the client closed the connection before its CLOSE message")
            received += chunk
        if self._record is not None:
            self._record(received)
        return received
