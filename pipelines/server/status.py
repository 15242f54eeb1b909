"""Health, metrics and a small page about a server, on an HTTP port of its own; nothing of a patient is on it."""

from __future__ import annotations

import contextlib
import html
import io
import ipaddress
import json
import socket
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gadgets.dicom.delivery import QueueStatus, spool_status
from gadgets.stream import ReconError, reason_of
from gadgets.stream.sockets import family_of
from pipelines.server.listener import Scan, Server

REQUESTS = 16  # at a time
STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:1.5rem;max-width:70rem;color:#1a1a1a;background:#fff}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .7rem .3rem 0;vertical-align:middle;"
    "border-bottom:1px solid #ddd}td:not(:nth-child(3)){white-space:nowrap}"
    "img{display:block;height:64px;image-rendering:pixelated}.failed{color:#a00}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}td,th{border-color:#444}.failed{color:#f88}}"
)


class _Metrics:
    """What prometheus collects."""

    def __init__(self, server: Server, spool: Path | None) -> None:
        self._server, self._spool = server, spool

    def collect(self) -> Any:
        """Metric families of the moment."""
        totals = self._server.totals
        for name, text in (
            ("scans", "Scans that ended"),
            ("failed", "Scans that failed"),
            ("refused", "Connections that were refused"),
            ("images", "Images sent"),
            ("replaced", "Processes that had to be replaced"),
        ):
            yield CounterMetricFamily(f"genrecon_{name}", text, value=totals[name])
        yield GaugeMetricFamily("genrecon_running", "Scans that run", value=self._server.running())
        yield GaugeMetricFamily("genrecon_waiting", "Scans that wait", value=self._server.waiting())
        yield GaugeMetricFamily("genrecon_start_time_seconds", "Start of the server", value=self._server.started)
        if self._spool is not None:
            queues = _queues(self._spool)
            for name, text, value in (
                ("genrecon_spool_files", "DICOM files that wait", sum(queue.waiting for queue in queues)),
                ("genrecon_spool_failed_files", "DICOM files set aside", sum(queue.failed for queue in queues)),
            ):
                yield GaugeMetricFamily(name, text, value=value)


class StatusServer:
    """Serves `/health`, `/metrics` and `/`.

    Parameters
    ----------
    server : what it tells of
    port : HTTP port; 0 takes a free one
    bind : address; the loopback unless somebody else is to see it
    spool : folder whose waiting files are counted

    Raises
    ------
    ReconError
        The port cannot be opened.
    """

    def __init__(self, server: Server, port: int, bind: str = "127.0.0.1", spool: Path | None = None) -> None:
        registry = CollectorRegistry()
        registry.register(_Metrics(server, spool))
        own_only = _is_loopback(bind)

        class Handler(BaseHTTPRequestHandler):
            timeout = 10
            server_version, sys_version = "genrecon", ""

            def do_HEAD(self) -> None:
                """Answer one request without the body."""
                self.do_GET()

            def do_GET(self) -> None:
                """Answer one request."""
                path = self.path.partition("?")[0]
                if own_only and not _is_own(self.headers.get("Host", "")):
                    self._answer(403, "text/plain", b"ask for localhost or for an address\n")
                elif path == "/health":
                    state = "stopping" if server.stopping else "ok" if server.processes() else "not ready"
                    body = {"status": state, "running": server.running(), "waiting": server.waiting()}
                    self._answer(200 if state == "ok" else 503, "application/json", json.dumps(body).encode())
                elif path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif path == "/":
                    self._answer(200, "text/html; charset=utf-8", page(server, spool).encode())
                elif path.startswith("/scan/") and (picture := _picture(server, path.rpartition("/")[2])):
                    self._answer(200, "image/png", picture)
                else:
                    self._answer(404, "text/plain", b"not found\n")

            def _answer(self, code: int, kind: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.send_header(
                    "Content-Security-Policy", "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"
                )
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Requests are not worth a line."""

        try:
            self._http = _HttpServer((bind, port), Handler)
        except (OSError, OverflowError) as error:
            raise ReconError(
                f"status port {port}: cannot listen on {bind} ({reason_of(error)}); choose another one"
            ) from None
        threading.Thread(target=self._http.serve_forever, name="status", daemon=True).start()

    @property
    def port(self) -> int:
        """Port that is listened on."""
        return int(self._http.server_address[1])

    def close(self) -> None:
        """End it."""
        self._http.shutdown()
        self._http.server_close()


class _HttpServer(ThreadingHTTPServer):
    """Answers so many requests at a time; when more come, the oldest connections are closed."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = family_of(address[0])
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []  # the oldest first
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; who has taken the longest makes room."""
        with self._lock:
            if len(self._open) >= REQUESTS:
                with contextlib.suppress(OSError):
                    self._open.pop(0).shutdown(socket.SHUT_RDWR)
            self._open.append(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """It has ended."""
        with self._lock, contextlib.suppress(ValueError):
            self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is worth no lines."""


def _is_loopback(bind: str) -> bool:
    try:
        return bind == "localhost" or ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return False


def _is_own(host: str) -> bool:
    """Whether a Host header is no name that somebody else may have given to the loopback (DNS rebinding)."""
    try:
        name = urllib.parse.urlsplit(f"//{host}").hostname or "localhost"
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _picture(server: Server, name: str) -> bytes | None:
    number = name.removesuffix(".png")
    scan = next((one for one in list(server.scans) if str(one.number) == number), None)
    if scan is None or scan.thumbnail is None:
        return None
    buffer = io.BytesIO()
    Image.fromarray(scan.thumbnail).save(buffer, "PNG")
    return buffer.getvalue()


def _queues(spool: Path) -> list[QueueStatus]:
    """What of a spool can be read."""
    try:
        return spool_status(spool)
    except (ReconError, OSError):  # the log tells of it
        return []


def page(server: Server, spool: Path | None) -> str:
    """The status page."""
    totals = server.totals
    queues = [f"<li>{html.escape(f'{one.pacs}: {one.text()}')}" for one in _queues(spool)] if spool is not None else []
    rows = "".join(_row(scan) for scan in reversed(list(server.scans)))
    hours = server.uptime() / 3600
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>"
        f"<meta name=viewport content='width=device-width'><title>genrecon</title><style>{STYLE}</style>"
        f"<h1>genrecon {'stops' if server.stopping else 'serves'}</h1>"
        f"<p>{server.running()} scans run, {server.waiting()} wait. In {hours:.1f} h: {totals['scans']} "
        f"scans, {totals['failed']} of them failed, {totals['images']} images; {totals['refused']} connections "
        f"refused.</p>{f'<p>DICOM files for the PACS:<ul>{chr(10).join(queues)}</ul>' if queues else ''}"
        "<table><tr><th>scan<th>chain<th>state<th>images<th>first image<th>time<th>last image"
        f"{rows}</table></html>"
    )


def _row(scan: Scan) -> str:
    picture = f"<img src='/scan/{scan.number}.png' alt='last image of scan {scan.number}'>" if scan.images else ""
    first = f"{scan.first_image_s:.2f} s" if scan.images else ""
    state = html.escape(f"{scan.state}: {scan.error}" if scan.error else scan.state)
    return (
        f"<tr><td>{scan.number}<td>{html.escape(scan.chain)}<td class='{'failed' if scan.error else ''}'>{state}"
        f"<td>{scan.images}<td>{first}<td>{scan.elapsed():.2f} s<td>{picture}"
    )
