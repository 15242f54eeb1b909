"""What a server reads from a client: MRD messages within limits that are checked before memory is taken."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.external import constants

from gadgets.stream import Aborted, BoundedQueue, PeerGone, ReconError, one_line
from pipelines.chain import INSTALLED_PREFIX

MIB = 2**20
PAUSE_S = 1.0
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Limits:
    """What a client may send; more is refused before it is read.

    Parameters
    ----------
    text_mib : of a chain, a header or a text
    message_mib : of one acquisition or waveform
    scan_gib : of all messages of a scan
    memory_gib : that a scan may need, as `pipelines.memory` estimates it
    handshake_s : for chain and header, from the connection on
    idle_s : without a byte of a message that is due
    scan_s : for the whole scan, from its first message on
    """

    text_mib: float = 4.0
    message_mib: float = 64.0
    scan_gib: float = 64.0
    memory_gib: float = 16.0
    handshake_s: float = 10.0
    idle_s: float = 60.0
    scan_s: float = 3600.0


@dataclass(frozen=True)
class Request:
    """What comes before the data of a scan.

    Parameters
    ----------
    config : name of a chain, or None
    chain_text : a chain, where it was sent itself
    header_text : ISMRMRD header
    parameters : of the JSON text that a FIRE client sends after the header, or instead of a chain
    """

    config: str | None
    chain_text: bytes | None
    header_text: bytes
    parameters: dict[str, Any]


class Intake:
    """Reads one connection: the request, then the data, ahead of who takes them, in a thread of its own.

    Parameters
    ----------
    sock : connected socket
    limits : see there

    Raises
    ------
    PeerGone
        By all methods, when the client ends the connection.
    ReconError
        By all methods, for what is no MRD stream, is above a limit, or does not come in time.
    """

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self._socket, self._limits = sock, limits
        self._deadline = time.monotonic() + limits.scan_s
        self._header_due = time.monotonic() + limits.handshake_s
        self._bytes = 0
        self._queue = BoundedQueue(items=512)
        self._failure: ReconError | None = None
        self._next_id: int | None = None
        self._reader: threading.Thread | None = None
        self.of_fire = False  # whether the client sent parameters as FIRE does

    # --- the request

    def first_message(self) -> int | None:
        """Id of the first message; None when the client ends the connection without one."""
        try:
            (message,) = struct.unpack("<H", self._read(2))
        except PeerGone:
            return None
        if message not in (constants.GADGET_MESSAGE_FILENAME, constants.GADGET_MESSAGE_CONFIG):
            kind = "an HTTP request" if struct.pack("<H", message) in _HTTP else f"a message of kind {message}"
            raise ReconError(f"the connection began with {kind}, not with an MRD configuration")
        self._next_id = message
        return message

    def request(self) -> Request | None:
        """Chain, header and parameters; None when the client closes the stream before a header."""
        config: str | None = None
        chain_text: bytes | None = None
        message = self._message()
        if message == constants.GADGET_MESSAGE_FILENAME:
            config = bytes(self._read(1024)).partition(b"\0")[0].decode("ascii", "replace")
        else:
            chain_text = self._text("chain")
        parameters: dict[str, Any] = {}
        if chain_text is not None and chain_text.lstrip().startswith(b"{"):  # FIRE's client sends its JSON so, too
            config, parameters, chain_text = "", _json_parameters(chain_text), None
        message = self._message()
        if message == constants.GADGET_MESSAGE_CLOSE:
            return None
        if message != constants.GADGET_MESSAGE_HEADER:
            raise ReconError(f"a message of kind {message} came where the ISMRMRD header (3) is due")
        header = self._text("header")
        self._header_due = math.inf
        size = 0
        while (message := self._message()) == constants.GADGET_MESSAGE_TEXT:
            text = self._text("text")
            size += len(text)
            if size > self._limits.text_mib * MIB:
                raise ReconError(f"texts of {size} bytes are above the limit of {self._limits.text_mib:g} MiB")
            parameters |= _json_parameters(text)
        self._next_id = message
        self.of_fire = bool(parameters)
        return Request(config, chain_text, header, parameters)

    # --- the data

    def start(self) -> None:
        """Read the data ahead."""
        self._reader = threading.Thread(target=self._read_all, name="intake", daemon=True)
        self._reader.start()

    def __iter__(self) -> Iterator[Any]:
        """Acquisitions and waveforms up to CLOSE."""
        yield from self._queue
        if self._failure is not None:
            raise self._failure

    def client_gone(self) -> bool:
        """Whether the client is known to have left before its data were complete."""
        if isinstance(self._failure, PeerGone):
            return True
        poller = select.poll()
        poller.register(self._socket, 0)  # errors and hang-ups are always told
        return bool(poller.poll(0))

    def drop(self) -> None:
        """Nobody wants the data any more: what still comes is read and dropped."""
        self._queue.abort()

    def drain(self) -> None:
        """Wait until the client has sent all it wants to, as long as the time-outs let it."""
        if self._reader is not None:
            self._reader.join()
        else:
            self._discard()

    def stop(self) -> None:
        """End the reading; the connection can still be written to."""
        self._queue.abort()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        if self._reader is not None:
            self._reader.join()  # the socket's number may be another's once it is closed

    def _read_all(self) -> None:
        dropped = False
        try:
            while (message := self._message()) != constants.GADGET_MESSAGE_CLOSE:
                item = self._item(message)
                if item is None or dropped:
                    continue
                try:
                    self._queue.put(item)
                except Aborted:
                    dropped = True
        except PeerGone as error:
            self._failure = error
        except Exception as error:
            text = str(error) if isinstance(error, ReconError) else f"a message cannot be read ({one_line(error)})"
            self._failure = ReconError(text)
            self._queue.close()
            self._discard()
        self._queue.close()

    def _discard(self) -> None:
        """Drop what still comes, until the client pauses: one that still sends does not read what it is told."""
        end = min(self._deadline, time.monotonic() + self._limits.idle_s)
        poller = select.poll()  # the socket's own time-out is the writer's, too
        poller.register(self._socket, select.POLLIN)
        with contextlib.suppress(OSError):
            while time.monotonic() < end and poller.poll(1000 * PAUSE_S) and self._socket.recv(MIB):
                pass

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
        samples, coils, dimensions = head.number_of_samples, head.active_channels, head.trajectory_dimensions
        self._allow(8 * samples * coils + 4 * samples * dimensions, "an acquisition")
        trajectory = np.frombuffer(self._read(4 * samples * dimensions), np.float32).reshape(samples, dimensions)
        data = np.frombuffer(self._read(8 * samples * coils), np.complex64).reshape(coils, samples)
        return ismrmrd.Acquisition(head, data, trajectory if trajectory.size else None)

    def _waveform(self) -> ismrmrd.Waveform:
        head = ismrmrd.WaveformHeader.from_buffer_copy(self._read(ctypes.sizeof(ismrmrd.WaveformHeader)))
        self._allow(4 * head.number_of_samples * head.channels, "a waveform")
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
        return bytes(self._read(size)).rstrip(b"\0")

    def _allow(self, size: int, what: str) -> None:
        if size > self._limits.message_mib * MIB:
            raise ReconError(f"{what} of {size} bytes is above the limit of {self._limits.message_mib:g} MiB")

    def _read(self, count: int) -> bytearray:
        """So many bytes, which the caller checked. They are taken as they come, not all at once."""
        self._bytes += count
        if self._bytes > self._limits.scan_gib * 2**30:
            raise ReconError(f"the scan is above the limit of {self._limits.scan_gib:g} GiB")
        chunks = bytearray()
        while len(chunks) < count:
            left = min(self._deadline, self._header_due) - time.monotonic()
            if left <= 0 and self._header_due < self._deadline:
                raise ReconError(f"chain and header did not come within {self._limits.handshake_s:g} s")
            if left <= 0:
                raise ReconError(f"the scan took longer than {self._limits.scan_s:g} s")
            self._socket.settimeout(min(left, self._limits.idle_s))
            try:
                chunk = self._socket.recv(min(count - len(chunks), MIB))
            except TimeoutError:
                if left > self._limits.idle_s:
                    raise ReconError(f"nothing came for {self._limits.idle_s:g} s") from None
                continue
            except OSError as error:
                raise PeerGone(f"the client is gone ({error.strerror or one_line(error)})") from None
            if not chunk:
                raise PeerGone("the client closed the connection before its CLOSE message")
            chunks += chunk
        return chunks


_HTTP = {b"GE", b"PO", b"HE", b"OP", b"PU", b"DE", b"CO", b"TR", b"PA"}


def _json_parameters(text: bytes) -> dict[str, Any]:
    """The `parameters` of FIRE's JSON; nothing of other texts."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    parameters = found.get("parameters") if isinstance(found, dict) else None
    return parameters if isinstance(parameters, dict) else {}


def plain_name(config: str) -> str:
    """Name of a chain as a client gives it: without `.xml`, and without what installed chains have in front.

    Raises ReconError for what is no name: a path, say.
    """
    name = config.strip().removesuffix(".xml").removeprefix(INSTALLED_PREFIX)
    if not NAME.fullmatch(name):
        raise ReconError("the name of the configuration has letters that no name of a chain has")
    return name
