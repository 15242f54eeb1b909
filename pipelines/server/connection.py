"""One client's connection: its request, its wait for a worker slot, and the error it gets when the scan fails."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import select
import socket

from gadgets.stream import PeerGone, ReconError, reason_of
from pipelines.kept.store import KeptScans
from pipelines.server.chain_names import asked_chain
from pipelines.server.intake import ScanReader
from pipelines.server.read_ahead import ReadAhead
from pipelines.server.replies import CLOSE, ReplyWriter, discard_input
from pipelines.server.request import Request, seconds_of
from pipelines.server.retrieval import CONFIG, Retrieval, is_retrieval, wanted_late_images
from pipelines.server.scan import Scan
from pipelines.server.scan_queue import ScanQueue
from pipelines.server.settings import ServeSettings
from pipelines.server.worker_slot import QueuedScan

log = logging.getLogger("genrecon")

KEEPALIVE_S = (60, 10, 6)  # TCP: first probe after 60 s of silence, then every 10 s, at most 6


class ClientConnection:
    """Serves one client, in the thread that calls `serve`.

    Parameters
    ----------
    sock : connected socket
    peer : its address, for the log
    settings : of the server
    queue : takes the scan
    """

    def __init__(self, sock: socket.socket, peer: str, settings: ServeSettings, queue: ScanQueue) -> None:
        self._socket, self._peer = sock, peer
        self._settings, self._limits = settings, settings.limits
        self._queue = queue

    def serve(self) -> None:
        """Serve the client to the end of its scan. Raises OSError for a socket that cannot be used."""
        self._enable_keepalive()
        # The whole request comes before the slot: a client that stops in the middle must not hold one.
        request = self._read_request()
        if request is None:
            return
        of_fire = request.of_fire
        if is_retrieval(request.asked_name):
            return self._retrieve(request)
        request = dataclasses.replace(request, peer=self._host)
        try:
            queued = QueuedScan(Scan(self._peer, asked=asked_chain(request)))
            reason = self._start(queued, request)
        except OSError as error:  # no descriptors left
            reason = reason_of(error)
        if reason:
            refuse(self._queue, self._peer, reason)
            self._send_error(f"busy: {reason}; send the scan again later", of_fire)
            return
        del request
        queued.ended.wait()
        if queued.client_error and not queued.image_begun:
            self._send_error(queued.client_error, of_fire)

    @property
    def _host(self) -> str:
        return self._peer.rpartition(":")[0]

    def _retrieve(self, request: Request) -> None:
        """Send late images. What the client measures meanwhile is read and dropped."""
        settings, parameters = self._settings, request.parameters
        name = CONFIG.fullmatch((request.asked_name or "").strip())
        wanted = (name and name["id"]) or str(parameters.get("scan", "")) or wanted_late_images(parameters) or ""
        writer = ReplyWriter(self._socket, self._limits.idle_s)
        try:
            if settings.keep_raw is None:
                raise ReconError("this server has no late images; start it with --keep-raw and --answer-within")
            if request.header_text:
                reader = ScanReader(self._socket, self._limits, request.next_message)
                reader.start()
                try:
                    for _ in reader:
                        pass
                finally:
                    reader.stop()
            store = KeptScans(settings.keep_raw, settings.keep_raw_gib, settings.keep_raw_days)
            wait_s = seconds_of(parameters, "wait")
            retrieval = Retrieval(store, writer, request.of_fire, self._host)
            images = retrieval.serve(wanted, request.header_text, wait_s, self._check_that_it_is_there)
            writer.write(CLOSE)
            retrieval.end()
            log.info("%s: fetched %d late images", self._peer, images)
        except PeerGone as error:
            refuse(self._queue, self._peer, str(error))
        except ReconError as error:
            refuse(self._queue, self._peer, str(error))
            self._send_error(str(error), request.of_fire)

    def _check_that_it_is_there(self) -> None:
        """Raise PeerGone when the client has left, or a server that stops."""
        poller = select.poll()
        poller.register(self._socket, 0)
        if poller.poll(0):
            raise PeerGone("the client is gone")
        if self._queue.stopping.is_set():
            raise ReconError("the server stops; ask again later")

    def _enable_keepalive(self) -> None:
        """Let the connection fail when the client's host disappears without closing it."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        for option, value in zip(options, KEEPALIVE_S, strict=True):
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)

    def _read_request(self) -> Request | None:
        """The client's request; None if it sent none, left, or was refused."""
        reader = ScanReader(self._socket, self._limits)
        begun = False
        try:
            begun = reader.first_message() is not None
            request = reader.request() if begun else None
        except PeerGone:
            refuse(self._queue, self._peer, "it left in the middle of its request")
            return None
        except ReconError as error:
            refuse(self._queue, self._peer, str(error))
            if begun:
                self._send_error(str(error), of_fire=False)
            return None
        if not begun:
            log.info("%s: connected and left", self._peer)
        elif request is None:  # Gadgetron's query for dependencies ends before a header
            with contextlib.suppress(PeerGone):
                ReplyWriter(self._socket, self._limits.idle_s).write(CLOSE)
        return request

    def _start(self, queued: QueuedScan, request: Request) -> str:
        """Wait for a slot and hand the scan over to it. Returns why it gets none; empty if it got one."""
        try:
            with ReadAhead(self._socket, request.next_message or 0, self._limits.ahead_gib) as ahead:
                reason = self._wait_for_slot(queued, ahead)
                if queued.slot is not None:
                    queued.slot.hand_over(queued, request, self._socket, ahead)
                return reason
        except BaseException:
            self._queue.kill_process_of(queued, "it could not be handed over; send the scan again")
            raise
        finally:
            os.close(queued.wake_descriptor)

    def _wait_for_slot(self, queued: QueuedScan, ahead: ReadAhead) -> str:
        if reason := self._queue.add(queued):
            return reason
        reason = "the server stops"
        try:
            if not ahead.read_until(queued.wake_descriptor, self._limits.scan_s):
                reason = f"it waited longer than {self._limits.scan_s:g} s"
        except PeerGone:
            reason = "it left while it waited"
        finally:
            removed = self._queue.remove_waiting(queued)
        # With a slot, the scan's process notices that the client has left.
        return reason if removed else ""

    def _send_error(self, text: str, of_fire: bool) -> None:
        """Send an error, and return only when the client has stopped sending: else it may lose the error."""
        with contextlib.suppress(PeerGone):
            writer = ReplyWriter(self._socket, self._limits.idle_s)
            writer.text("ERROR", text, of_fire)
            writer.write(CLOSE)
            discard_input(self._socket, min(self._limits.idle_s, self._limits.scan_s))


def refuse(queue: ScanQueue, peer: str, reason: str) -> None:
    """Count and log a refused connection."""
    queue.count("refused")
    log.warning("%s: refused: %s", peer, reason)
