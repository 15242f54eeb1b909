"""A PACS for tests, on real sockets: C-STORE and STOW-RS servers of all kinds of conduct, and a proxy that cuts."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pydicom
from pynetdicom import AE, evt
from pynetdicom.sop_class import MRImageStorage
from pynetdicom.transport import ThreadedAssociationServer

Say = Callable[[str], Any]  # SOP Instance UID -> what the server does with it


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Scp:
    """A storage SCP; `say` gives the status of an instance, or "abort"; `received` has the UIDs it stored."""

    def __init__(self, say: Say = lambda _: 0, port: int = 0, title: str = "PACS", **options: Any) -> None:
        self.reset(say)
        self._entity = AE(title)
        self._entity.require_called_aet = True
        self._entity.add_supported_context(options.pop("sop_class", MRImageStorage))
        self._server = self._entity.make_server(
            ("127.0.0.1", port),
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._accepted)],
            server_class=ThreadedAssociationServer,
            **options,
        )
        self._entity._servers.append(self._server)  # as start_server does, whose loop takes half a second to stop
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.port = int(self._server.server_address[1])
        self.url = f"dicom://{title}@127.0.0.1:{self.port}"

    def reset(self, say: Say = lambda _: 0) -> None:
        self.say = say
        self.received: list[str] = []
        self.values: dict[str, int] = {}
        self.calling: set[str] = set()
        self.associations = 0

    def _accepted(self, event: Any) -> None:
        self.associations += 1
        self.calling.add(event.assoc.requestor.ae_title)

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        status = self.say(uid)
        if status == "abort":
            event.assoc.abort()
            return 0xC000
        if status == 0 or 0xB000 <= status <= 0xBFFF:
            self.received.append(uid)
            self.values[uid] = int.from_bytes(event.dataset.PixelData[:2], "little")
        return int(status)

    def __enter__(self) -> Scp:
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._thread.join()


class Stow:
    """A STOW-RS server; `say` gives the reason of an instance's failure (0: stored), or a whole answer.

    An answer is (HTTP code, media type, body), None for the proper one.
    """

    def __init__(self, say: Say = lambda _: 0, context: ssl.SSLContext | None = None) -> None:
        self.reset(say)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                uid = instance_uid(self._body())
                outer.authorizations.add(self.headers["Authorization"])
                answer = outer.say(uid)
                if self.path != "/dicom-web/studies":
                    answer = (404, "text/plain", b"")
                if isinstance(answer, int):
                    answer = stow_answer(uid, answer)
                    if not answer[0] >= 400:
                        outer.received.append(uid)
                code, media_type, body = answer
                self.send_response(code)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers["Content-Length"]))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.port = int(self._server.server_address[1])
        self.url = f"{'https' if context else 'http'}://localhost:{self.port}/dicom-web"

    def reset(self, say: Say = lambda _: 0) -> None:
        self.say = say
        self.received: list[str] = []
        self.authorizations: set[str | None] = set()

    def __enter__(self) -> Stow:
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def instance_uid(body: bytes) -> str:
    """SOP Instance UID of a multipart body with one part."""
    content = body[body.index(b"\r\n\r\n") + 4 :]
    return str(pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).SOPInstanceUID)


def stow_answer(uid: str, reason: int) -> tuple[int, str, bytes]:
    """What PS3.18 10.5.3 wants said of one instance."""
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    warning = 0xB000 <= reason <= 0xBFFF
    if reason:
        item["00081196" if warning else "00081197"] = {"vr": "US", "Value": [reason]}
    sequence = "00081198" if reason and not warning else "00081199"
    body = json.dumps({sequence: {"vr": "SQ", "Value": [item]}}).encode()
    return (409 if sequence == "00081198" else 200), "application/dicom+json", body


class CuttingProxy:
    """Passes connections on to a port, and breaks each of the first `cuts` off after `size` bytes from the client."""

    def __init__(self, target: int, size: int, cuts: int) -> None:
        self._target, self._size, self._cuts = target, size, cuts
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._sockets = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                size = self._size if self._cuts > 0 else -1
                self._cuts -= 1
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for source, sink, limit in ((client, server, size), (server, client, -1)):
                    threading.Thread(target=self._pass, args=(source, sink, limit), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, limit: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(limit if limit > 0 else 65536):
                sink.sendall(data)
                limit -= len(data)
                if limit == 0:
                    break
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, *_: Any) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def uids(files: list[bytes]) -> list[str]:
    return [str(pydicom.dcmread(io.BytesIO(file)).SOPInstanceUID) for file in files]


@contextlib.contextmanager
def released(event: threading.Event) -> Iterator[threading.Event]:
    """Sets the event a slow server waits for, at the latest when the test ends."""
    try:
        yield event
    finally:
        event.set()


def without_patient(text: str) -> bool:
    """Whether a log names neither a patient nor a UID of `make_header`'s and `make_image`'s."""
    return not re.search(r"Mustermann|P-1\b|2\.25\.\d|1\.2\.3\.4\.5", text)
