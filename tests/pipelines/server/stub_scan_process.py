"""A scan process that imports no torch and computes nothing: it answers every scan with CLOSE."""

from __future__ import annotations

import os
import socket
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

from pipelines.server.scan import ScanResult

CLOSE = b"\x04\x00"


def work(link: Connection) -> None:
    """Serve as `pipelines.server.scan_process.work` does."""
    link.recv()
    link.send(("ready", None))
    while True:
        try:
            _, has_file = link.recv()
        except EOFError:
            return
        with socket.socket(fileno=recv_handle(link)) as sock:
            if has_file:
                os.close(recv_handle(link))
            while sock.recv(2**20):
                pass
            sock.sendall(CLOSE)
        link.send(("ended", ScanResult()))
