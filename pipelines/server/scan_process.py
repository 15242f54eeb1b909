"""The process behind `genrecon serve` that reconstructs one scan after another, its priors in memory."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import shutil
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import IO, Any, NoReturn

import ismrmrd
import numpy as np
from gadgetron.external import writers

from gadgets.dicom.sender import DELIVERY
from gadgets.images import meta_of
from gadgets.solvers.generative_solver import GENERATIVE
from gadgets.stream import Gadget, PeerGone, ReconError, one_line
from gadgets.stream.errors import Aborted
from gadgets.stream.logs import collected_warnings
from gadgets.stream.parameters import local_parameters
from gadgets.stream.queues import BoundedQueue
from gadgets.stream.stages import StageThread
from gadgets.twins import TWINS
from pipelines.chain import INSTALLED_PREFIX, Chain, Node, shipped_chain, shipped_chains
from pipelines.evaluation.arrays import ArrayReconstruction
from pipelines.raw import AcquisitionChecker, check_header, parse_header
from pipelines.replay import DICOM_MODULE
from pipelines.server.intake import CLOSE, Intake, Outlet, Request
from pipelines.server.memory import MemoryCheck
from pipelines.server.processes import KEPT_BYTES, memory_of, settle_allocator, trim_heap
from pipelines.server.settings import Ended, ServeSettings

log = logging.getLogger("genrecon")

# What a chain that comes over the network may run beside the twins of Gadgetron's own gadgets.
ALLOWED = {
    "gadgets.coil_compression": "CoilCompression",
    "gadgets.espirit": "Espirit",
    "gadgets.generative_recon": "GenerativeRecon",
    "gadgets.reconstruction": "Reconstruction",
    DICOM_MODULE: "DicomOutput",
}
OWN_DICOM = {"folder", "anonymize", "salt"}  # properties of a chain that is sent; the server takes a folder of its own
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
LONGEST_TEXT = 600
LONGEST_CHAIN = 64  # gadgets, each a thread
STOPPING_S = 3.0  # that the threads of a chain have to end; else their process ends
SHARE_OF_TIME = 0.9  # of the longest scan that a generative method may take, so that it ends with images
PLACES = 8  # of a traceback that are told

Tell = Callable[[str, Any], None]


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


def plain_name(config: str) -> str:
    """Name of a chain as a client gives it: without `.xml`, and without what installed chains have in front.

    Raises ReconError for what is no name: a path, say.
    """
    name = config.strip().removesuffix(".xml").removeprefix(INSTALLED_PREFIX)
    if not NAME.fullmatch(name):
        raise ReconError("the name of the configuration has letters that no name of a chain has")
    return name


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
    for name, value in node.properties.items():
        member, _, own_name = name.rpartition(".")
        owner = getattr(kind, "members", {}).get(member) if member else kind
        if owner is None or (node.module == DICOM_MODULE and own_name in OWN_DICOM):
            continue
        defaults = local_parameters(owner.Parameters)
        if own_name in defaults and value != str(defaults[own_name]):
            raise _local(name)


def _local(name: str) -> ReconError:
    return ReconError(f"property '{name}' is for the server's own chains: it touches files, hosts or later scans")


def _as_the_server_wants(chain: Chain, settings: ServeSettings) -> Chain:
    """DICOM where the server wants it, and a time budget within which a scan has images."""
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
                node.properties |= {"spool": str(settings.spool), "deliver": "false"}  # the server does
        for prefix in ("", "generative_recon."):
            if node.properties.get(f"{prefix}method") in GENERATIVE:
                budget = f"{prefix}time_budget_s"
                own = node.properties.get(budget, str(settings.time_budget_s))
                with contextlib.suppress(ValueError):  # the gadget says what is wrong with it
                    most = SHARE_OF_TIME * settings.limits.scan_s
                    node.properties[budget] = str(min(float(own) or most, most))
    return chain


# --- one scan --------------------------------------------------------------------------------------------------------


def header_of(text: bytes) -> Any:
    """The header, checked. Raises ReconError that quotes nothing of it: errors are logged."""
    try:
        header = parse_header("the scan", text)
    except ReconError:
        raise ReconError("the ISMRMRD header cannot be read; look at it with an XML validator") from None
    check_header("the scan", header)
    return header


def checked(header: Any, items: Iterable[Any], memory: MemoryCheck, images: Callable[[], int]) -> Iterator[Any]:
    """The lines and waveforms of a scan. Raises ReconError for what disagrees with the header or is too much."""
    check = AcquisitionChecker("the scan", header)
    lines = 0
    for item in items:
        if isinstance(item, ismrmrd.Acquisition):
            check(lines, item)
            lines += 1
        memory(item, images())
        yield item


class ScanRun:
    """A scan, from what its client asked for to its last image.

    Parameters
    ----------
    sock : connection to the client
    request : of the client
    ahead : file of what was read from the connection after the request, if anything was
    settings : of the server
    tell : takes the name of what happens, and what is to be known of it: `chain` and its name, `sending` before an
        image, `image` and a small picture after it
    """

    def __init__(
        self, sock: socket.socket, request: Request, ahead: IO[bytes] | None, settings: ServeSettings, tell: Tell
    ) -> None:
        self._request, self._settings, self._tell = request, settings, tell
        self._intake = Intake(sock, settings.limits, request.next_message, ahead, self._reset)
        self._outlet = Outlet(sock, settings.limits.idle_s)
        self._results = BoundedQueue(items=64)
        self._items = self._images = 0
        self._keeps_files = False  # whether the scan is worth it without its client
        self._left = ""  # how its client did
        self._warnings: list[str] = []  # of the gadgets

    def run(self) -> Ended:
        """Reconstruct it. Images go to the client; an error is for the server to tell."""
        limit = self._settings.limits.scan_s
        timer = threading.Timer(limit, self._results.abort)
        timer.daemon = True
        worker: threading.Thread | None = None
        try:
            timer.start()
            chain = chain_of(self._request, self._settings)
            self._keeps_files = chain.external(DICOM_MODULE) is not None  # the intake asks for it
            self._tell("chain", chain.name)  # from here on the server looks at its memory
            self._intake.start()
            header = header_of(self._request.header_text)
            memory = MemoryCheck(header, self._settings.limits.memory_gib, chain)
            items = self._counted(checked(header, self._intake, memory, lambda: self._images))
            worker = threading.Thread(target=self._work, args=(chain, header, items), daemon=True)
            with collected_warnings(self._warnings, leave_out=DELIVERY):
                worker.start()
                self._send()
            ended = self._done()
        except PeerGone as error:
            ended = Ended(str(error), str(error))  # it may have ended its half of the connection only
        except Aborted:
            text = self._left or f"it took longer than {limit:g} s"
            ended = Ended(text, "" if self._left else text)
        except Exception as error:
            text = printable(error)
            ended = Ended(text if isinstance(error, ReconError) else f"unexpected {places_of(error)}", text)
        finally:
            timer.cancel()
            self._results.abort()
            self._intake.stop()
        return ended._replace(goes_on=_has_ended(worker))

    def _counted(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self._items += 1
            yield item

    def _work(self, chain: Chain, header: Any, data: Iterator[Any]) -> None:
        """Run the chain."""
        try:
            with contextlib.closing(chain.run(header, data)) as items:  # type: ignore[type-var]
                for item in items:
                    self._results.put(item)
        except Aborted:
            pass
        except Exception as error:
            with contextlib.suppress(Aborted):
                self._results.put_unbounded(error)
        finally:
            self._results.close()

    def _send(self) -> None:
        """Send images as they come. Raises what the chain raised."""
        windows: dict[int, tuple[float, float]] = {}
        for item in self._results:
            if isinstance(item, BaseException):
                raise item
            if not isinstance(item, ismrmrd.Image):
                continue
            self._images += 1
            if self._left:
                continue
            image = with_geometry(item, windows)
            self._tell("sending", None)
            try:
                writers.write_image(self._outlet, image)
            except PeerGone as error:
                if not (self._intake.complete and self._keeps_files):
                    raise
                self._left = str(error)
            else:
                self._tell("image", thumbnail(image))

    def _reset(self) -> None:
        """The client is gone after it has sent all of the scan."""
        self._left = "the client is gone"
        if not self._keeps_files:
            self._results.abort()

    def _done(self) -> Ended:
        if self._items and not self._images:
            text = f"its {self._items} lines gave no image; look at their flags and at the gadgets of the chain"
            return Ended(text, text)
        if self._left:
            return Ended(f"{self._left}; {self._images} images went to files only")
        for text in self._warnings:
            self._outlet.text("WARNING", text, self._request.of_fire)
        self._outlet.write(CLOSE)
        return Ended()


def _has_ended(worker: threading.Thread | None) -> bool:
    """Whether all threads of a scan end soon: one in the middle of a long computation cannot be told to."""
    deadline = time.monotonic() + STOPPING_S
    if worker is not None and worker.ident is not None:
        worker.join(STOPPING_S)
        if worker.is_alive():
            return False
    # It starts the others: from here on all of them have started, or never will.
    stages = [thread for thread in threading.enumerate() if isinstance(thread, StageThread)]
    for thread in stages:
        thread.join(max(deadline - time.monotonic(), 0.0))
    return not any(thread.is_alive() for thread in stages)


def printable(error: BaseException) -> str:
    """Text of an error for a client, a log and a page: one line, not too long, whatever a client put into it."""
    return "".join(letter if letter.isprintable() else "?" for letter in one_line(error))[:LONGEST_TEXT]


def places_of(error: BaseException) -> str:
    """What can be logged of an error that nobody expected: its kind, and where it came from.

    Its text may quote the header.
    """
    frames = reversed(traceback.extract_tb(error.__traceback__)[-PLACES:])
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{type(error).__name__} at {places}" if places else type(error).__name__


# --- the process -----------------------------------------------------------------------------------------------------


def warm_up(methods: tuple[str, ...]) -> None:
    """Load what the methods need and run each for a moment, so that the first scan does not wait for it."""
    generator = np.random.default_rng(0)
    kspace = (generator.standard_normal((4, 64, 64)) + 1j * generator.standard_normal((4, 64, 64))).astype(np.complex64)
    kspace[:, 1:24:2] = kspace[:, 41::2] = 0
    for method in methods:
        gadgets = ArrayReconstruction({"method": method} | ({"steps": "1"} if method in GENERATIVE else {}))
        gadgets(gadgets.with_maps(kspace))


class _ToServer(logging.Handler):
    """What the server hears of the process: what happens, and its log lines."""

    def __init__(self, link: Connection, scratch: str | None) -> None:
        super().__init__()
        self._link, self._scratch = link, scratch
        self.in_scan = False

    def end(self) -> NoReturn:
        """End the process, as its server is gone, whatever it does, and its temporary files."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        os._exit(0)

    def tell(self, what: str, about: Any) -> None:
        """Tell the server; without one the process ends."""
        with self.lock:  # type: ignore[union-attr]
            try:
                self._link.send((what, about))
            except OSError:
                self.end()

    def emit(self, record: logging.LogRecord) -> None:
        values = dict(record.__dict__, msg=record.getMessage(), args=None, exc_info=None, exc_text=None)
        if record.exc_info and record.exc_info[1] is not None:
            values["msg"] += f": {places_of(record.exc_info[1])}"
        self.tell("log", (values, self.in_scan and record.threadName != DELIVERY))


