"""Health, metrics and a small page about a server, on an HTTP port of its own, without anything of a patient."""

from __future__ import annotations

import contextlib
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
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gadgets.stream import ReconError, reason_of
from gadgets.stream.sockets import family_of
from pipelines.server.listener import Server
from pipelines.server.metrics import metrics_registry
from pipelines.server.overview import overview
from pipelines.server.status_page import page_file, status_page

MAX_REQUESTS = 16  # answered at a time
SECURITY_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_FILES = {"status.css": "text/css", "status.js": "text/javascript", "icon.svg": "image/svg+xml"}


class StatusServer:
    """Serves `/` for people, `/scans.json` for scripts, `/health` and `/metrics`.

    Parameters
    ----------
    server : what it shows
    port : HTTP port; 0 takes a free one
    bind : address; the loopback unless other hosts may see it
    spool : folder whose waiting files are counted

    Raises
    ------
    ReconError
        The port cannot be opened.
    """

    def __init__(self, server: Server, port: int, bind: str = "127.0.0.1", spool: Path | None = None) -> None:
        registry = metrics_registry(server, spool)
        local_only = _is_loopback(bind)

        class Handler(BaseHTTPRequestHandler):
            timeout = 10
            server_version, sys_version = "genrecon", ""

            def do_HEAD(self) -> None:
                """Answer a request without the body."""
                self.do_GET()

            def do_GET(self) -> None:
                """Answer a request."""
                path = self.path.partition("?")[0]
                if local_only and not _is_local_name(self.headers.get("Host", "")):
                    self._answer(403, "text/plain", b"ask for localhost or for an address\n")
                elif path == "/health":
                    queue = server.queue
                    state = "stopping" if server.stopping else "ok" if queue.processes() else "not ready"
                    body = {"status": state, "running": queue.running(), "waiting": queue.waiting()}
                    self._answer(200 if state == "ok" else 503, "application/json", json.dumps(body).encode())
                elif path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif path == "/":
                    self._answer(200, "text/html; charset=utf-8", status_page(overview(server, spool)).encode())
                elif path == "/scans.json":
                    self._answer(200, "application/json", json.dumps(overview(server, spool)).encode())
                elif path.startswith("/scan/") and (picture := _thumbnail_png(server, path.removeprefix("/scan/"))):
                    self._answer(200, "image/png", picture)
                elif (name := path.removeprefix("/page/")) in PAGE_FILES and path.startswith("/page/"):
                    self._answer(200, f"{PAGE_FILES[name]}; charset=utf-8", page_file(name))
                else:
                    self._answer(404, "text/plain", b"not found\n")

            def _answer(self, code: int, content_type: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("Content-Security-Policy", SECURITY_POLICY)
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("Referrer-Policy", "no-referrer")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Log no requests."""

        try:
            self._http = _HttpServer((bind, port), Handler)
        except (OSError, OverflowError) as error:
            raise ReconError(
                f"status port {port}: cannot listen on {bind} ({reason_of(error)}); choose another one"
            ) from None
        threading.Thread(target=self._http.serve_forever, name="status", daemon=True).start()

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return int(self._http.server_address[1])

    def close(self) -> None:
        """Stop it."""
        self._http.shutdown()
        self._http.server_close()


class _HttpServer(ThreadingHTTPServer):
    """Answers `MAX_REQUESTS` requests at a time; when more come, the oldest connections are closed."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = family_of(address[0])
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []  # oldest first
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; the oldest connection makes room."""
        with self._lock:
            if len(self._open) >= MAX_REQUESTS:
                with contextlib.suppress(OSError):
                    self._open.pop(0).shutdown(socket.SHUT_RDWR)
            self._open.append(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that has ended."""
        with self._lock, contextlib.suppress(ValueError):
            self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing about a client that leaves."""


def _is_loopback(bind: str) -> bool:
    try:
        return bind == "localhost" or ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return False


def _is_local_name(host: str) -> bool:
    """Whether a Host header is localhost or an address: another name may be a stranger's (DNS rebinding)."""
    try:
        name = urllib.parse.urlsplit(f"//{host}").hostname or "localhost"
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _thumbnail_png(server: Server, name: str) -> bytes | None:
    """Last image of a scan's series, by a name SCAN/SERIES.png; None if there is none."""
    number, _, file_name = name.partition("/")
    scan = next((one for one in list(server.queue.scans) if str(one.number) == number), None)
    shown = {f"{key}.png": one for key, one in dict(scan.thumbnails).items()} if scan is not None else {}
    if file_name not in shown:
        return None
    buffer = io.BytesIO()
    Image.fromarray(shown[file_name].pixels).save(buffer, "PNG")
    return buffer.getvalue()
