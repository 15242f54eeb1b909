"""A server's end of a connection: MRD messages within limits that are checked before memory is taken, and answers."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import math
import os
import select
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

import ismrmrd
import numpy as np
from gadgetron.external import constants

from gadgets.stream import PeerGone, ReconError, one_line, reason_of
from gadgets.stream.errors import Aborted
from gadgets.stream.queues import BoundedQueue
from pipelines.server.settings import Limits

MIB = 2**20
PAUSE_S = 1.0
LOOK_S = 0.5  # between looks at a connection whose data wait for room
CLOSE = constants.GADGET_MESSAGE_CLOSE.to_bytes(2, "little")


@dataclass(frozen=True)
class Request:
    """What comes before the data of a scan.

    Parameters
    ----------
    config : name of a chain, or None
    chain_text : a chain, where it was sent itself
    header_text : ISMRMRD header
    texts : that a FIRE client sends after the header, or instead of a chain
    next_message : id of the message that follows, read already
    of_fire : whether the client is FIRE's: it sends texts, or a NUL behind its header
    """

    config: str | None
    chain_text: bytes | None
    header_text: bytes
    texts: tuple[bytes, ...]
    next_message: int
    of_fire: bool = False

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """The `parameters` of FIRE's JSON; nothing of other texts."""
        found: dict[str, Any] = {}
        for text in self.texts:
            found |= _json_parameters(text)
        return found


class Intake:
    """Reads one connection: the request, then the data, ahead of who takes them, in a thread of its own.

    Parameters
    ----------
    sock : connected socket
    limits : see there
    next_message : id of a message that was read from the socket already
    ahead : file of what else was read from it already, closed when it is at its end
    gone : called when the client resets the connection after its CLOSE

    Attributes
    ----------
    complete : whether all of the scan's data came

    Raises
    ------
    PeerGone
        By all methods, when the client ends the connection.
    ReconError
        By all methods, for what is no MRD stream, is above a limit, or does not come in time.
    """

    def __init__(
        self,
        sock: socket.socket,
        limits: Limits,
        next_message: int | None = None,
        ahead: IO[bytes] | None = None,
        gone: Callable[[], None] = lambda: None,
    ) -> None:
        self._socket, self._limits, self._gone = sock, limits, gone
        self._deadline = time.monotonic() + limits.scan_s
        self._due = time.monotonic() + limits.handshake_s
        self._late = f"chain and header did not come within {limits.handshake_s:g} s"
        self._bytes = self._text_bytes = 0
        self._queue = BoundedQueue(items=512)
        self._failure: ReconError | None = None
        self._next_id = next_message
        self._ahead = ahead
        self._reader: threading.Thread | None = None
        self._stopped: int | None = None  # descriptor that has something to read when the reader is to end
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        self.complete = False

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
        """What the client asks for; None when it closes the stream before a header."""
        config: str | None = None
        chain_text: bytes | None = None
        texts: list[bytes] = []
        if self._message() == constants.GADGET_MESSAGE_FILENAME:
            config = bytes(self._read(1024)).partition(b"\0")[0].decode("ascii", "replace")
        else:
            chain_text = self._request_text("chain").rstrip(b"\0")
        if chain_text is not None and chain_text.lstrip().startswith(b"{"):  # FIRE's client sends its JSON so, too
            texts.append(chain_text)
            config, chain_text = "", None
        message = self._message()
        if message == constants.GADGET_MESSAGE_CLOSE:
            return None
        if message != constants.GADGET_MESSAGE_HEADER:
            raise ReconError(f"a message of kind {message} came where the ISMRMRD header (3) is due")
        header = self._request_text("header")
        self._due = time.monotonic() + self._limits.idle_s
        self._late = f"no data came within {self._limits.idle_s:g} s after the header"
        while (message := self._message()) == constants.GADGET_MESSAGE_TEXT:
            texts.append(self._request_text("text").rstrip(b"\0"))
        self._next_id = message
        of_fire = bool(texts) or header.endswith(b"\0")
        return Request(config, chain_text, header.rstrip(b"\0"), tuple(texts), message, of_fire)

    def _request_text(self, what: str) -> bytes:
        """A text that is kept until its scan begins."""
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
        """Read the data."""
        self._due = math.inf
        self._stopped = os.eventfd(0)
        self._poller.register(self._stopped, select.POLLIN)
        self._reader = threading.Thread(target=self._read_all, name="intake", daemon=True)
        self._reader.start()

    def __iter__(self) -> Iterator[Any]:
        """Acquisitions and waveforms up to CLOSE."""
        yield from self._queue
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End the reading; what the client still sends is left in the connection, which can be written to."""
        self._queue.abort()
        if self._stopped is not None and self._reader is not None:
            os.eventfd_write(self._stopped, 1)
            self._reader.join()
            os.close(self._stopped)
            self._stopped = None

    def _read_all(self) -> None:
        try:
            while (message := self._message()) != constants.GADGET_MESSAGE_CLOSE:
                item = self._item(message)
                while item is not None and not self._queue.put(item, timeout=LOOK_S):
                    self._check_connection()
            self.complete = True
        except Aborted:
            return
        except ReconError as error:
            self._failure = error
        except Exception as error:
            self._failure = ReconError(f"a message cannot be read ({one_line(error)})")
        self._queue.close()
        if self.complete:
            self._watch()

    def _check_connection(self) -> None:
        """Raise PeerGone when the client has reset it. One that ended it is noticed when all before that is read."""
        poller = select.poll()
        poller.register(self._socket, 0)
        if poller.poll(0):
            raise PeerGone("the client is gone")

    def _watch(self) -> None:
        """Notice that the client resets the connection. A client that ends its half of it may still read."""
        self._poller.modify(self._socket, 0)
        if self._stopped not in dict(self._poller.poll()):
            self._gone()

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
        return bytes(self._read(size))

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
            if self._ahead is not None:
                if chunk := self._ahead.read(min(count - len(chunks), MIB)):
                    chunks += chunk
                    continue
                self._ahead.close()
                self._ahead = None
            left = min(self._deadline, self._due) - time.monotonic()
            if left <= 0 and self._due < self._deadline:
                raise ReconError(self._late)
            if left <= 0:
                raise ReconError(f"the scan took longer than {self._limits.scan_s:g} s")
            found = dict(self._poller.poll(milliseconds(min(left, self._limits.idle_s))))
            if self._stopped in found:
                raise Aborted
            if not found:
                if left > self._limits.idle_s:
                    raise ReconError(f"nothing came for {self._limits.idle_s:g} s")
                continue
            try:
                chunk = self._socket.recv(min(count - len(chunks), MIB), socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError as error:
                raise PeerGone(f"the client is gone ({reason_of(error)})") from None
            if not chunk:
                raise PeerGone("the client closed the connection before its CLOSE message")
            chunks += chunk
        return chunks


def milliseconds(seconds: float) -> float:
    """Time for `poll`, which takes 24 days at most."""
    return min(1000 * seconds, 2.0**31 - 1)


_HTTP = {b"GE", b"PO", b"HE", b"OP", b"PU", b"DE", b"CO", b"TR", b"PA"}


def _json_parameters(text: bytes) -> dict[str, Any]:
    """The `parameters` of FIRE's JSON; nothing of other texts."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    parameters = found.get("parameters") if isinstance(found, dict) else None
    return parameters if isinstance(parameters, dict) else {}


