"""The loop every gadget runs in: parameters, bounded queues between threads, sockets, and failing safely."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import select
import shutil
import socket
import struct
import sys
import threading
import time
import typing
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import ismrmrd
import numpy as np
from gadgetron.external import constants
from gadgetron.types import ImageArray, ReconData

log = logging.getLogger("genrecon")

ERROR_MESSAGE = struct.Struct("<HQ")  # message id 8, length of the text
STOPPING = 1.0  # seconds the stages of a chain that ends early may need to end
GRACE = 10.0  # seconds a listener that is told to stop leaves its running scans

# gadgetron-python makes object arrays of ctypes headers; numpy then warns once a process, for nothing.
warnings.filterwarnings("ignore", ".*PEP3118", RuntimeWarning, r"gadgetron\.external\.readers")


class ReconError(Exception):
    """An error a user can meet: one line naming the file, gadget or property, what is wrong, and the mend."""


class PeerGone(ReconError):
    """The other end of a socket went away before it sent CLOSE."""


def one_line(error: BaseException) -> str:
    """Text of an error on one line, with its type in front unless it was written for the user."""
    text = " ".join(str(error).split())
    return (
        text if isinstance(error, ReconError) else f"{type(error).__name__}: {text}" if text else type(error).__name__
    )


def reason_of(error: BaseException) -> str:
    """Why something failed: the system's own words for an error of the system, else the text on one line."""
    return getattr(error, "strerror", None) or one_line(error)


def ends_with_this(command: list[str]) -> list[str]:
    """The command, so that what it starts is killed when the thread that started it ends, by whatever death."""
    return ["setpriv", "--pdeathsig", "KILL", *command] if shutil.which("setpriv") else command


class _Collector(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if text not in self._lines:
            self._lines.append(text)


@contextlib.contextmanager
def collected_warnings(lines: list[str], leave_out: str = "") -> Iterator[None]:
    """Append to the list what gadgets of this process warn of while the block runs, but for threads of that name."""
    handler = _Collector(lines)
    handler.addFilter(lambda record: record.threadName != leave_out)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


# --- parameters ----------------------------------------------------------------------------------------------------


def parameter(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] | None = None,
    local: bool = False,
) -> Any:
    """A field of a gadget's frozen `Parameters` dataclass, with what is allowed in it.

    `read_parameters` checks values against `minimum`, `maximum` (inclusive) and `choices`. What touches files, hosts
    or later scans of the machine is `local`: chains that come over the network may not set it (`local_parameters`).
    """
    return dataclasses.field(
        default=default,
        metadata={
            "description": description,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "local": local,
        },
    )


def local_parameters(kind: type) -> dict[str, Any]:
    """Names of the fields of a `Parameters` dataclass that clients of the machine may not set; their defaults."""
    return {field.name: field.default for field in dataclasses.fields(kind) if field.metadata.get("local")}


def _allowed(field: dataclasses.Field[Any], kind: type) -> str:
    meta = field.metadata
    if meta.get("choices"):
        return "one of " + ", ".join(repr(choice) for choice in meta["choices"])
    if kind is bool:
        return "true or false"
    name = {int: "a whole number", float: "a number"}.get(kind, "text")
    low, high = meta.get("minimum"), meta.get("maximum")
    if low is not None and high is not None:
        return f"{name} from {low} to {high}"
    if low is not None:
        return f"{name} of at least {low}"
    return name if high is None else f"{name} of at most {high}"


def _parse(text: str, kind: type) -> Any:
    if kind is bool:
        lowered = text.strip().lower()
        if lowered in {"true", "1", "yes"}:
            return True
        if lowered in {"false", "0", "no"}:
            return False
        raise ValueError(text)
    return text if kind is str else kind(text.strip())


