"""One scan in a scan process: data in, through the chain, images out."""

from __future__ import annotations

import contextlib
import datetime
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import ismrmrd
from gadgetron.external import writers

from gadgets.dicom.sender import DELIVERY
from gadgets.errors import Aborted
from gadgets.images import single_precision
from gadgets.noise.quality import NoiseQuality
from gadgets.noise.scan import NoiseScan, measurement_id
from gadgets.reference_scan import ReferenceScan
from gadgets.stream import PeerGone, ReconError
from gadgets.stream.logs import collected_warnings, log_fact
from gadgets.stream.queues import BoundedQueue
from gadgets.stream.stages import StageThread
from pipelines.chain import Chain
from pipelines.kept.recorder import ScanRecorder
from pipelines.kept.scan import About
from pipelines.kept.store import KeptScans
from pipelines.noise.references import reference_in_stream
from pipelines.noise.streamed import ScanNoise, noise_in_stream
from pipelines.raw import AcquisitionChecker, Header, check_header, field_of_view_doubts, read_header
from pipelines.replay import DICOM_MODULE, anonymizes
from pipelines.server.error_texts import printable, where_raised
from pipelines.server.intake import ScanReader
from pipelines.server.late_answer import LateAnswer
from pipelines.server.memory_estimate import MemoryEstimate
from pipelines.server.progress import LineCounter, announced_images, announced_lines, method_of
from pipelines.server.replies import CLOSE, ReplyWriter
from pipelines.server.request import Request
from pipelines.server.requested_chain import GENERATIVE_TIME_SHARE, kept_xml, requested_chain
from pipelines.server.retrieval import Retrieval, wanted_late_images
from pipelines.server.scan import ScanResult
from pipelines.server.served_images import thumbnail, with_fire_meta
from pipelines.server.settings import ServeSettings

log = logging.getLogger("genrecon")

QUEUED_IMAGES = 64
THREADS_TIMEOUT_S = 3.0  # for the threads of a chain to end; if they do not, their process is replaced

HEADER_MESSAGE_BYTES = 6  # of the message that a kept stream begins with, in addition to the header's text
ANSWER_IS_DUE = object()  # among the results of the chain

Report = Callable[[str, Any], None]


def checked_header(text: bytes) -> Header:
    """The header, read and checked. Raises ReconError, whose text is logged: it quotes nothing of a patient."""
    header = read_header("the scan", text)
    check_header("the scan", header.fields)
    return header


def checked_items(
    header: Header, items: Iterable[Any], memory: MemoryEstimate, images_sent: Callable[[], int]
) -> Iterator[Any]:
    """Acquisitions and waveforms of a scan.

    Raises
    ------
    ReconError
        One disagrees with the header, or the scan would need too much memory.
    """
    check = AcquisitionChecker("the scan", header.fields, header.assumed_cartesian)
    for text in (*header.warnings, *field_of_view_doubts(header.fields)):
        log.warning("%s", text)
    lines = 0
    for item in items:
        if isinstance(item, ismrmrd.Acquisition):
            lines += 1
            if not check(lines - 1, item):
                continue
        memory.add(item, images_sent())
        yield item


