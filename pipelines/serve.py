"""A streaming server for scanners: MRD in, images out, for Gadgetron's client and for Siemens FIRE."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any

from gadgets.spool import deliver
from gadgets.stream import PeerGone, ReconError, one_line
from pipelines.heap import memory_of
from pipelines.intake import CLOSE, Intake, Outlet, ReadAhead, Request, discard
from pipelines.serve_settings import ServeSettings

log = logging.getLogger("genrecon")

CONNECTIONS = 64  # at a time, beside those whose scans run and wait
RECENT = 24  # scans that the status page tells of
SILENT_S = (60, 10, 6)  # a client's host is asked after so long a silence, again after so long, so often
WATCH_S = 0.05  # between two looks at a scan's memory
LATE_S = 10.0  # that a scan may end later than its limit by itself
START_S = 300.0  # that a process may take to be ready
STOPPING_S = 2.0  # that connections have to end after the scans, when the server stops
PAUSES_S = (0.0, 1.0, 5.0, 30.0)  # before a process that did not get ready is started again

PROCESSES = multiprocessing.get_context("forkserver")
_starting = threading.Lock()  # multiprocessing's own lists of processes have none


def prepare() -> None:
    """Begin to load what processes of scans need, in a process that these are then made from."""
    PROCESSES.set_forkserver_preload(["pipelines.scan_worker", "pipelines.serve"])
    with _starting:
        multiprocessing.forkserver.ensure_running()


def _work(link: Connection, settings: ServeSettings, level: int) -> None:
    from pipelines.scan_worker import work

    work(link, settings, level)


@dataclass
class Scan:
    """What is known of a scan, without anything of the patient."""

    peer: str
    number: int = 0
    began: float = field(default_factory=time.monotonic)
    chain: str = ""
    state: str = "waits"
    images: int = 0
    first_image_s: float = 0.0
    seconds: float = 0.0
    error: str = ""
    thumbnail: Any = None  # uint8 (y, x)

    def elapsed(self) -> float:
        """Seconds that it runs, or waits."""
        return self.seconds or time.monotonic() - self.began


class Ticket:
    """A client's scan on its way through the server: it waits for a place, then for its end.

    Attributes
    ----------
    scan : what is known of it
    turn : descriptor that has something to read once it has a place
    place : where it is reconstructed
    done : set at its end
    sending : whether the client may have a part of an image, so that nothing else can be told to it
    fate : what its process could not tell the client
    """

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.turn = os.eventfd(0)
        self.place: Place | None = None
        self.done = threading.Event()
        self.sending = False
        self.fate = ""

    def call(self, place: Place) -> None:
        """It is its turn."""
        self.place = place
        self.scan.state, self.scan.began = "runs", time.monotonic()
        self.wake()

    def wake(self) -> None:
        """End its waiting."""
        os.eventfd_write(self.turn, 1)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.turn)


# --- where scans are reconstructed -----------------------------------------------------------------------------------


class Place:
    """A process that reconstructs one scan at a time, and the thread that follows it and starts another when it ends.

    Attributes
    ----------
    ticket : of the scan that it is taken by
    ready : whether the process can take a scan
    settled : set once the first process is ready, or did not get so
    failure : why the process did not get ready
    """

    def __init__(self, server: Server) -> None:
        self._server, self._settings = server, server.settings
        self.ticket: Ticket | None = None
        self.ready = False
        self.settled = threading.Event()
        self.failure = ""
        self.thread = threading.Thread(target=self._run, name="place", daemon=True)
        self._lock = threading.Lock()  # of process and link
        self._process: Any = None
        self._link: Connection | None = None
        self._due = math.inf  # when it must be ready
        self._idle_bytes = 0

    @property
    def process_id(self) -> int:
        """Of its process; 0 without one."""
        process = self._process
        return 0 if process is None else int(process.pid)

    def give(self, ticket: Ticket, request: Request, sock: socket.socket, ahead: ReadAhead) -> None:
        """Hand the scan of its ticket over to the process. One that has just ended is told of by the ticket."""
        with self._lock, contextlib.suppress(OSError):
            if self.ticket is ticket and self._link is not None:
                self._link.send((request, ahead.file is not None))
                send_handle(self._link, sock.fileno(), None)
                if ahead.file is not None:
                    send_handle(self._link, ahead.file.fileno(), None)

    def kill(self, why: str) -> None:
        """End the process at once."""
        if self.ticket is not None:
            self.ticket.fate = why
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def _run(self) -> None:
        attempts = 0
        while not self._server.stopping:
            self.failure = ""
            try:
                self._start()
                self._follow()
            except OSError as error:  # no descriptors or memory for another process
                self.failure = f"a process for scans cannot be started ({one_line(error)})"
            self._end()
            if self.failure and self.settled.is_set():
                log.error("%s; it is tried again", self.failure)
            self.settled.set()
            attempts = attempts + 1 if self.failure else 0
            self._server.stopped.wait(PAUSES_S[min(attempts, len(PAUSES_S) - 1)])
        self.settled.set()

    def _start(self) -> None:
        self._due = time.monotonic() + START_S
        ours, theirs = PROCESSES.Pipe()
        with self._lock, theirs, _starting:
            self._link = ours
            process = PROCESSES.Process(
                target=_work, args=(theirs, self._settings, log.getEffectiveLevel()), daemon=True
            )
            process.start()
            self._process = process

    def _follow(self) -> None:
        """Hear what the process tells, until it ends."""
        assert self._link is not None
        with contextlib.suppress(EOFError, ConnectionError):
            while self.ticket is not None or not self._server.stopping:
                if self._link.poll(1.0 if self.ticket is None else WATCH_S):
                    self._heard(*self._link.recv())
                self._watch()

    def _heard(self, what: str, about: Any) -> None:
        ticket = self.ticket
        if what == "log":
            log.handle(logging.makeLogRecord(about | {"scan": ticket.scan.number if ticket else None}))
        elif what == "ready":
            self._idle_bytes = memory_of(self.process_id)
            self._due = math.inf
            self.settled.set()
            self._server.is_free(self)
        elif what == "failed":
            self.failure = about
        elif ticket is not None:
            self._heard_of_scan(ticket, what, about)

    def _heard_of_scan(self, ticket: Ticket, what: str, about: Any) -> None:
        scan = ticket.scan
        if what == "chain":
            scan.chain = about
            log.info("scan %d: chain %s from %s", scan.number, scan.chain, scan.peer)
        elif what == "sending":
            ticket.sending = True
        elif what == "image":
            ticket.sending = False
            scan.thumbnail = about
            scan.images += 1
            scan.first_image_s = scan.first_image_s or scan.elapsed()
            self._server.count("images")
        elif what == "ended":
            ticket.fate = ""  # it told the client itself
            level = logging.WARNING if about.client_left else logging.ERROR
            if not about.goes_on:
                log.info("scan %d: its computation goes on, so its process is replaced", scan.number)
            self._server.ended(self, about.error, level, about.goes_on)

    def _watch(self) -> None:
        """Kill a process that takes more memory or time than it may."""
        limits = self._settings.limits
        if self.ticket is not None:
            if self.ticket.scan.elapsed() > limits.scan_s + LATE_S:
                self.kill(f"it took longer than {limits.scan_s:g} s")
            with contextlib.suppress(OSError):  # it has just ended
                if memory_of(self.process_id) - self._idle_bytes > limits.memory_gib * 2**30:
                    self.kill(f"it took more than {limits.memory_gib:g} GiB of memory; raise --memory if it may")
        elif time.monotonic() > self._due:
            self.failure = f"a process for scans was not ready within {START_S:g} s"
            self.kill("")

    def _end(self) -> None:
        """Make sure that the process has ended, and tell of what it leaves."""
        with self._lock, _starting:
            code: int | None = None
            if self._link is not None:
                self._link.close()
            if self._process is not None:
                self._process.kill()
                self._process.join()
                code = self._process.exitcode
                self._process.close()
            self._link = self._process = None
        was_ready = self._server.is_closed(self)
        if self.ticket is not None:
            self.ticket.fate = self.ticket.fate or f"its process ended ({_ending(code)}); send the scan again"
            self._server.ended(self, self.ticket.fate, logging.ERROR, goes_on=False)
        elif self._server.stopping:
            return
        elif self._due < math.inf:
            self.failure = self.failure or f"a process for scans ended before it was ready ({_ending(code)})"
        elif was_ready:
            self._server.count("replaced")
            log.warning("a process for scans ended (%s); another one is started", _ending(code))


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


# --- the server ------------------------------------------------------------------------------------------------------


class Server:
    """Serves scans until it is stopped: a thread a connection, `settings.scans` processes that reconstruct.

    Attributes
    ----------
    port : that is listened on
    scans : what is known of those that run and wait, and of the last ones that ended
    totals : counters
    stopping : whether it takes no more scans

    Raises
    ------
    ReconError
        The port cannot be opened; by `run` also a process that does not get ready.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.started = time.time()
        self._began = time.monotonic()
        self.scans: list[Scan] = []
        self.totals = {"scans": 0, "failed": 0, "refused": 0, "images": 0, "replaced": 0}
        self.stopping = False
        self.stopped = threading.Event()  # at the same time as `stopping`
        self._number = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[Ticket] = deque()
        self._connections: set[socket.socket] = set()
        try:
            self._listener = socket.create_server((settings.bind, settings.port))
        except (OSError, OverflowError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
            raise ReconError(
                f"port {settings.port}: cannot listen on {settings.bind} ({reason}); choose another port or address"
            ) from None
        self.port = int(self._listener.getsockname()[1])
        self._places = [Place(self) for _ in range(settings.scans)]
        self._delivery = threading.Thread(target=self._deliver, name="delivery", daemon=True)

    def uptime(self) -> float:
        """Seconds that it has served, whatever the wall clock did."""
        return time.monotonic() - self._began

    def waiting(self) -> int:
        """Scans that wait for a place."""
        return len(self._queue)

    def running(self) -> int:
        """Scans that run."""
        return sum(place.ticket is not None for place in self._places)

    def processes(self) -> list[int]:
        """Ids of the processes that reconstruct, or could."""
        return [place.process_id for place in self._places if place.ready]

    def run(self) -> None:
        """Serve until `stop`."""
        prepare()
        for place in self._places:
            place.thread.start()
        if self.settings.spool is not None:
            self._delivery.start()
        for place in self._places:
            place.settled.wait()
            if place.failure:
                self.stop()
                raise ReconError(place.failure)
        log.info("serving on %s port %d", self.settings.bind, self.port)
        while True:
            try:
                conn, address = self._listener.accept()
            except OSError:  # closed by stop
                if self.stopping:
                    return
                time.sleep(0.1)  # no file descriptors left, say
                continue
            self._accepted(conn, f"{address[0]}:{address[1]}")

    def _accepted(self, conn: socket.socket, peer: str) -> None:
        with self._lock:
            full = len(self._connections) >= CONNECTIONS + self.settings.scans + self.settings.waiting
            if not full:
                self._connections.add(conn)
        reason = f"there are {len(self._connections)} connections"
        if not full:
            try:
                threading.Thread(target=self._connection, args=(conn, peer), name="connection", daemon=True).start()
                return
            except RuntimeError as error:  # no memory for another thread
                reason = str(error)
                self._forget(conn)
        conn.close()
        self._refused(peer, reason)

    def stop(self) -> None:
        """Take no more scans, wait `grace_s` for those that run, and end all processes."""
        self.stopping = True
        self.stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            for ticket in self._queue:
                ticket.wake()
            idle = [place for place in self._places if place.ticket is None]
        for place in idle:
            place.kill("")
        with self._changed:
            self._changed.wait_for(lambda: not self.running(), self.settings.grace_s)
        for place in self._places:
            place.kill("the server stopped; send the scan again")
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, STOPPING_S)
            for conn in self._connections:
                with contextlib.suppress(OSError):
                    conn.shutdown(socket.SHUT_RDWR)
        for thread in (*(place.thread for place in self._places), self._delivery):
            if thread.ident is not None:
                thread.join()

    def _deliver(self) -> None:
        """Deliver what earlier processes left in the spool, and what scans add to it."""
        assert self.settings.spool is not None
        while not self.stopping:
            try:
                deliver(self.settings.spool, self.stopped)
            except ReconError as error:
                log.error("%s", error)
                self.stopped.wait(PAUSES_S[-1])

    # --- places

    def is_free(self, place: Place) -> None:
        """The place's process can take a scan."""
        with self._lock:
            place.ready, place.ticket = True, None
            self._call_next()

    def _call_next(self) -> None:
        for place in self._places:
            if self._queue and place.ready and place.ticket is None and not self.stopping:
                place.ticket = self._queue.popleft()
                place.ticket.call(place)

    def is_closed(self, place: Place) -> bool:
        """The place's process has ended; whether it could have taken a scan. It gets none from here on."""
        with self._lock:
            was_ready, place.ready = place.ready, False
            return was_ready

    def count(self, what: str) -> None:
        """Count one more in `totals`."""
        with self._lock:
            self.totals[what] += 1

    def ended(self, place: Place, error: str, level: int, goes_on: bool) -> None:
        """The scan of a place has ended."""
        ticket = place.ticket
        assert ticket is not None
        scan = ticket.scan
        scan.seconds, scan.error = scan.elapsed(), error
        if error:
            log.log(level, "scan %d: %s", scan.number, error)
        else:
            log.info("scan %d: %d images in %.2f s", scan.number, scan.images, scan.seconds)
        with self._lock:
            scan.state = "failed" if error else "done"
            self.totals["scans"] += 1
            self.totals["failed"] += bool(error)
            self.totals["replaced"] += not goes_on
            ended = [one for one in self.scans if one.state in ("done", "failed")]
            for old in ended[:-RECENT]:
                self.scans.remove(old)
            place.ready, place.ticket = goes_on, None
            self._call_next()
            self._changed.notify_all()
        ticket.done.set()

    # --- one connection

    def _connection(self, conn: socket.socket, peer: str) -> None:
        try:
            with conn:
                self._serve(conn, peer)
        except Exception as error:
            log.error("%s: unexpected %s", peer, type(error).__name__)
            log.info("traceback", exc_info=error)
        finally:
            self._forget(conn)

    def _forget(self, conn: socket.socket) -> None:
        with self._changed:
            self._connections.discard(conn)
            self._changed.notify_all()

    def _serve(self, conn: socket.socket, peer: str) -> None:
        _watch_for_dead_hosts(conn)
        # All of the request before a place is taken: a client that does not go on must not hold one.
        request = self._request(conn, peer)
        if request is None:
            return
        of_fire = request.of_fire
        ahead_gib = self.settings.limits.ahead_gib
        with Ticket(Scan(peer)) as ticket, ReadAhead(conn, request.next_message, ahead_gib) as ahead:
            reason = self._admit(ticket, ahead)
            if reason:
                self._refused(peer, reason)
                self._tell(conn, f"busy: {reason}; send the scan again later", of_fire)
                return
            assert ticket.place is not None
            ticket.place.give(ticket, request, conn, ahead)
            del request
            ticket.done.wait()
            if ticket.fate and not ticket.sending:
                self._tell(conn, ticket.fate, of_fire)

    def _request(self, conn: socket.socket, peer: str) -> Request | None:
        """What the client asks for; None when it asks for nothing, left, or was refused."""
        intake = Intake(conn, self.settings.limits)
        begun = False
        try:
            begun = intake.first_message() is not None
            request = intake.request() if begun else None
        except PeerGone:
            begun, request = False, None
        except ReconError as error:
            self._refused(peer, str(error))
            if begun:
                self._tell(conn, str(error), of_fire=False)
            return None
        if not begun:
            log.info("%s: connected and left", peer)
        elif request is None:  # Gadgetron's query for dependencies ends before a header
            with contextlib.suppress(PeerGone):
                Outlet(conn, self.settings.limits.idle_s).write(CLOSE)
        return request

    def _admit(self, ticket: Ticket, ahead: ReadAhead) -> str:
        """Wait until the scan has a place; why it gets none."""
        settings, scan = self.settings, ticket.scan
        with self._lock:
            if self.stopping:
                return "the server stops"
            if len(self._queue) >= settings.waiting + settings.scans - self.running():
                return f"{len(self._queue)} scans wait already"
            self._number += 1
            scan.number = self._number
            self.scans.append(scan)
            self._queue.append(ticket)
            self._call_next()
        reason = "the server stops"
        try:
            if not ahead.wait(ticket.turn, settings.limits.scan_s):
                reason = f"it waited longer than {settings.limits.scan_s:g} s"
        except PeerGone:
            reason = "it left while it waited"
        with self._lock:
            if ticket.place is not None:
                return ""  # a client that has left is noticed by the place
            self._queue.remove(ticket)
            self.scans.remove(scan)
        return reason

    def _tell(self, conn: socket.socket, text: str, of_fire: bool) -> None:
        """Send an ERROR, and close only when the client has sent all it wants to: else it may lose that."""
        limits = self.settings.limits
        with contextlib.suppress(PeerGone):
            Outlet(conn, limits.idle_s).error(text, of_fire)
            discard(conn, min(limits.idle_s, limits.scan_s))

    def _refused(self, peer: str, reason: str) -> None:
        self.count("refused")
        log.warning("%s: refused: %s", peer, reason)


def _watch_for_dead_hosts(conn: socket.socket) -> None:
    """Have the connection end when the client's host is gone without a word."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in zip((socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT), SILENT_S, strict=True):
        conn.setsockopt(socket.IPPROTO_TCP, option, value)