def _log_thread_error(about: threading.ExceptHookArgs) -> None:
    """Python would print the error's text, which may quote a header."""
    if about.exc_value is not None:
        log.error("a thread ended: %s", places_of(about.exc_value))


def work(link: Connection) -> None:
    """Reconstruct the scans that come over the link, until it is closed or a scan has left threads behind.

    Parameters
    ----------
    link : to the server. It sends (settings, level of the log, folder for temporary files), then of each scan
        (request, whether there is a file of what was read ahead) and the descriptors of the client's socket and of that
        file. It hears (what, about): `ready`, or `failed` and why; `log` and a record; of a scan what `ScanRun` tells,
        and `ended` with `Ended`
    """
    with contextlib.suppress(OSError):  # rather this process than the server, where memory runs out
        Path("/proc/self/oom_score_adj").write_text("500")
    settings, level, scratch = link.recv()
    tempfile.tempdir = scratch
    settle_allocator()
    server = _ToServer(link, scratch)
    log.handlers, log.propagate = [server], False
    threading.excepthook = _log_thread_error
    try:
        log.setLevel(logging.WARNING)  # what it says of made-up data is of no use
        warm_up(settings.warm)
    except ReconError as error:
        server.tell("failed", str(error))
        return
    log.setLevel(level)
    jobs: queue.SimpleQueue[tuple[Request, socket.socket, IO[bytes] | None]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(link, jobs, server), daemon=True).start()
    most = memory_of(os.getpid()) + KEPT_BYTES
    server.tell("ready", None)
    while True:
        request, sock, ahead = jobs.get()
        server.in_scan = True
        with sock:
            ended = ScanRun(sock, request, ahead, settings, server.tell).run()
        if ahead is not None:
            ahead.close()
        server.in_scan = False
        server.tell("ended", ended)
        if not ended.goes_on:
            os._exit(0)  # the threads would not let it end otherwise
        del request, sock, ahead
        if memory_of(os.getpid()) > most:
            trim_heap()


def _receive(
    link: Connection, jobs: queue.SimpleQueue[tuple[Request, socket.socket, IO[bytes] | None]], server: _ToServer
) -> None:
    """Take what the server sends; the process ends with the link, and where it cannot take something."""
    try:
        while True:
            request, is_ahead = link.recv()
            sock = socket.socket(fileno=recv_handle(link))
            ahead = os.fdopen(recv_handle(link), "rb") if is_ahead else None
            if ahead is not None:
                ahead.seek(0)
            jobs.put((request, sock, ahead))
    finally:
        server.end()


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