class ScanRun:
    """A scan from its request to its last image.

    Parameters
    ----------
    sock : connection to the client
    request : of the client
    ahead : file of what was read from the connection after the request; None: nothing
    settings : of the server
    report : called with the name and value of an event: `chain` with its name, method and time budget; `announced` with
        the numbers of lines and images by the header; `received` with the lines that came, and whether all did;
        `sending` before an image is sent; `image` with its series and a thumbnail after that;
        `late` when the client had its answer and the scan goes on
    keep_noise : called with the scan's own noise and calibration, for later scans
    """

    def __init__(
        self,
        sock: socket.socket,
        request: Request,
        ahead: IO[bytes] | None,
        settings: ServeSettings,
        report: Report,
        keep_noise: Callable[[NoiseScan | ReferenceScan], None] = lambda _: None,
    ) -> None:
        self._request, self._settings, self._report = request, settings, report
        self._store = _store(request, settings)
        self._kept = self._store.scan(request.kept_id) if self._store else None
        self._recorder = _recorder(request, self._store)
        if request.again and self._kept:
            ahead = self._kept.stream.open("rb")
            ahead.seek(HEADER_MESSAGE_BYTES + len(request.header_text))
        self._results = BoundedQueue(items=QUEUED_IMAGES)
        self._writer = ReplyWriter(sock, settings.limits.idle_s)
        self._late = LateAnswer(
            request,
            self._kept,
            self._recorder,
            self._writer,
            settings.answer_within_s,
            lambda: self._results.put_unbounded(ANSWER_IS_DUE),
        )
        self._reader = ScanReader(
            sock,
            settings.limits,
            request.next_message,
            ahead,
            self._client_reset,
            self._late.all_came,
            self._recorder.add if self._recorder else None,
        )
        self._items = self._images = 0
        self._writes_files = False  # the scan goes on without its client
        self._client_left = ""  # how the client left after it had sent the whole scan
        self._warnings: list[str] = []  # of the gadgets
        self._lines = LineCounter(report)
        self._keep = keep_noise
        self._noise = ScanNoise(request.noise, keep_noise)

    def run(self) -> ScanResult:
        """Reconstruct the scan and send its images. An error is returned; the server sends it to the client."""
        limit = self._settings.limits.scan_s
        timer = threading.Timer(limit, self._results.abort)
        timer.daemon = True
        worker: threading.Thread | None = None
        try:
            timer.start()
            with collected_warnings(self._warnings, leave_out=DELIVERY):
                chain = requested_chain(self._request, self._settings, self._record_chain)
            self._writes_files = chain.external(DICOM_MODULE) is not None  # before the reader may call _client_reset
            longest = GENERATIVE_TIME_SHARE * limit
            self._report(
                "chain", (chain.name, *method_of(chain, longest))
            )  # from here on the server enforces the memory limit
            header = checked_header(self._request.header_text)
            self._report("announced", (announced_lines(header.fields), announced_images(header.fields, chain)))
            memory = MemoryEstimate(header.fields, self._settings.limits.memory_gib, chain)
            self._late.configure(header.fields, chain, memory)
            self._reader.start()
            items = self._counted(checked_items(header, self._reader, memory, lambda: self._images))
            worker = threading.Thread(target=self._run_chain, args=(chain, header.fields, items), daemon=True)
            with collected_warnings(self._warnings, leave_out=DELIVERY):
                worker.start()
                self._send_images()
            result = self._finish()
        except PeerGone as error:
            result = ScanResult(str(error), str(error))  # a client that ended only its half can still read that
        except Aborted:
            text = self._client_left or f"it took longer than {limit:g} s"
            result = ScanResult(text, "" if self._client_left else text)
        except Exception as error:
            text = printable(error)
            result = ScanResult(text if isinstance(error, ReconError) else f"unexpected {where_raised(error)}", text)
            if self._recorder:  # the client can send no second time what its scanner measured
                self._reader.record_rest()
        finally:
            timer.cancel()
            self._late.cancel()
            self._results.abort()
            self._reader.stop()
            self._lines.stop()
            if self._recorder:
                self._recorder.close()
        result = self._late.end(result, self._warnings, self._writes_files)
        return result._replace(reusable=_threads_end(worker))

    def _record_chain(self, asked: Chain) -> None:
        self._late.anonymize = anonymizes(asked)
        if self._recorder:
            self._recorder.add_chain(asked.name, kept_xml(asked), self._late.anonymize)

    def _counted(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in self._lines.count(items):
            self._items += 1
            yield item

    def _run_chain(self, chain: Chain, header: Any, data: Iterator[Any]) -> None:
        """Put what the chain makes of the data, or its error, into the results."""
        try:
            if self._request.again and self._kept:
                noise, data = noise_in_stream(header, data, self._kept.noise())
            else:
                noise, data = self._noise.choose(header, data)
            if self._noise.quality is not None:
                self._tell_of_noise(self._noise.quality)
            if self._noise.coils or (self._client_left and not self._writes_files):
                return
            chain.noise = self._late.noise = noise
            data = self._choose_reference(chain, header, data)
            if noise and noise.scan and self._recorder:
                self._recorder.add_noise(noise)
            if noise and chain.prewhitens:
                log_fact("noise", noise.text)
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

    def _tell_of_noise(self, quality: NoiseQuality) -> None:
        """Let the status page show what a noise scan says of the receivers."""
        rows = quality.rows()
        for name in dict.fromkeys(name for name, _ in rows):
            texts = [text for other, text in rows if other == name]
            if name != "noise warning":
                log_fact(name, "; ".join(texts))
            elif self._noise.coils:  # else the gadget warns of it
                for text in texts:
                    log.warning("%s", text)

    def _choose_reference(self, chain: Chain, header: Any, data: Iterator[Any]) -> Iterator[Any]:
        """Give the chain the reference scan that the header names, and let it keep the scan's own calibration."""
        if self._request.again and self._kept:
            chain.reference = self._kept.reference()
        else:
            chain.reference, data = reference_in_stream(header, data, self._request.references)
            if chain.reference and self._recorder:
                self._recorder.add_reference(chain.reference)
        if chain.reference:
            log_fact("reference scan", chain.reference.text)
        if measurement_id(header) and not self._request.again:
            chain.keep_reference = self._keep
        return data

    def _send_images(self) -> None:
        """Send images as they come. Raises what the chain raised."""
        windows: dict[int, tuple[float, float]] = {}
        for item in self._results:
            if isinstance(item, BaseException):
                raise item
            if item is ANSWER_IS_DUE:
                if not self._client_left and self._late.answer(self._images, self._writes_files):
                    self._report("late", None)
                continue
            if not isinstance(item, ismrmrd.Image):
                continue
            self._images += 1
            self._late.first_image.set()
            if self._late.active:
                self._late.add(with_fire_meta(single_precision(item), windows))
                self._report("image", (int(item.image_series_index), thumbnail(item)))
                continue
            if self._client_left:
                continue
            image = with_fire_meta(single_precision(item), windows)
            self._report("sending", None)
            try:
                writers.write_image(self._writer, image)
            except PeerGone as error:
                if not (self._reader.complete and self._writes_files):
                    raise
                self._client_left = str(error)
            else:
                self._report("image", (int(image.image_series_index), thumbnail(image)))

    def _client_reset(self) -> None:
        """The client left after it had sent the whole scan."""
        if self._late.active:  # it had its answer
            return
        self._client_left = "the client is gone"
        if not self._writes_files and self._noise.chosen:
            self._results.abort()

    def _finish(self) -> ScanResult:
        if self._recorder and not self._recorder.close() and (text := self._recorder.warning) not in self._warnings:
            self._warnings.append(text)
        if self._noise.coils:
            return self._finish_noise()
        if self._client_left and not self._writes_files:
            return ScanResult(self._client_left)
        if self._items and not self._images:
            text = f"its {self._items} lines gave no image; look at their flags and at the gadgets of the chain"
            return ScanResult(text, text)
        if self._late.active:
            return ScanResult()
        if self._client_left:
            return ScanResult(f"{self._client_left}; {self._images} images went to files only")
        for text in self._warnings:
            self._writer.text("WARNING", text, self._request.of_fire)
        late_images = self._send_late_images()
        self._writer.write(CLOSE)
        if late_images:
            late_images.end()
        return ScanResult()

    def _send_late_images(self) -> Retrieval | None:
        """Send the late images of earlier scans that the client asks for."""
        wanted = wanted_late_images(self._request.parameters)
        if wanted is None or self._store is None:
            return None
        request = self._request
        late_images = Retrieval(self._store, self._writer, request.of_fire, request.peer)
        try:
            late_images.serve(wanted, request.header_text)
        except PeerGone:
            raise
        except ReconError as error:
            self._writer.text("WARNING", str(error), request.of_fire)
        return late_images

    def _finish_noise(self) -> ScanResult:
        """End of a measurement of noise alone, which has no image."""
        text = f"a noise measurement of {self._noise.coils} coils, it has no image; "
        text += (
            "it is kept for scans that name it in measurementDependency"
            if self._noise.is_kept
            else "it is not kept: its header has no measurementID by which a scan could name it"
        )
        log.info("%s", text)
        if not self._client_left:
            self._writer.text("INFO", text, self._request.of_fire)
            self._writer.write(CLOSE)
        return ScanResult()


def _store(request: Request, settings: ServeSettings) -> KeptScans | None:
    """Where the raw data of scans are kept; None where they are not."""
    if settings.keep_raw is None or not request.kept_id:
        return None
    return KeptScans(settings.keep_raw, settings.keep_raw_gib, settings.keep_raw_days)


def _recorder(request: Request, store: KeptScans | None) -> ScanRecorder | None:
    """What keeps the raw data of a scan; None where they are not kept, or are already."""
    if store is None or request.again:
        return None
    about = About(
        number=request.number,
        received=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        config=request.config,
        texts=tuple(text.decode("utf-8", "surrogateescape") for text in request.texts),
        of_fire=request.of_fire,
    )
    return ScanRecorder(store, request.kept_id, request.header_text, about, request.chain_text)


def _threads_end(worker: threading.Thread | None) -> bool:
    """Whether all threads of a scan end soon: a thread cannot be stopped in the middle of a long computation."""
    deadline = time.monotonic() + THREADS_TIMEOUT_S
    if worker is not None and worker.ident is not None:
        worker.join(THREADS_TIMEOUT_S)
        if worker.is_alive():
            return False
    # The worker starts the others: now that it has ended, each of them has started, or never will.
    stages = [thread for thread in threading.enumerate() if isinstance(thread, StageThread)]
    for thread in stages:
        thread.join(max(deadline - time.monotonic(), 0.0))
    return not any(thread.is_alive() for thread in stages)