def read_parameters(kind: type, properties: Mapping[str, str], gadget: str) -> Any:
    """Fill a frozen dataclass from the text properties of a chain.

    Raises ReconError naming the gadget, the property and what is allowed, for an unknown name or a bad value.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    values = {}
    for name, text in properties.items():
        if name not in fields:
            known = ", ".join(fields) or "none"
            raise ReconError(f"gadget {gadget}: unknown property '{name}'; it has: {known}")
        field, target = fields[name], hints[name]
        meta = field.metadata
        try:
            value = _parse(text, target)
            low, high, choices = meta.get("minimum"), meta.get("maximum"), meta.get("choices")
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(text)
            if numeric and ((low is not None and value < low) or (high is not None and value > high)):
                raise ValueError(text)
            if choices and value not in choices:
                raise ValueError(text)
        except ValueError:
            raise ReconError(
                f"gadget {gadget}: property '{name}' is '{text}'; it must be {_allowed(field, target)}"
            ) from None
        values[name] = value
    return kind(**values)


# --- queues and threads --------------------------------------------------------------------------------------------


class Aborted(Exception):
    """Another stage failed or the reader of the results stopped; not an error of its own."""


def item_bytes(item: Any) -> int:
    """Memory an item of the stream holds, in bytes (arrays only)."""
    data = getattr(item, "data", None)
    if isinstance(item, ismrmrd.Acquisition):
        return int(item.data.nbytes + item.traj.nbytes)
    if isinstance(data, np.ndarray):
        return data.nbytes
    if isinstance(item, ReconData):
        buffers = [buffer for bit in item.bits for buffer in (bit.data, bit.ref) if buffer is not None]
        maps = [bit.coil_maps for bit in item.bits if getattr(bit, "coil_maps", None) is not None]
        return sum(buffer.data.nbytes for buffer in buffers) + sum(array.nbytes for array in maps)
    if isinstance(data, list):
        return sum(acquisition.data.nbytes for acquisition in (*data, *item.ref))
    return 0


class BoundedQueue:
    """A queue between two threads, bounded in items and in bytes so that a scan of any length fits in memory.

    One item is always let in, however large. `put` and iteration raise Aborted once `abort` was called.
    """

    def __init__(self, items: int = 256, megabytes: float = 24.0) -> None:
        self._limit = items
        self._byte_limit = int(megabytes * 2**20)
        self._queue: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._closed = self._failed = False
        self._aborted = False
        self._changed = threading.Condition()

    def put(self, item: Any, timeout: float | None = None) -> bool:
        """Append an item; wait while the queue is full. False when `timeout` seconds passed without room."""
        size = item_bytes(item)
        with self._changed:
            ready = self._changed.wait_for(
                lambda: (
                    self._aborted
                    or not self._queue
                    or (len(self._queue) < self._limit and self._bytes + size <= self._byte_limit)
                ),
                timeout,
            )
            if self._aborted:
                raise Aborted
            if ready:
                self._append(item, size)
            return ready

    def put_unbounded(self, item: Any) -> None:
        """Append an item however full the queue is."""
        with self._changed:
            self._append(item, item_bytes(item))

    def _append(self, item: Any, size: int) -> None:
        self._queue.append((item, size))
        self._bytes += size
        self._changed.notify_all()

    def close(self, failed: bool = False) -> None:
        """No more items will come; iteration ends after the last one, with Aborted if `failed`."""
        with self._changed:
            self._closed, self._failed = True, failed
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether it is closed, and all items were taken."""
        with self._changed:
            return self._closed and not self._queue

    def abort(self) -> None:
        """Wake and end both sides at once and drop what is queued."""
        with self._changed:
            self._aborted = True
            self._queue.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed or self._aborted)
                if self._aborted or (self._failed and not self._queue):
                    raise Aborted
                if not self._queue:
                    return
                item, size = self._queue.popleft()
                self._bytes -= size
                self._changed.notify_all()
            yield item
            del item  # the next wait must not keep the last item alive


@dataclasses.dataclass
class StageTiming:
    """Seconds a stage worked (waiting for input and for room downstream taken off), and what passed through."""

    name: str
    busy: float = 0.0
    items_in: int = 0
    items_out: int = 0


Stage = Callable[[Iterator[Any]], Iterator[Any]]


class StageThread(threading.Thread):
    """A thread of `run_stages`, by which one can tell whether any still computes."""


class _Meter:
    """Takes the time a stage waits for its input off its working time."""

    def __init__(self, items: Iterable[Any], timing: StageTiming) -> None:
        self._items = iter(items)
        self._timing = timing

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        start = time.perf_counter()
        try:
            item = next(self._items)
        finally:
            self._timing.busy -= time.perf_counter() - start
        self._timing.items_in += 1
        return item


