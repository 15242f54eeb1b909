"""Noise covariances as Gadgetron 4.7 writes them, and a storage server that answers as mrd-storage-server does."""

from __future__ import annotations

import contextlib
import http.server
import json
import struct
import threading
import urllib.parse

import numpy as np

TAGS = {"subject": "P1", "device": "1", "session": "3", "name": "noise_covariance", "measurement": "1_2_3_1"}


def covariance_blob(covariance, labels=("A", "B"), dwell=20.0, bandwidth=0.793, kind=7) -> bytes:
    """A covariance C = N N^H / (n - 1): Gadgetron holds its transpose, and writes that column by column."""
    count = len(covariance)
    meta = {
        "channels": count,
        "labels": list(labels),
        "noiseDwellTimeUs": dwell,
        "receiverNoiseBandwidth": bandwidth,
        "sampleCount": 384,
    }
    text = json.dumps(meta).encode()
    values = np.asarray(covariance).T.astype(np.complex64).tobytes(order="F")
    return b"SFNDAM" + struct.pack("<IIIQQQ", 1, kind, 2, count, count, len(text)) + values + text


@contextlib.contextmanager
def storage(answer):
    """An HTTP server on a free port; `answer` writes to a handler. Yields its address and the requests."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(urllib.parse.urlsplit(self.path))
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def blob(content):
    def answer(handler):
        tags = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(handler.path).query))
        found = tags == TAGS
        handler.send_response(200 if found else 404)
        handler.send_header("Content-Length", str(len(content) if found else 0))
        handler.send_header("Last-Modified", "Fri, 05 Nov 2021 11:57:16 GMT")
        handler.end_headers()
        handler.wfile.write(content if found else b"")

    return answer
