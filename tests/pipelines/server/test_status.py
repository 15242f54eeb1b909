"""The HTTP port: health, metrics and the status page."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path

from gadgets.dicom.destination import Destination
from gadgets.dicom.spool import add_to_spool
from pipelines.server.status import MAX_REQUESTS, StatusServer
from tests.pipelines.server.serving import (
    answer,
    exchanged,
    fetched,
    named,
    serving,
    stream,
    until,
    works,
)


def test_health_metrics_and_page(raw: Path, tmp_path: Path) -> None:
    spooled = add_to_spool(tmp_path, Destination("dicom://PACS@pacs.example:104"), b"one")
    with serving() as server:
        status = StatusServer(server, 0, spool=tmp_path)
        try:
            works(server, raw)
            exchanged(server, stream(raw, named("<script>")))
            assert json.loads(fetched(status.port, "/health")[1]) == {"status": "ok", "running": 0, "waiting": 0}
            metrics = fetched(status.port, "/metrics")[1].decode()
            assert "genrecon_images_total 3.0" in metrics and "genrecon_failed_total 1.0" in metrics
            assert "genrecon_spool_files 1.0" in metrics and "genrecon_spool_failed_files 0.0" in metrics
            found = fetched(status.port, "/")[1].decode()
            assert "cg_sense" in found and "<script>" not in found
            assert "dicom://PACS@pacs.example:104</strong>: 1 files wait" in found
            (spooled.parent / "failed").mkdir()
            spooled.rename(spooled.parent / "failed" / spooled.name)
            assert "genrecon_spool_failed_files 1.0" in fetched(status.port, "/metrics")[1].decode()
            assert "0 files wait, 1 were set aside" in fetched(status.port, "/")[1].decode()
            assert fetched(status.port, "/scan/1/1.png")[1].startswith(b"\x89PNG")
            of_scans = ("/scan/99/1.png", "/scan/1/2.png", "/scan/1.png", "/scan/1/1")
            for missing in (*of_scans, "/page/", "/page/status.html.j2", "/../etc/passwd", "/x"):
                assert fetched(status.port, missing)[0] == 404
            assert fetched(status.port, "/", "127.0.0.1:9080")[0] == fetched(status.port, "/", "[::1]:9080")[0] == 200
            for stranger in ("attacker.example", "attacker.example:9080", "["):
                assert fetched(status.port, "/", stranger)[0] == 403
            server.queue.stopping.set()
            assert fetched(status.port, "/health")[0] == 503
        finally:
            status.close()


def test_the_oldest_connections_to_the_status_page_make_room() -> None:
    with serving() as server, contextlib.ExitStack() as stack:
        status = StatusServer(server, 0)
        stack.callback(status.close)
        address = ("127.0.0.1", status.port)
        held = [stack.enter_context(socket.create_connection(address)) for _ in range(3 * MAX_REQUESTS)]
        for sock in held:
            sock.settimeout(5)
            sock.sendall(b"GET /health HTTP/1.1\r\n")  # and no more
        until(lambda: threads_of_status() == MAX_REQUESTS)
        assert threads_of_status() == MAX_REQUESTS and answer(held[0]) == b""
        assert fetched(status.port, "/health")[0] == 200
        with socket.create_connection(("127.0.0.1", status.port), timeout=5) as sock:
            sock.sendall(b"HEAD /health HTTP/1.0\r\n\r\n")
            head = answer(sock)
        assert head.startswith(b"HTTP/1.0 200") and head.endswith(b"\r\n\r\n")


def threads_of_status() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())