def run_stages(
    source: Iterable[Any],
    stages: Sequence[tuple[str, Stage]],
    timings: list[StageTiming] | None = None,
) -> Iterator[Any]:
    """Run stages one after another, one thread each, joined by bounded queues; yield what the last one yields.

    Slices overlap: a stage works on one item while the next works on the item before. The first error in any
    stage ends all of them and is raised here, its `stage` attribute naming the stage (of stages within stages the
    innermost); what a stage yielded that fails after the end of its input still comes before that. Closing the
    generator early ends all threads; one that computes ends when it next reads or yields.
    """
    queues = [BoundedQueue() for _ in range(len(stages) + 1)]
    meters = [StageTiming(name) for name, _ in stages]
    if timings is not None:
        timings.extend(meters)
    failures: list[BaseException] = []
    lock = threading.Lock()

    def fail(error: BaseException, name: str, index: int | None = None) -> None:
        with lock:
            if not isinstance(error, Aborted) and not failures:
                error.stage = getattr(error, "stage", name)  # type: ignore[attr-defined]
                failures.append(error)
        if index is not None and queues[index].ended:
            queues[index + 1].close(failed=True)
            return
        for queue in queues:
            queue.abort()

    def feed() -> None:
        try:
            for item in source:
                queues[0].put(item)
            queues[0].close()
        except BaseException as error:
            fail(error, "source")

    def work(index: int) -> None:
        name, stage = stages[index]
        meter = meters[index]
        start = time.perf_counter()
        try:
            for item in stage(_Meter(queues[index], meter)):
                meter.items_out += 1
                waiting = time.perf_counter()
                queues[index + 1].put(item)
                meter.busy -= time.perf_counter() - waiting
            for _ in queues[index]:  # a stage that stopped reading early must not block the ones before it
                pass
            queues[index + 1].close()
        except BaseException as error:
            fail(error, name, index)
        finally:
            meter.busy += time.perf_counter() - start

    threads = [StageThread(target=feed, name="source", daemon=True)]
    threads += [
        StageThread(target=work, args=(index,), name=name, daemon=True) for index, (name, _) in enumerate(stages)
    ]
    for thread in threads:
        thread.start()
    try:
        with contextlib.suppress(Aborted):
            yield from queues[-1]
        if failures:
            raise failures[0]
    finally:
        for queue in queues:
            queue.abort()
        deadline = time.monotonic() + STOPPING
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))


# --- gadgets -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class NoParameters:
    """For gadgets without properties."""


class Gadget:
    """An object that reads items from a stream and yields items; it cannot tell a socket from a queue.

    Subclasses set `Parameters` (a frozen dataclass built with `parameter`) and write `process`. Items a gadget does
    not handle are yielded on unchanged. The same class serves the in-process chain, `python -m gadgetron PORT MODULE
    CLASS` and a listener that Gadgetron's `<connect>` reaches.
    """

    Parameters: ClassVar[type] = NoParameters
    parameters: Any
    header: Any

    def __init__(self) -> None:
        self.name = type(self).__name__

    def configure(self, header: Any, properties: Mapping[str, str]) -> None:
        """Take the ISMRMRD header and the text properties of the chain. Raises ReconError for a bad property."""
        self.header = header
        self.parameters = read_parameters(self.Parameters, properties, self.name)

    def process(self, items: Iterator[Any]) -> Iterator[Any]:
        """Read items, yield items."""
        raise NotImplementedError

    def stages(self, name: str) -> list[tuple[str, Stage]]:
        """What `run_stages` runs for this gadget, called `name` in a chain; more than one stage for a composite."""
        return [(name, self.process)]

    def handle(self, connection: Any) -> None:
        """Serve one scan over a `gadgetron.external.Connection`.

        A failure is answered the only way a real server survives: read the input to its CLOSE, send ERROR with one
        line of text, then CLOSE (by the caller, which closes the connection).
        """
        source = _SocketSource(connection)
        try:
            self.configure(connection.header, connection_properties(connection.config))
            for item in self.process(iter(source)):
                connection.send(for_wire(item))
            source.drain()  # input left behind by a gadget that stopped reading early would reset the connection
        except Exception as error:
            message = f"{self.name}: {one_line(error)}" if not isinstance(error, ReconError) else one_line(error)
            log.error(message, exc_info=not isinstance(error, ReconError))
            if source.drain():
                encoded = message.encode(errors="replace")
                connection.socket.write(ERROR_MESSAGE.pack(constants.GADGET_MESSAGE_ERROR, len(encoded)) + encoded)
        finally:
            source.stop()


