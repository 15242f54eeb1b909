"""The streaming server for scanners: MRD in, images out, for Gadgetron's client and for Siemens FIRE."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time

from gadgets.stream import ReconError
from gadgets.stream.sockets import listening_socket
from pipelines.server.connection import ClientConnection, refuse
from pipelines.server.delivery import SpoolDelivery
from pipelines.server.fork_server import ForkServer
from pipelines.server.keeper import Keeper
from pipelines.server.scan_queue import ScanQueue
from pipelines.server.settings import ServeSettings
from pipelines.server.worker_slot import EXIT_TIMEOUT_S

log = logging.getLogger("genrecon")

SPARE_CONNECTIONS = 64  # at a time, besides those whose scans run and wait
ACCEPT_RETRY_S = 0.1  # after a connection that could not be accepted: no descriptors left, say
THREADS_TIMEOUT_S = 5.0  # for connections, and then for threads, to end after the scans
DELIVERY_TIMEOUT_S = 5.0  # for files of the last scans to be sent


class Server:
    """Serves scans until it is stopped: a thread for each connection, `settings.scans` scan processes.

    Parameters
    ----------
    settings : see there
    fork_server : makes the scan processes; servers may share it

    Attributes
    ----------
    port : that it listens on
    queue : scans that wait, run and ended last
    started : time of its start, in seconds since 1970

    Raises
    ------
    ReconError
        The port cannot be opened; in `run`, a scan process does not get ready.
    """

    def __init__(self, settings: ServeSettings, fork_server: ForkServer) -> None:
        self.settings = settings
        self.started = time.time()
        self._started_monotonic = time.monotonic()
        self._fork_server = fork_server
        self._connections_changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._listener = listening_socket(settings.bind, settings.port)
        self.port = int(self._listener.getsockname()[1])
        self._keeper = self._make_keeper()
        self.queue = ScanQueue(settings, fork_server, self._keeper)
        if self._keeper is not None:
            self._keeper.run_late = self.queue.run_late
        self._delivery = SpoolDelivery(settings.spool) if settings.spool is not None else None

    def _make_keeper(self) -> Keeper | None:
        settings = self.settings
        if settings.keep_raw is None:
            return None
        try:
            return Keeper(settings.keep_raw, settings.keep_raw_gib, settings.keep_raw_days, self._fork_server)
        except ReconError:
            self._listener.close()
            raise

    def uptime(self) -> float:
        """Seconds that it has served, whatever the wall clock did."""
        return time.monotonic() - self._started_monotonic

    @property
    def stopping(self) -> bool:
        """Whether it takes no more scans."""
        return self.queue.stopping.is_set()

    def run(self) -> None:
        """Serve until `stop`, to its end."""
        for slot in self.queue.slots:
            slot.thread.start()
        if self._delivery is not None:
            self._delivery.thread.start()
        if self._keeper is not None:
            self._keeper.thread.start()
        for slot in self.queue.slots:
            slot.start_tried.wait()
            if slot.start_error and not self.stopping:
                self.stop()
                raise ReconError(slot.start_error)
        if not self.stopping:
            log.info("serving on %s port %d", self.settings.bind, self.port)
        while True:
            try:
                sock, address = self._listener.accept()
            except OSError:
                if self.stopping:  # `stop` closed the listening socket
                    return self.stop()
                time.sleep(ACCEPT_RETRY_S)
                continue
            host, port = address[:2]
            self._accepted(sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def stop(self) -> None:
        """Take no more scans, wait `grace_s` for those that run, and end all processes."""
        self.queue.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.queue.stop(self.settings.grace_s)
        if self._delivery is not None:
            self._delivery.stop(DELIVERY_TIMEOUT_S)
        if self._keeper is not None:
            self._keeper.stop(DELIVERY_TIMEOUT_S)
        with self._connections_changed:
            self._connections_changed.wait_for(lambda: not self._connections, THREADS_TIMEOUT_S)
            for sock in self._connections:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._join_threads()

    def _join_threads(self) -> None:
        threads = [slot.thread for slot in self.queue.all_slots()]
        threads += [self._delivery.thread] if self._delivery is not None else []
        threads = [thread for thread in threads if thread.ident is not None]
        for timeout in (THREADS_TIMEOUT_S, EXIT_TIMEOUT_S + THREADS_TIMEOUT_S):
            deadline = time.monotonic() + timeout
            for thread in threads:
                thread.join(max(deadline - time.monotonic(), 0.0))
            if not any(thread.is_alive() for thread in threads):
                break
            self._fork_server.kill()  # a thread waits for its answer

    # --- connections

    def _accepted(self, sock: socket.socket, peer: str) -> None:
        with self._connections_changed:
            most = SPARE_CONNECTIONS + self.settings.scans + self.settings.waiting
            full = len(self._connections) >= most
            if not full:
                self._connections.add(sock)
        reason = f"there are {len(self._connections)} connections"
        if not full:
            try:
                threading.Thread(target=self._serve, args=(sock, peer), name="connection", daemon=True).start()
                return
            except RuntimeError as error:  # no memory for another thread
                reason = str(error)
                self._forget(sock)
        refuse(self.queue, peer, reason)
        sock.close()

    def _serve(self, sock: socket.socket, peer: str) -> None:
        try:
            with sock:
                ClientConnection(sock, peer, self.settings, self.queue).serve()
        except Exception as error:
            log.error("%s: unexpected %s", peer, type(error).__name__)
            log.info("traceback", exc_info=error)
        finally:
            self._forget(sock)

    def _forget(self, sock: socket.socket) -> None:
        with self._connections_changed:
            self._connections.discard(sock)
            self._connections_changed.notify_all()
