"""A streaming server for scanners: MRD in, images out, for Gadgetron's client and for Siemens FIRE."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
from gadgetron.external import constants, writers

from gadgets.finish import meta_of
from gadgets.generative_solver import GENERATIVE
from gadgets.stream import (
    ERROR_MESSAGE,
    Aborted,
    BoundedQueue,
    Gadget,
    PeerGone,
    ReconError,
    local_parameters,
    one_line,
)
from pipelines.chain import TWINS, Chain, Node, shipped_chain, shipped_chains
from pipelines.intake import Intake, Limits, Request, plain_name
from pipelines.memory import MemoryCheck
from pipelines.raw import AcquisitionChecker, check_header, parse_header
from pipelines.replay import DICOM_MODULE

log = logging.getLogger("genrecon")

# What a chain that comes over the network may run beside the twins of Gadgetron's own gadgets.
ALLOWED = {
    "gadgets.coil_compression": "CoilCompression",
    "gadgets.espirit": "Espirit",
    "gadgets.generative_recon": "GenerativeRecon",
    "gadgets.reconstruction": "Reconstruction",
    DICOM_MODULE: "DicomOutput",
}
CONNECTIONS = 64  # at a time, those that run and wait among them
LONGEST_TEXT = 600
LONGEST_CHAIN = 64  # gadgets, each a thread
WAITING_S = 1.0  # between two looks whether a client that waits is still there
RECENT = 24  # scans that the status page tells of


@dataclass(frozen=True)
class ServeSettings:
    """How to serve.

    Parameters
    ----------
    bind, port : where to listen; port 0 takes a free one
    chains : folder of chains beside the shipped ones, found by the names of their files
    scans : scans that run at a time
    waiting : scans that wait for that; more are told that the server is busy
    limits : see there
    time_budget_s : of every scan with a generative method, unless its chain says another; 0: none
    dicom : folder below which the chains' DICOM files are written; None: none
    pacs, spool : PACS that they are sent to by way of a spool, as the DICOM gadget has them; empty: none, but for
        chains of the server that name their own
    grace_s : that running scans have when the server is stopped
    """

    bind: str = "127.0.0.1"
    port: int = 9002
    chains: Path | None = None
    scans: int = 1
    waiting: int = 8
    limits: Limits = field(default_factory=Limits)
    time_budget_s: float = 0.0
    dicom: Path | None = None
    pacs: str = ""
    spool: Path | None = None
    grace_s: float = 60.0


@dataclass
class Scan:
    """What is known of a scan, without anything of the patient."""

    number: int
    peer: str
    began: float = field(default_factory=time.monotonic)
    chain: str = ""
    state: str = "waits"
    images: int = 0
    first_image_s: float = 0.0
    seconds: float = 0.0
    error: str = ""
    thumbnail: Any = None  # uint8 (y, x)

    def elapsed(self) -> float:
        return self.seconds or time.monotonic() - self.began


# --- chains ----------------------------------------------------------------------------------------------------------


def chain_of(request: Request, settings: ServeSettings) -> Chain:
    """The chain a client asks for, with its parameters.

    Raises
    ------
    ReconError
        There is none of that name; or it came over the network and has a gadget or property that is not allowed.
    """
    renamed = request.parameters.get("customconfig") or request.parameters.get("config")
    config = renamed if isinstance(renamed, str) and renamed and request.config is not None else request.config
    if request.chain_text is not None:
        chain = Chain(request.chain_text, "the chain that was sent")
        if len(chain.nodes) > LONGEST_CHAIN:
            raise ReconError(f"the chain that was sent has {len(chain.nodes)} gadgets; {LONGEST_CHAIN} are allowed")
        for node in chain.nodes:
            _check_node(node)
    else:
        chain = _named(config or "", settings)
    for name, value in request.parameters.items():
        gadget, dot, own_name = name.rpartition(".")
        if not dot:
            continue
        if not isinstance(value, str | int | float | bool):
            raise ReconError(f"parameter '{name}' is neither a text nor a number")
        chain.set(gadget, own_name, str(value).lower() if isinstance(value, bool) else str(value))
        for node in chain.nodes:
            kind = node.load()
            members: dict[str, type[Gadget]] = getattr(kind, "members", {})
            if gadget in node.names or gadget in members:
                owner = kind if gadget in node.names else members[gadget]
                if owner is None or own_name in local_parameters(owner.Parameters):
                    raise _local(name)
    return _as_the_server_wants(chain, settings)


def _named(config: str, settings: ServeSettings) -> Chain:
    name = plain_name(config)
    if settings.chains is not None:
        path = settings.chains / f"{name}.xml"
        if path.is_file():
            return Chain(path.read_bytes(), name)
    if name not in shipped_chains():
        own = sorted(path.stem for path in settings.chains.glob("*.xml")) if settings.chains else []
        raise ReconError(f"there is no chain '{name}'; the server has: {', '.join([*own, *shipped_chains()])}")
    return shipped_chain(name)


def _check_node(node: Node) -> None:
    """Raise ReconError for what a chain that comes over the network may not have; nothing is imported for that."""
    if node.classname:
        if node.classname not in TWINS:
            raise ReconError(f"gadget {node.classname} is not among those that this server runs")
    elif node.address is not None:
        raise ReconError(f"<connect> to {node.names[0]}: a chain that is sent may not make the server connect")
    elif ALLOWED.get(node.module) != node.target:
        raise ReconError(f"external {node.module} {node.target} is not among those that this server runs")
    _check_properties(node)


def _check_properties(node: Node) -> None:
    kind = node.load()
    for name in node.properties:
        if (node.module, name) == (DICOM_MODULE, "folder"):
            continue  # the server has its own
        member, _, own_name = name.rpartition(".")
        owner = getattr(kind, "members", {}).get(member) if member else kind
        if owner is not None and own_name in local_parameters(owner.Parameters):
            raise _local(name)


def _local(name: str) -> ReconError:
    return ReconError(f"property '{name}' names files or hosts of the server; only its own chains may set it")


def _as_the_server_wants(chain: Chain, settings: ServeSettings) -> Chain:
    """DICOM where the server wants it, and its time budget."""
    node = chain.external(DICOM_MODULE)
    if node is not None and not (settings.dicom or settings.pacs or node.properties.get("pacs")):
        chain = chain.without(DICOM_MODULE)
        if not chain.nodes:
            raise ReconError("the chain has no gadgets but DICOM output, which this server does not write")
    for node in chain.nodes:
        if node.module == DICOM_MODULE:
            node.properties["folder"] = str(settings.dicom or "")
            if settings.pacs:
                node.properties["pacs"] = settings.pacs
            if settings.spool is not None:
                node.properties["spool"] = str(settings.spool)
        for prefix in ("", "generative_recon."):
            if settings.time_budget_s and node.properties.get(f"{prefix}method") in GENERATIVE:
                node.properties.setdefault(f"{prefix}time_budget_s", str(settings.time_budget_s))
    return chain


def warm_up(methods: tuple[str, ...]) -> None:
    """Load what the methods need and run each once, so that the first scan does not wait for it."""
    from pipelines.arrays import ArrayReconstruction

    generator = np.random.default_rng(0)
    kspace = (generator.standard_normal((4, 64, 64)) + 1j * generator.standard_normal((4, 64, 64))).astype(np.complex64)
    kspace[:, 1:24:2] = kspace[:, 41::2] = 0
    for method in methods:
        gadgets = ArrayReconstruction({"method": method})
        gadgets(gadgets.with_maps(kspace))


# --- the server ------------------------------------------------------------------------------------------------------


class Server:
    """Serves scans until it is stopped: a thread a connection, `settings.scans` of them at work at a time.

    Attributes
    ----------
    port : that is listened on
    scans : what is known of those that run and wait, and of the last ones that ended
    totals : counters

    Raises
    ------
    ReconError
        The port cannot be opened.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.started = time.time()
        self._began = time.monotonic()
        self.scans: list[Scan] = []  # running, waiting and the last ones that ended
        self.totals = {"scans": 0, "failed": 0, "refused": 0, "images": 0}
        self.stopping = False
        self._number = 0
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._running = 0
        self._open = 0
        try:
            self._listener = socket.create_server((settings.bind, settings.port))
        except (OSError, OverflowError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
            raise ReconError(
                f"port {settings.port}: cannot listen on {settings.bind} ({reason}); choose another port or address"
            ) from None
        self.port = int(self._listener.getsockname()[1])

    def uptime(self) -> float:
        """Seconds that it has served, whatever the wall clock did."""
        return time.monotonic() - self._began

    def waiting(self) -> int:
        """Scans that wait for room."""
        return sum(scan.state == "waits" for scan in self.scans)

    def running(self) -> int:
        """Scans that run."""
        return self._running

    def run(self) -> None:
        """Serve until `stop`."""
        log.info("serving on %s port %d", self.settings.bind, self.port)
        while True:
            try:
                conn, address = self._listener.accept()
            except OSError:  # closed by stop
                if self.stopping:
                    return
                time.sleep(0.1)  # no file descriptors left, say
                continue
            peer = f"{address[0]}:{address[1]}"
            with self._lock:
                full = self._open >= CONNECTIONS or self.stopping
                self._open += not full
            if full:
                log.warning("%s: refused, there are %d connections", peer, self._open)
                conn.close()
                continue
            threading.Thread(target=self._connection, args=(conn, peer), name="connection", daemon=True).start()

    def stop(self) -> None:
        """Take no more scans, and wait `grace_s` for those that run."""
        self.stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        deadline = time.monotonic() + self.settings.grace_s
        with self._room:
            self._room.notify_all()
            self._room.wait_for(lambda: not self._open, max(deadline - time.monotonic(), 0.0))
            left = [scan for scan in self.scans if scan.state == "runs"]
        for scan in left:
            log.warning("scan %d: not done when the server stopped", scan.number)

    # --- one connection

    def _connection(self, conn: socket.socket, peer: str) -> None:
        try:
            with conn:
                self._serve(conn, peer)
        except Exception as error:
            log.error("%s: unexpected %s", peer, one_line(error))
            log.info("traceback", exc_info=error)
        finally:
            with self._room:
                self._open -= 1
                self._room.notify_all()

    def _serve(self, conn: socket.socket, peer: str) -> None:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        intake = Intake(conn, self.settings.limits)
        try:
            # All of the request before a place is taken: a client that does not go on must not hold one.
            request = self._request(conn, peer, intake)
            if request is None:
                return
            intake.start()
            scan = self._admitted(conn, peer, intake)
            if scan is not None:
                self._run(conn, scan, intake, request)
        finally:
            intake.stop()

    def _request(self, conn: socket.socket, peer: str, intake: Intake) -> Request | None:
        """What the client asks for; None when it asks for nothing, left, or was refused."""
        begun = False
        try:
            begun = intake.first_message() is not None
            request = intake.request() if begun else None
        except PeerGone:
            begun, request = False, None
        except ReconError as error:
            self.totals["refused"] += 1
            log.warning("%s: refused: %s", peer, printable(error))
            if begun:
                self._tell(conn, printable(error), intake)
            return None
        if not begun:
            log.info("%s: connected and left", peer)
        elif request is None:  # Gadgetron's query for dependencies ends before a header
            with contextlib.suppress(OSError):
                conn.sendall(_message(constants.GADGET_MESSAGE_CLOSE))
        return request

    def _run(self, conn: socket.socket, scan: Scan, intake: Intake, request: Request) -> None:
        try:
            self._reconstruct(conn, scan, intake, request)
        finally:
            scan.seconds = time.monotonic() - scan.began
            with self._room:
                scan.state = "failed" if scan.error else "done"
                self.totals["scans"] += 1
                self.totals["failed"] += bool(scan.error)
                ended = [one for one in self.scans if one.state in ("done", "failed")]
                for old in ended[:-RECENT]:
                    self.scans.remove(old)

    def _admitted(self, conn: socket.socket, peer: str, intake: Intake) -> Scan | None:
        """The scan once there is room for it; None when it was sent away or its client left."""
        with self._room:
            if self.stopping or self.waiting() >= self.settings.waiting + max(self.settings.scans - self._running, 0):
                reason = "the server stops" if self.stopping else f"{self.waiting()} scans wait already"
                scan = None
            else:
                reason = ""
                self._number += 1
                scan = Scan(self._number, peer)
                self.scans.append(scan)
                while self._running >= self.settings.scans and not reason:
                    self._room.wait(WAITING_S)
                    if self.stopping:
                        reason = "the server stops"
                    elif intake.client_gone():
                        reason = "it left while it waited"
                    elif scan.elapsed() > self.settings.limits.scan_s:
                        reason = f"it waited longer than {self.settings.limits.scan_s:g} s"
                if reason:
                    self.scans.remove(scan)
                    scan = None
                else:
                    self._running += 1
                    scan.state = "runs"
        if scan is None:
            self.totals["refused"] += 1
            log.warning("%s: refused: %s", peer, reason)
            self._tell(conn, f"busy: {reason}; send the scan again later", intake)
        return scan

    def _leave(self) -> None:
        with self._room:
            self._running -= 1
            self._room.notify_all()

    def _reconstruct(self, conn: socket.socket, scan: Scan, intake: Intake, request: Request) -> None:
        results = BoundedQueue(items=64)
        worker: threading.Thread | None = None
        timer = threading.Timer(self.settings.limits.scan_s, results.abort)
        timer.daemon = True
        timer.start()
        try:
            chain = chain_of(request, self.settings)
            scan.chain = chain.name
            header = header_of(request.header_text)
            memory = MemoryCheck(header, self.settings.limits.memory_gib, chain)
            log.info("scan %d: chain %s from %s", scan.number, scan.chain, scan.peer)
            items = checked(header, intake, memory, scan)
            worker = threading.Thread(target=self._work, args=(chain, header, items, results), daemon=True)
            worker.start()
            self._send(conn, scan, results)
            conn.sendall(_message(constants.GADGET_MESSAGE_CLOSE))
            log.info("scan %d: %d images in %.2f s", scan.number, scan.images, scan.elapsed())
        except (PeerGone, OSError) as error:
            scan.error = str(error) if isinstance(error, PeerGone) else f"the client is gone ({one_line(error)})"
            log.warning("scan %d: %s", scan.number, scan.error)
        except Exception as error:
            late = isinstance(error, Aborted)
            scan.error = f"it took longer than {self.settings.limits.scan_s:g} s" if late else printable(error)
            log.error("scan %d: %s", scan.number, scan.error)
            if not isinstance(error, ReconError | Aborted):
                log.info("traceback", exc_info=error)
            self._tell(conn, scan.error, intake)
        finally:
            timer.cancel()
            results.abort()
            if worker is None:
                self._leave()

    def _send(self, conn: socket.socket, scan: Scan, results: BoundedQueue) -> None:
        """Send images as they come. Raises what the chain raised."""
        wire = _Wire(conn)
        windows: dict[int, tuple[float, float]] = {}
        for item in results:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, ismrmrd.Image):
                conn.settimeout(self.settings.limits.idle_s)
                writers.write_image(wire, with_geometry(item, windows))
                scan.images += 1
                self.totals["images"] += 1
                scan.first_image_s = scan.first_image_s or scan.elapsed()
                scan.thumbnail = thumbnail(item)

    def _work(self, chain: Chain, header: Any, data: Iterator[Any], results: BoundedQueue) -> None:
        """Run the chain; its place is free when all of it has ended, whatever became of the connection."""
        try:
            items: Any = chain.run(header, data)
            with contextlib.closing(items):
                for item in items:
                    results.put(item)
        except Aborted:
            pass
        except Exception as error:
            with contextlib.suppress(Aborted):
                results.put_unbounded(error)
        finally:
            results.close()
            self._leave()

    def _tell(self, conn: socket.socket, text: str, intake: Intake) -> None:
        """Send an ERROR and CLOSE, and close only when the client has sent all it wants to: else it may lose them."""
        intake.drop()
        encoded = text.encode(errors="replace")
        with contextlib.suppress(OSError):
            conn.settimeout(self.settings.limits.idle_s)
            if intake.of_fire:  # its client knows no ERROR, but shows log lines
                line = b"ERROR    " + encoded + b"\0"
                conn.sendall(_message(constants.GADGET_MESSAGE_TEXT) + struct.pack("<I", len(line)) + line)
            conn.sendall(ERROR_MESSAGE.pack(constants.GADGET_MESSAGE_ERROR, len(encoded)) + encoded)
            conn.sendall(_message(constants.GADGET_MESSAGE_CLOSE))
            intake.drain()