def connection_properties(config: Any) -> dict[str, str]:
    """Properties of a `<configuration>` element, written as attributes or as `<name>`/`<value>` children."""
    if config is None:
        return {}
    properties = {}
    for element in config.iter("property"):
        name = element.get("name") or element.findtext("name")
        value = element.get("value")
        properties[(name or "").strip()] = element.findtext("value", "") if value is None else value
    return properties


class _SocketSource:
    """Reads a connection ahead in its own thread, so that the peer's end is noticed while a gadget computes.

    gadgetron-python's `SocketWrapper.read` spins for ever at end-of-file; the reading is replaced here by one that
    raises. When the peer dies before CLOSE the process ends at once if it serves this scan alone (`python -m
    gadgetron`); elsewhere the iteration raises PeerGone.
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
                    if _hung_up(self._socket):  # what the kernel still holds is small: read it all, to find CLOSE
                        self._queue.put_unbounded(item)
                        break
        except Aborted:
            for _ in self._connection:
                pass
        if not self._closed:  # gadgetron-python ends the iteration at a message it does not know
            raise ReconError("a message of unknown kind")

    def _discard(self) -> None:
        """Read what still comes until the peer pauses: it must not be told of an error while it sends."""
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
        """Wait for what follows CLOSE: only the peer's end may."""
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
        """Read the input to its CLOSE and drop it. False when the peer is gone and nothing can be told to it."""
        self._queue.abort()
        self._finished.wait()
        return not isinstance(self._failure, PeerGone)

    def stop(self) -> None:
        """End the reading thread; the connection can still be written to."""
        self._stopped = True
        self._queue.abort()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)


def _hung_up(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def read_exactly(sock: socket.socket, count: int) -> bytearray:
    """Read `count` bytes from a blocking socket; arrays made of them are writable. Raises PeerGone at end-of-file."""
    chunks = bytearray()
    while len(chunks) < count:
        chunk = sock.recv(min(count - len(chunks), 1 << 20))
        if not chunk:
            raise PeerGone("connection: the peer closed it in the middle of the stream")
        chunks += chunk
    return chunks


# --- what the wire can carry ---------------------------------------------------------------------------------------

MAPS_MARK = 0x4D41_5053  # "MAPS" in user_int[0] of every header of a ReconBit that carries coil maps


def for_wire(item: Any) -> Any:
    """The item as gadgetron-python can send it.

    numpy 2 raises half-way through a message when an array is not already complex64, meta of image arrays must be
    ASCII, and coil maps, an attribute of a ReconBit in process, travel as one more ReconBit (`gadgets.buffers`).
    """
    if isinstance(item, ReconData):
        from gadgets.buffers import maps_to_bits

        for bit in item.bits:
            for buffer in (bit.data, bit.ref):
                if buffer is not None:
                    buffer.data = np.asarray(buffer.data, dtype=np.complex64)
                    for name in ("trajectory", "density"):
                        array = getattr(buffer, name)
                        if array is not None:
                            setattr(buffer, name, np.asarray(array, dtype=np.float32))
        return maps_to_bits(item)
    if isinstance(item, ImageArray):
        meta = [text.encode("ascii", "xmlcharrefreplace").decode() for text in item.meta]
        data = np.asarray(item.data, dtype=np.complex64)
        return ImageArray(data, item.headers, meta, item.waveform, item.acq_headers)
    return item


def from_wire(item: Any) -> Any:
    """The inverse of `for_wire`: coil maps become attributes again, received arrays are writable."""
    if isinstance(item, ReconData):
        from gadgets.buffers import bits_to_maps

        return bits_to_maps(item)
    return item


class _Socket(socket.socket):
    """A socket whose `recv` raises PeerGone at end-of-file, where gadgetron-python would ask for ever."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        if size and not data:
            raise PeerGone("connection: the peer closed it in the middle of the stream")
        return data


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


def listen(port: int, make_gadget: Callable[[], Gadget], address: str = "127.0.0.1") -> None:
    """Serve scans that come from Gadgetron's `<connect>`: a fresh gadget and a thread a connection, until stopped.

    Imports and weights stay warm between scans. An exception raised by a signal handler closes the port and leaves
    the scans that run `GRACE` seconds. Raises ReconError when the port cannot be opened.
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
        deadline = time.monotonic() + GRACE
        for thread in scans:
            thread.join(max(deadline - time.monotonic(), 0.0))
