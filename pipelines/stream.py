"""MRD 2 streams: lines in, images out while further lines come, as a program in a pipe."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ismrmrd

from gadgets.acquisition_flags import is_for_images
from gadgets.errors import Aborted, reason_of
from gadgets.images import single_precision, warnings_of
from gadgets.noise.scan import ChosenNoise, noise_dependencies
from gadgets.stream import ReconError
from gadgets.stream.logs import collected_warnings
from gadgets.stream.queues import BoundedQueue
from pipelines.chain import Chain
from pipelines.mrd2.acquisitions import TAG, LineConverter
from pipelines.mrd2.header import header_xml
from pipelines.mrd2.images import mrd2_image
from pipelines.mrd2.items import refuse_buckets, unused
from pipelines.mrd2.sink import Sink
from pipelines.mrd2.source import FileSource, Source, StreamEnds, source_of
from pipelines.mrd2.streams import Mrd2Reader, Mrd2Writer, OtherFormat
from pipelines.noise.files import noise_of_file
from pipelines.noise.fitting import fitted
from pipelines.noise.references import tell_of_reference
from pipelines.noise.sources import choose_noise
from pipelines.noise.streamed import ScanNoise
from pipelines.pipes import hung_up, nobody_reads, write_all
from pipelines.raw import RawScan
from pipelines.raw.file_kinds import format_of_bytes
from pipelines.raw.stream import HEADER as MRD1_HEADER
from pipelines.raw.stream import begins_as_stream
from pipelines.replay import DICOM_MODULE
from pipelines.scan_scale import set_pixel_scale
from pipelines.server.memory_estimate import MemoryEstimate
from pipelines.server.processes import trim_heap
from pipelines.server.scan_run import checked_header, checked_items

log = logging.getLogger("genrecon")

QUEUED_ITEMS = 512  # lines that are read before the chain takes them
QUEUED_IMAGES = 64
STREAM_QUEUE_MIB = 8.0  # in each queue: a scan of any length needs the same memory, a small one
TRIM_S = 1.0  # between two returns of freed memory: lines that are kept lie between those that are not
CHECK_S = 0.2  # how often the other ends of the pipes are looked at
NO_REFERENCE = "stream takes none; use replay --reference, or serve"
HDF5_BEGIN = b"\x89HDF"


@dataclass
class StreamResult:
    """What came of a stream."""

    images: int = 0
    noise_coils: int = 0  # of a noise measurement, which has no image
    warnings: list[str] = field(default_factory=list)


def reconstruct_stream(
    source: int,
    sink: int,
    chain: Chain,
    *,
    noise: str = "",
    memory_gib: float = 16.0,
    result: StreamResult | None = None,
) -> StreamResult:
    """Reconstruct an MRD 2 stream while it comes; each image is written as soon as it is finished.

    The output has the version of MRD 2 of the input, its header, and its end mark only when the whole scan came and was
    reconstructed.

    Parameters
    ----------
    source, sink : descriptors of pipes, sockets or files
    chain : its DICOM output is left out
    noise : file of a noise scan; empty: the scan's own noise lines
    memory_gib : most memory that a scan may need, by an estimate
    result : is filled, for the case of an error

    Raises
    ------
    ReconError
        The input is no MRD 2 stream, ends early, disagrees with its header; the chain fails; nobody reads the output.
    """
    result = result or StreamResult()
    with collected_warnings(result.warnings):
        reader = _reader(source_of(source))
        incoming = _Incoming(reader, source)
        notes: list[str] = []
        header = checked_header(header_xml(reader.header, reader.schema.header_record, notes))
        for text in notes:
            log.warning("%s", text)
        chain = chain.without(DICOM_MODULE)
        memory = MemoryEstimate(header.fields, memory_gib, chain)
        writer = Mrd2Writer(Sink(lambda data: write_all(sink, data)), reader.schema, reader.header)
        scan_noise = ScanNoise((), lambda _: None)
        lines: Iterator[Any] = checked_items(header, incoming, memory, lambda: result.images)

        def images() -> Iterator[Any]:
            if noise:
                chain.noise, data = _given_noise(noise, header.fields, lines)
            else:
                chain.noise, data = scan_noise.choose(header.fields, lines)
            return iter(()) if scan_noise.coils else chain.run(header.fields, data, queue_mib=STREAM_QUEUE_MIB)

        _write_images(images, incoming, writer, sink, result)
        result.noise_coils = scan_noise.coils
        _finish(writer, result, incoming.lines)
        tell_of_reference(header.fields, result.warnings, NO_REFERENCE)
        incoming.tell_what_was_passed()
    return result


def reconstruct_whole(
    path: Path, sink: int, chain: Chain, *, noise: str = "", result: StreamResult | None = None
) -> StreamResult:
    """Reconstruct an MRD 2 stream in a file as `replay` does: the whole scan is known before its first image.

    All images have one pixel scale, that of the brightest one. Parameters and errors are those of `reconstruct_stream`.
    """
    result = result or StreamResult()
    with contextlib.closing(FileSource(path)) as file, collected_warnings(result.warnings):
        reader = _reader(file)
        with RawScan(path) as scan:
            writer = Mrd2Writer(Sink(lambda data: write_all(sink, data)), reader.schema, reader.header)
            if scan.noise_only:
                result.noise_coils = int(scan.heads()["active_channels"].max())
            else:
                chain.noise = choose_noise(scan, noise) if chain.prewhitens else None
                set_pixel_scale(chain, scan)
                chain = chain.without(DICOM_MODULE)
                survey = scan.survey()
                run = functools.partial(chain.run, scan.header, scan.acquisitions(), survey=survey)
                _write_images(run, None, writer, sink, result)
            _finish(writer, result, scan.acquisition_count)
            tell_of_reference(scan.header, result.warnings, NO_REFERENCE)
    return result


def _reader(source: Source) -> Mrd2Reader:
    try:
        reader = Mrd2Reader(source)
    except OtherFormat:
        raise ReconError(f"the input is no MRD 2 stream{_other_format(source.begin(1030))}") from None
    except ReconError as error:
        raise _of_input(error) from None
    if reader.header is None:
        raise ReconError("the input has no header; send that of the scan before its lines")
    if reader.schema.case(TAG) is None:
        raise ReconError("the input is a stream without lines by its schema; send the raw data of a scan")
    return reader


def _other_format(begin: bytes) -> str:
    if begin.startswith(HDF5_BEGIN):
        return " (it is an HDF5 file: use genrecon replay, or convert it with ismrmrd_to_mrd)"
    if not begin:
        return ": it is empty, the program that writes it ended early"
    if begins_as_stream(begin) or begin[:2] == struct.pack("<H", MRD1_HEADER):
        return " (it is an MRD 1 stream: use genrecon replay or send, or convert it with ismrmrd_to_mrd)"
    return format_of_bytes(begin)


def _of_input(error: ReconError) -> ReconError:
    if isinstance(error, StreamEnds):
        return ReconError(f"the input: {error}; the program that writes it ended early, or the file was cut off")
    return ReconError(f"the input: {error}")


class _Incoming:
    """Reads lines in a thread of its own, ahead of the chain: an early end of the other program is noticed at once."""

    def __init__(self, reader: Mrd2Reader, descriptor: int) -> None:
        record = reader.schema.case(TAG)
        assert record is not None
        self._reader, self._descriptor = reader, descriptor
        self._converter = LineConverter(record)
        self._queue = BoundedQueue(items=QUEUED_ITEMS, megabytes=STREAM_QUEUE_MIB)
        self._passed: dict[str, int] = {}
        self.error: Exception | None = None
        self.on_error: Callable[[Exception], None] = lambda _: None
        self.lines = 0

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._read_all, name="input", daemon=True).start()

    def stop(self) -> None:
        """Drop what was read, and end the thread when it next has a line."""
        self._queue.abort()

    def _read_all(self) -> None:
        try:
            for _, value, _ in self._reader.items({TAG}, self._passed):
                refuse_buckets(self._passed)
                line = self._converter(value, self.lines)
                self.lines += 1
                # When the other program has ended, what is left in the pipe is little: then it is read at once.
                while not self._queue.put(line, timeout=CHECK_S):
                    if hung_up(self._descriptor):
                        self._queue.put_unbounded(line)
                        break
            refuse_buckets(self._passed)
        except Aborted:
            return
        except ReconError as error:
            self.error = _of_input(error)
        except OSError as error:
            self.error = ReconError(f"the input cannot be read ({reason_of(error)})")
        except Exception as error:  # whatever it is, the scan is not whole
            self.error = error
        if self.error is not None:
            self.on_error(self.error)
        self._queue.close(failed=self.error is not None)

    def __iter__(self) -> Iterator[Any]:
        yield from self._queue

    def tell_what_was_passed(self) -> None:
        """Warn of items that are not used."""
        for text in self._converter.notes:
            log.warning("the input: %s", text)
        if listed := unused(self._passed):
            log.warning("the input has items that are not used and not passed on: %s", listed)


def _given_noise(noise: str, header: Any, items: Iterator[Any]) -> tuple[ChosenNoise | None, Iterator[Any]]:
    """The noise of a file for the scan whose lines come, and these."""
    scan = noise_of_file(Path(noise), noise_dependencies(header))
    read: list[Any] = []
    for item in items:
        read.append(item)
        if isinstance(item, ismrmrd.Acquisition) and is_for_images(item):
            return fitted(scan, header, item.getHead(), asked_for=True), itertools.chain(read, items)
    return None, iter(read)


def _write_images(
    images: Callable[[], Iterable[Any]],
    incoming: _Incoming | None,
    writer: Mrd2Writer,
    sink: int,
    result: StreamResult,
) -> None:
    """Write images as they come. Raises what the chain, the input or the output raised, whichever is first."""
    results = BoundedQueue(items=QUEUED_IMAGES, megabytes=STREAM_QUEUE_MIB)
    ended = threading.Event()

    def run_chain() -> None:
        try:
            for item in images():
                results.put(item)
        except Aborted:
            pass
        except Exception as error:
            with contextlib.suppress(Aborted):
                results.put_unbounded(error)
        finally:
            results.close()

    gone = threading.Event()

    def watch() -> None:
        while not ended.wait(CHECK_S):
            if hung_up(sink):
                gone.set()
                results.abort()
                return

    if incoming is not None:
        incoming.on_error = results.put_unbounded
        incoming.start()
    threading.Thread(target=run_chain, name="chain", daemon=True).start()
    threading.Thread(target=watch, name="output", daemon=True).start()
    trimmed = time.monotonic()
    try:
        for item in results:
            if isinstance(item, BaseException):
                raise item
            if time.monotonic() - trimmed > TRIM_S:
                trim_heap()
                trimmed = time.monotonic()
            if isinstance(item, ismrmrd.Image):
                writer.write(*mrd2_image(single_precision(item), writer.schema))
                result.images += 1
                result.warnings += [text for text in warnings_of(item) if text not in result.warnings]
        if incoming is not None and incoming.error is not None:
            raise incoming.error
    except Aborted:
        raise nobody_reads() from None
    finally:
        ended.set()
        results.abort()
        if incoming is not None:
            incoming.stop()


def _finish(writer: Mrd2Writer, result: StreamResult, lines: int) -> None:
    if not result.images and not result.noise_coils:
        raise ReconError(
            f"the {lines} lines of the input gave no image; look at their flags and at the gadgets of the chain"
        )
    writer.end()