def printable(error: BaseException) -> str:
    """Text of an error for a log and a page: one line, not too long, whatever a client put into it."""
    return "".join(letter if letter.isprintable() else "?" for letter in one_line(error))[:LONGEST_TEXT]


def header_of(text: bytes) -> Any:
    """The header, checked. Raises ReconError that quotes nothing of it: errors are logged."""
    try:
        header = parse_header("the scan", text)
    except ReconError:
        raise ReconError("the ISMRMRD header cannot be read; look at it with an XML validator") from None
    check_header("the scan", header)
    return header


def checked(header: Any, items: Iterable[Any], memory: MemoryCheck, scan: Scan) -> Iterator[Any]:
    """The lines and waveforms of a scan. Raises ReconError for what disagrees with the header or is too much."""
    check = AcquisitionChecker("the scan", header)
    for index, item in enumerate(items):
        if isinstance(item, ismrmrd.Acquisition):
            check(index, item)
        memory(item, scan.images)
        yield item


def _message(number: int) -> bytes:
    return int(number).to_bytes(2, "little")


class _Wire:
    """What gadgetron-python's writers write to."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def write(self, data: Any) -> None:
        self._socket.sendall(data)


# --- images ----------------------------------------------------------------------------------------------------------


def with_geometry(image: ismrmrd.Image, windows: dict[int, tuple[float, float]]) -> ismrmrd.Image:
    """The image with what FIRE reads from its meta, as far as it does not say it already.

    `windows` remembers the grey values (low, high) of each series' first image, which all of its images are shown with.
    """
    meta = meta_of(image.attribute_string)
    series = image.image_series_index
    if series not in windows:
        low, high = np.percentile(np.abs(image.data), (1, 99.5))
        windows[series] = (float(low), float(high))
    low, high = windows[series]
    head = image.getHead()
    for name, value in {
        "DataRole": "Image",
        "ImageProcessingHistory": ["GENRECON"],
        "WindowCenter": f"{(low + high) / 2:.0f}",
        "WindowWidth": f"{max(high - low, 1):.0f}",
        "ImageRowDir": [f"{value:.18f}" for value in head.read_dir],
        "ImageColumnDir": [f"{value:.18f}" for value in head.phase_dir],
        "Keep_image_geometry": "1",
    }.items():
        if name not in meta:
            meta[name] = value
    image.attribute_string = str(meta.serialize())
    return image


def thumbnail(image: ismrmrd.Image, size: int = 128) -> Any:
    """A small grey picture, uint8 (y, x), of the middle of an image."""
    volume = np.abs(image.data[0])
    plane = volume[len(volume) // 2].astype(np.float32)
    step = max(1, -(-max(plane.shape) // size))
    plane = plane[::step, ::step]
    white = float(np.percentile(plane, 99.5)) or 1.0
    return (255 * np.clip(plane / white, 0, 1)).astype(np.uint8)
