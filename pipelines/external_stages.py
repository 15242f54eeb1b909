"""Stages that run a gadget outside this process, as a Gadgetron server does for an `<external>`."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from gadgets.stream import ReconError
from gadgets.stream.processes import killed_with_parent
from pipelines.server.processes import child_environment
from pipelines.wire import connect_to, exchange


def external_process(
    module: str, target: str, config: bytes, header: bytes
) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A stage that runs `python -m gadgetron PORT MODULE TARGET`, as a Gadgetron server does for `<execute>`."""

    def stage(items: Iterator[Any]) -> Iterator[Any]:
        with socket.create_server(("localhost", 0)) as server:
            server.settimeout(60.0)
            port = server.getsockname()[1]
            command = [sys.executable, "-m", "gadgetron", str(port), module, target]
            environment = child_environment()
            environment.setdefault("GADGETRON_EXTERNAL_LOG_LEVEL", "WARNING")
            # A session of its own: Ctrl-C is for this process, which then ends the other by closing its socket.
            process = subprocess.Popen(killed_with_parent(command), env=environment, start_new_session=True)

            def accept() -> socket.socket:
                server.settimeout(0.2)
                for _ in range(300):
                    with contextlib.suppress(TimeoutError):
                        conn = server.accept()[0]
                        conn.settimeout(None)
                        return conn
                    if process.poll() is not None:
                        break
                raise ReconError(
                    f"external {module}: its process did not start; run {' '.join(command)} by hand to see why"
                )

            try:
                for _, item in exchange(accept, f"external {module}", config, header, items):
                    yield item
                with contextlib.suppress(subprocess.TimeoutExpired):
                    if process.wait(timeout=5.0) > 0:
                        raise ReconError(f"external {module}: its process failed after the last item; see its log")
            finally:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=5.0)
                process.kill()
                process.wait()

    return stage


def external_connection(host: str, port: int, config: bytes, header: bytes) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A stage that sends its items to a listening gadget, as a Gadgetron server does for `<connect>`."""

    def connect() -> socket.socket:
        sock = connect_to(host, port, 10.0)
        sock.settimeout(None)
        return sock

    def stage(items: Iterator[Any]) -> Iterator[Any]:
        for _, item in exchange(connect, f"listener {host}:{port}", config, header, items):
            yield item

    return stage
