"""A streaming server for scanners: MRD in, images out, for Gadgetron's client and for Siemens FIRE."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any

from gadgets.dicom.delivery import deliver, spool_status
from gadgets.dicom.sender import DELIVERY
from gadgets.stream import PeerGone, ReconError, reason_of
from gadgets.stream.sockets import listening_socket
from pipelines.server.fork_server import Nursery, ScanProcess
from pipelines.server.intake import CLOSE, Intake, Outlet, ReadAhead, Request, discard
from pipelines.server.processes import memory_of
from pipelines.server.settings import Ended, ServeSettings

log = logging.getLogger("genrecon")

CONNECTIONS = 64  # at a time, beside those whose scans run and wait
RECENT = 24  # scans that the status page tells of
SILENT_S = (60, 10, 6)  # a client's host is asked after so long a silence, again after so long, so often
WATCH_S = 0.05  # between two looks at a scan's memory
LATE_S = 10.0  # that a scan may end later than its limit by itself
START_S = 300.0  # that a process may take to be ready
DEATH_S = 10.0  # that a process may take to end once it is killed
STOPPING_S = 5.0  # that connections and threads have to end after the scans, when the server stops
DELIVERY_S = 5.0  # that their files have to be sent
PAUSES_S = (0.0, 1.0, 5.0, 30.0)  # before a process that did not get ready, or ended at once, is started again
YOUNG_S = 5.0  # a process without a scan that ends within that ended at once


@dataclass(eq=False)
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

    def log(self, level: int, text: str) -> None:
        """Write a line about it."""
        log.log(level, "scan %d: %s", self.number, text, extra={"scan": self.number})


class Ticket:
    """A client's scan on its way through the server: it waits for a place, then for its end.

    Attributes
    ----------
    scan : what is known of it
    place : where it is reconstructed
    done : set at its end
    sending : whether the client may have a part of an image, so that nothing else can be told to it
    killed : why its process was killed, where that is known
    told : what the client is to be told, once it is done
    turn : descriptor that has something to read when its waiting for a place is over
    """

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.place: Place | None = None
        self.done = threading.Event()
        self.sending = False
        self.killed = self.told = ""
        self.turn = os.eventfd(0)

    def call(self, place: Place) -> None:
        """It is its turn."""
        self.place = place
        self.scan.state, self.scan.began = "runs", time.monotonic()
        self.wake()

    def wake(self) -> None:
        """End its waiting."""
        os.eventfd_write(self.turn, 1)


# --- where scans are reconstructed -----------------------------------------------------------------------------------


class Place:
    """A process that reconstructs one scan at a time, and the thread that follows it and starts another when it ends.

    Attributes
    ----------
    ticket : of the scan that it is taken by
    ready : whether the process can take a scan
    doomed : whether it was killed, so that it takes none, whatever it still says
    settled : set once the first process is ready, or did not get so
    failure : why the process did not get ready
    """

    def __init__(self, server: Server) -> None:
        self._server, self._settings = server, server.settings
        self.ticket: Ticket | None = None
        self.ready = False
        self.doomed = False
        self.settled = threading.Event()
        self.failure = ""
        self.thread = threading.Thread(target=self._run, name="place", daemon=True)
        self._process: ScanProcess | None = None
        self._giving = threading.Lock()  # held while something is sent over the link
        self._link: Connection | None = None
        self._scratch: str | None = None
        self._due = math.inf  # when it must be ready
        self._born = 0.0  # when it was
        self._died_young = False
        self._idle_bytes = 0

    @property
    def process_id(self) -> int:
        """Of its process; 0 without one."""
        process = self._process
        return 0 if process is None else process.pid

    def give(self, ticket: Ticket, request: Request, sock: socket.socket, ahead: ReadAhead) -> None:
        """Hand the scan of its ticket over to the process."""
        with self._giving:
            if self.ticket is not ticket or self._link is None:
                return  # the process has just ended, and the ticket says so
            try:
                self._link.send((request, ahead.file is not None))
                send_handle(self._link, sock.fileno(), None)
                if ahead.file is not None:
                    send_handle(self._link, ahead.file.fileno(), None)
            except OSError as error:  # it cannot go on with half of that
                self.kill(f"it could not be handed over ({reason_of(error)}); send the scan again")

    def kill(self, why: str) -> None:
        """End the process at once; its client is told why."""
        ticket, process = self.ticket, self._process
        if ticket is not None:
            ticket.killed = ticket.killed or why
        if process is not None:
            self.doomed = True
            process.kill()

    def _run(self) -> None:
        attempts = 0
        while not self._server.stopping:
            self.failure = ""
            try:
                self._start()
                self._follow()
            except Exception as error:  # no descriptors or memory for another process, for instance
                self.failure = f"a process for scans cannot be started ({reason_of(error)})"
            self._end()
            if self.failure and self.settled.is_set():
                log.error("%s; it is tried again", self.failure)
            self.settled.set()
            attempts = attempts + 1 if self.failure or self._died_young else 0
            self._server.stopped.wait(PAUSES_S[min(attempts, len(PAUSES_S) - 1)])
        self.settled.set()

    def _start(self) -> None:
        self._due, self.doomed = time.monotonic() + START_S, False
        with contextlib.suppress(OSError):  # on a full disk there is none
            self._scratch = tempfile.mkdtemp(prefix="genrecon-")
        self._link, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = self._server.nursery.make(theirs)
        with self._giving:
            self._link.send((self._settings, log.getEffectiveLevel(), self._scratch))

    def _follow(self) -> None:
        """Hear what the process tells, until it ends."""
        assert self._link is not None
        while self.ticket is not None or not self._server.stopping:
            try:
                heard = self._link.recv() if self._link.poll(1.0 if self.ticket is None else WATCH_S) else None
            except (EOFError, OSError):
                return
            if heard is not None:
                self._heard(*heard)
            self._watch()

    def _heard(self, what: str, about: Any) -> None:
        ticket = self.ticket
        if what == "log":
            values, in_scan = about
            number = ticket.scan.number if ticket is not None and in_scan else None
            log.handle(logging.makeLogRecord(values | {"scan": number}))
        elif what == "ready":
            self._idle_bytes = memory_of(self.process_id)
            self._due, self._born = math.inf, time.monotonic()
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
            scan.log(logging.INFO, f"chain {scan.chain} from {scan.peer}")
        elif what == "sending":
            ticket.sending = True
        elif what == "image":
            ticket.sending = False
            scan.thumbnail = about
            scan.images += 1
            scan.first_image_s = scan.first_image_s or scan.elapsed()
            self._server.count("images")
        elif what == "ended":
            if not about.goes_on:
                scan.log(logging.INFO, "its computation goes on, so its process is replaced")
            self._server.ended(self, ticket, about)

    def _watch(self) -> None:
        """Kill a process that takes more memory or time than it may."""
        limits, ticket = self._settings.limits, self.ticket
        if ticket is not None:
            if ticket.scan.elapsed() > limits.scan_s + LATE_S:
                self.kill(f"it took longer than {limits.scan_s:g} s")
            with contextlib.suppress(OSError):  # it has just ended
                taken = memory_of(self.process_id) - self._idle_bytes
                if ticket.scan.chain and taken > limits.memory_gib * 2**30:  # before, it may be the last scan's
                    self.kill(f"it took more than {limits.memory_gib:g} GiB of memory; raise --memory if it may")
        elif time.monotonic() > self._due:
            self.failure = f"a process for scans was not ready within {START_S:g} s"
            self.kill("")

    def _end(self) -> None:
        """Make sure that the process has ended, and tell of what it leaves."""
        was_ready, was_due = self.ready, self._due
        self._died_young = False
        self._server.is_closed(self)
        code: int | None = None
        if self._process is not None:
            self._process.kill()
            if self._process.wait(DEATH_S):
                code = self._server.nursery.exit_code(self._process.pid)
            else:
                log.error("process %d does not end, though it was killed; look at it", self._process.pid)
            self._process.close()
            self._process = None
        with self._giving:
            if self._link is not None:
                self._link.close()
                self._link = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
        ticket = self.ticket
        if ticket is not None:
            text = ticket.killed or f"its process ended{_ending(code)}; send the scan again"
            self._server.ended(self, ticket, Ended(text, text, goes_on=False))
        elif self._server.stopping:
            return
        elif was_due < math.inf:
            self.failure = self.failure or f"a process for scans ended before it was ready{_ending(code)}"
        elif was_ready:
            self._server.count("replaced")
            self._died_young = time.monotonic() - self._born < YOUNG_S
            log.warning("a process for scans ended%s; another one is started", _ending(code))


def _ending(code: int | None) -> str:
    if code is None:
        return ""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f" ({signal.Signals(-code).name})"
    return f" (exit code {code})"


# --- the server ------------------------------------------------------------------------------------------------------


class Server:
    """Serves scans until it is stopped: a thread a connection, `settings.scans` processes that reconstruct.

    Parameters
    ----------
    settings : see there
    nursery : makes these processes; it may make those of other servers, too

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

    def __init__(self, settings: ServeSettings, nursery: Nursery) -> None:
        self.settings, self.nursery = settings, nursery
        self.started = time.time()
        self._began = time.monotonic()
        self.scans: list[Scan] = []
        self.totals = {"scans": 0, "failed": 0, "refused": 0, "images": 0, "replaced": 0}
        self.stopping = False
        self.stopped = threading.Event()  # at the same time as `stopping`
        self._scans_ended = threading.Event()  # all of them, when it stops
        self._number = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[Ticket] = deque()
        self._connections: set[socket.socket] = set()
        self._listener = listening_socket(settings.bind, settings.port)
        self.port = int(self._listener.getsockname()[1])
        self._places = [Place(self) for _ in range(settings.scans)]
        self._delivery = threading.Thread(target=self._deliver, name=DELIVERY, daemon=True)

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
        """Serve until `stop`, to its end."""
        for place in self._places:
            place.thread.start()
        if self.settings.spool is not None:
            self._delivery.start()
        for place in self._places:
            place.settled.wait()
            if place.failure and not self.stopping:
                self.stop()
                raise ReconError(place.failure)
        if not self.stopping:
            log.info("serving on %s port %d", self.settings.bind, self.port)
        while True:
            try:
                conn, address = self._listener.accept()
            except OSError:
                if self.stopping:  # that closed it
                    return self.stop()
                time.sleep(0.1)  # no file descriptors left, say
                continue
            host, port = address[:2]
            self._accepted(conn, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

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
        self._refused(peer, reason)
        conn.close()

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
        self._wait_for_delivery()
        self._scans_ended.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, STOPPING_S)
            for conn in self._connections:
                with contextlib.suppress(OSError):
                    conn.shutdown(socket.SHUT_RDWR)
        threads = [*(place.thread for place in self._places), self._delivery]
        threads = [thread for thread in threads if thread.ident is not None]
        for patience in (STOPPING_S, DEATH_S + STOPPING_S):
            deadline = time.monotonic() + patience
            for thread in threads:
                thread.join(max(deadline - time.monotonic(), 0.0))
            if not any(thread.is_alive() for thread in threads):
                break
            self.nursery.kill()  # it does not answer

    def _wait_for_delivery(self) -> None:
        """Give what the last scans left in the spool a moment to be sent, where the PACS is there."""
        spool, deadline = self.settings.spool, time.monotonic() + DELIVERY_S
        with contextlib.suppress(ReconError, OSError):  # told by the delivery
            while spool is not None and self._delivery.is_alive() and time.monotonic() < deadline:
                if not any(queue.waiting and not queue.next_attempt_s for queue in spool_status(spool)):
                    return
                time.sleep(0.05)

    def _deliver(self) -> None:
        """Deliver what earlier processes left in the spool, and what scans add to it."""
        assert self.settings.spool is not None
        while not self._scans_ended.is_set():
            try:
                deliver(self.settings.spool, self._scans_ended)
            except Exception as error:  # its next attempt may do better
                log.error("%s", error if isinstance(error, ReconError) else f"delivery: {type(error).__name__}")
                self._scans_ended.wait(PAUSES_S[-1])
        with contextlib.suppress(ReconError, OSError):  # told already
            for queue in spool_status(self.settings.spool):
                if queue.waiting:
                    log.warning("PACS %s: %s until the server's next start", queue.pacs, queue.text())

    # --- places

    def is_free(self, place: Place) -> None:
        """The place's process can take a scan."""
        with self._lock:
            place.ready, place.ticket = not place.doomed, None
            self._call_next()

    def _call_next(self) -> None:
        for place in self._places:
            if self._queue and place.ready and place.ticket is None and not self.stopping:
                place.ticket = self._queue.popleft()
                place.ticket.call(place)

    def is_closed(self, place: Place) -> None:
        """The place's process takes no scan from here on."""
        with self._lock:
            place.ready = False

    def count(self, what: str) -> None:
        """Count one more in `totals`."""
        with self._lock:
            self.totals[what] += 1

    def ended(self, place: Place, ticket: Ticket, how: Ended) -> None:
        """The scan of a place has ended."""
        scan = ticket.scan
        scan.seconds, scan.error = scan.elapsed(), how.error
        if how.error:
            scan.log(logging.ERROR if how.told else logging.WARNING, how.error)
        else:
            scan.log(logging.INFO, f"{scan.images} images in {scan.seconds:.2f} s")
        with self._lock:
            scan.state = "failed" if how.error else "done"
            self.totals["scans"] += 1
            self.totals["failed"] += bool(how.error)
            goes_on = how.goes_on and not place.doomed
            self.totals["replaced"] += not goes_on
            ended = [one for one in self.scans if one.state in ("done", "failed")]
            for old in ended[:-RECENT]:
                self.scans.remove(old)
            place.ready, place.ticket = goes_on, None
            self._call_next()
            self._changed.notify_all()
        ticket.told = how.told
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
        try:
            ticket = Ticket(Scan(peer))
            reason = self._place_for(ticket, request, conn)
        except OSError as error:  # no descriptors left
            reason = reason_of(error)
        if reason:
            self._refused(peer, reason)
            self._tell(conn, f"busy: {reason}; send the scan again later", of_fire)
            return
        del request
        ticket.done.wait()
        if ticket.told and not ticket.sending:
            self._tell(conn, ticket.told, of_fire)

    def _place_for(self, ticket: Ticket, request: Request, conn: socket.socket) -> str:
        """Wait for a place and hand the scan over to it; or why it gets none."""
        try:
            with ReadAhead(conn, request.next_message, self.settings.limits.ahead_gib) as ahead:
                reason = self._wait(ticket, ahead)
                if ticket.place is not None:
                    ticket.place.give(ticket, request, conn, ahead)
                return reason
        except BaseException:
            with self._lock:
                if ticket.place is not None and ticket.place.ticket is ticket:  # else another scan may be there
                    ticket.place.kill("it could not be handed over; send the scan again")
            raise
        finally:
            os.close(ticket.turn)

    def _request(self, conn: socket.socket, peer: str) -> Request | None:
        """What the client asks for; None when it asks for nothing, left, or was refused."""
        intake = Intake(conn, self.settings.limits)
        begun = False
        try:
            begun = intake.first_message() is not None
            request = intake.request() if begun else None
        except PeerGone:
            self._refused(peer, "it left in the middle of its request")
            return None
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

    def _wait(self, ticket: Ticket, ahead: ReadAhead) -> str:
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
        finally:
            with self._lock:
                if ticket.place is None:  # from here on it cannot get one, which nobody would give the scan to
                    self._queue.remove(ticket)
                    self.scans.remove(scan)
        # A client that has left is noticed by its place.
        return reason if ticket.place is None else ""

    def _tell(self, conn: socket.socket, text: str, of_fire: bool) -> None:
        """Tell of an error, and close only when the client has sent all it wants to: else it may lose that."""
        limits = self.settings.limits
        with contextlib.suppress(PeerGone):
            outlet = Outlet(conn, limits.idle_s)
            outlet.text("ERROR", text, of_fire)
            outlet.write(CLOSE)
            discard(conn, min(limits.idle_s, limits.scan_s))

    def _refused(self, peer: str, reason: str) -> None:
        self.count("refused")
        log.warning("%s: refused: %s", peer, reason)


def _watch_for_dead_hosts(conn: socket.socket) -> None:
    """Have the connection end when the client's host is gone without a word."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in zip((socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT), SILENT_S, strict=True):
        conn.setsockopt(socket.IPPROTO_TCP, option, value)