# --- a client that waits ---------------------------------------------------------------------------------------------


class ReadAhead:
    """Reads what a client sends while its scan waits into a file without a name, so that its leaving is noticed.

    Parameters
    ----------
    sock : connected socket
    next_message : id of a message that was read from it already
    limit_gib : most that is read; the client waits with the rest, as it does when there is no room for the file

    Attributes
    ----------
    file : what was read, None if that is nothing
    """

    def __init__(self, sock: socket.socket, next_message: int, limit_gib: float) -> None:
        self._socket = sock
        self._left = int(limit_gib * 2**30)
        self._end = next_message.to_bytes(2, "little")
        self.file: IO[bytes] | None = None

    def wait(self, event: int, seconds: float) -> bool:
        """Read until there is something to read from the descriptor `event`; False when there was not in `seconds`.

        Raises PeerGone when the client left before its scan was complete.
        """
        deadline = time.monotonic() + seconds
        poller = select.poll()
        poller.register(event, select.POLLIN)
        poller.register(self._socket, select.POLLIN if self._left > 0 else 0)  # errors are always told
        while (left := deadline - time.monotonic()) > 0:
            found = dict(poller.poll(milliseconds(left)))
            if event in found:
                return True
            if found and self._left > 0:
                self._read()
            elif found:
                raise PeerGone("the client is gone")
            poller.modify(self._socket, select.POLLIN if self._left > 0 else 0)
        return False

    def _read(self) -> None:
        try:
            # It is taken from the socket once it is in the file.
            chunk = self._socket.recv(min(self._left, MIB), socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise PeerGone(f"the client is gone ({reason_of(error)})") from None
        if not chunk:
            self._left = 0
            if self._end != CLOSE:  # a client that has sent all of its scan may end its half of the connection
                raise PeerGone("the client closed the connection before its CLOSE message")
            return
        try:
            if self.file is None:
                self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            written = self.file.write(chunk)
        except OSError:  # no room
            self._left = 0
            return
        self._socket.recv(written)
        self._left -= written
        self._end = (self._end + chunk[:written])[-2:]

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.file is not None:
            with contextlib.suppress(OSError):  # who reads it has it open, too, and misses what is lost
                self.file.close()


# --- answers ---------------------------------------------------------------------------------------------------------


class Outlet:
    """Writes to a client that must take something every `idle_s` seconds; what gadgetron-python's writers write to.

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
                rest = rest[self._socket.send(rest[:MIB]) :]
        except TimeoutError:
            raise PeerGone(f"the client took nothing for {self._idle_s:g} s") from None
        except OSError as error:
            raise PeerGone(f"the client is gone ({reason_of(error)})") from None

    def text(self, level: str, text: str, of_fire: bool) -> None:
        """An error or a warning, as a TEXT message.

        So Gadgetron tells its clients of errors; neither its own client nor FIRE's knows the message ERROR. FIRE's log
        lines begin with their level and end with a NUL.
        """
        line = (f"{level:8} {text}\0" if of_fire else f"[genrecon] {level}: {text}").encode(errors="replace")
        self.write(struct.pack("<HI", constants.GADGET_MESSAGE_TEXT, len(line)) + line)


def discard(sock: socket.socket, seconds: float) -> None:
    """Drop what still comes, until the client pauses: one that still sends does not read what it is told."""
    end = time.monotonic() + seconds
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    with contextlib.suppress(OSError):
        while time.monotonic() < end and poller.poll(1000 * PAUSE_S) and sock.recv(MIB, socket.MSG_DONTWAIT):
            pass
