"""Mutated MRD 2 streams for `genrecon stream`: whatever comes, it is read, or refused in one line, within its limits.

python -m benchmarks.fuzz_mrd2 [--streams 100000] [--seed 0]   # mutations of good streams; a short run is in the tests
python -m benchmarks.fuzz_mrd2 --atheris [-max_total_time=600] # bytes led by coverage (pip install atheris)
"""

from __future__ import annotations

import collections
import contextlib
import io
import os
import random
import resource
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.fuzz import LENGTHS, main, mutated
from gadgets.stream import ReconError
from pipelines.chain import read_chain
from pipelines.mrd2.acquisitions import TAG, LineConverter
from pipelines.mrd2.header import header_xml
from pipelines.mrd2.items import refuse_buckets
from pipelines.mrd2.schema import Schema
from pipelines.mrd2.sink import Sink
from pipelines.mrd2.source import Source, StreamEnds
from pipelines.mrd2.streams import Mrd2Reader, Mrd2Writer
from pipelines.mrd2.writing import installed_schema, write_scan
from pipelines.raw import RawScan
from pipelines.server.memory_estimate import MemoryEstimate
from pipelines.server.processes import private_memory
from pipelines.server.scan_run import checked_header, checked_items
from pipelines.simulation import SimulationSettings, simulate
from pipelines.stream import reconstruct_stream

ARRAY_MIB = 1.0
MEMORY_GIB = 0.5
_CHAIN = read_chain("cg_sense")
WHOLE = 400  # every so many-th stream goes through pipes and the chain
AS_FILE = 20  # every so many-th one is read as a file
SLOWEST_S = 30.0
MEMORY_MIB = 1024


def good_streams(schemas: Sequence[Schema] = ()) -> list[bytes]:
    """A small scan in each of some versions of MRD 2, by default the installed one, alone and among other items."""
    settings = SimulationSettings(
        matrix=(16, 16, 1), coils=2, sampling="uniform", acceleration=2, calibration_lines=8, noise_level=0.01,
        noise_scan=True,
    )  # fmt: skip
    scan = simulate(settings)
    found = []
    for schema in schemas or [installed_schema()]:
        plain = io.BytesIO()
        write_scan(plain.write, scan.header, scan.acquisitions(), schema)
        found += [plain.getvalue(), _with_other_items(plain.getvalue())]
    return found


def _with_other_items(content: bytes) -> bytes:
    """A stream with one item of each kind among its lines, all empty."""
    mixed = io.BytesIO()
    reader = Mrd2Reader(Source(io.BytesIO(content).read))
    writer = Mrd2Writer(Sink(mixed.write), reader.schema, reader.header)
    tags = {tag.lower(): (tag, element) for tag, element in reader.schema.item.cases if element}
    for place, (tag, value, _) in enumerate(reader.items({TAG}, {})):
        if place == 1:
            for name, (own, element) in tags.items():
                if name not in {TAG, "acquisitionbucket", "recondata"}:
                    writer.write(own, element.empty())
        writer.write(tags[tag][0], value)
    writer.end()
    return mixed.getvalue()


def mutated_stream(content: bytes, generator: random.Random) -> bytes:
    """The stream with some of its bytes changed, seldom in the schema, or a number of it made extreme."""
    reader = Mrd2Reader(Source(io.BytesIO(content).read))
    begin = content.index(reader.schema.text.encode()) + len(reader.schema.text.encode())
    if generator.random() < 0.03:
        return mutated(content, generator)
    head, rest = content[:begin], bytearray(content[begin:])
    if generator.random() < 0.4:
        number = io.BytesIO()
        sink = Sink(number.write)
        sink.varint(generator.choice(LENGTHS))
        sink.flush()
        place = generator.randrange(len(rest))
        rest[place : place + generator.choice((0, 1, 2))] = number.getvalue()
        return head + bytes(rest)
    return head + mutated(bytes(rest), generator)


def outcome(content: bytes, source: Source | None = None) -> str:
    """How a stream is read: read, ended or refused; raises what is a fault of the reading."""
    passed: dict[str, int] = {}
    try:
        reader = Mrd2Reader(source or Source(io.BytesIO(content).read), ARRAY_MIB)
        record = reader.schema.case(TAG)
        if reader.header is None or record is None:
            return "refused"
        header = _known_header(header_xml(reader.header, reader.schema.header_record, []))
        converter = LineConverter(record)
        lines = (converter(value, n) for n, (_, value, _) in enumerate(reader.items({TAG}, passed)))
        memory = MemoryEstimate(header.fields, MEMORY_GIB, _CHAIN)
        for _ in checked_items(header, lines, memory, lambda: 0):
            refuse_buckets(passed)
        return "read"
    except StreamEnds:
        return "ended"
    except ReconError:
        return "refused"


_known_header = lru_cache(maxsize=8)(checked_header)  # most mutations leave the header alone


def outcome_of_file(content: bytes, path: Path) -> str:
    """The same of a stream in a file, as `genrecon replay` reads it."""
    path.write_bytes(content)
    try:
        with RawScan(path) as scan:
            for _ in scan.acquisitions():
                pass
        return "file read"
    except ReconError:
        return "file refused"


def outcome_of_pipes(content: bytes) -> str:
    """What comes of a stream that goes through pipes and the chain."""
    (source, writer), (reader, sink) = os.pipe(), os.pipe()
    images = bytearray()

    def write() -> None:
        with os.fdopen(writer, "wb") as file, contextlib.suppress(OSError):
            file.write(content)

    def read() -> None:
        with os.fdopen(reader, "rb") as file:
            images.extend(file.read())

    threads = [threading.Thread(target=write, daemon=True), threading.Thread(target=read, daemon=True)]
    for thread in threads:
        thread.start()
    try:
        result = reconstruct_stream(source, sink, read_chain("cg_sense"), memory_gib=MEMORY_GIB)
        found = "images" if result.images else "no image due"
    except ReconError:
        found = "pipe refused"
    except Exception as error:
        if not hasattr(error, "stage"):
            raise
        found = "gadget failed"  # samples of any size may be too much for a gadget: the program says so and fails
    finally:
        os.close(source)
        os.close(sink)
    for thread in threads:
        thread.join(SLOWEST_S)
    if found == "images":  # what comes out is a whole stream
        whole = Mrd2Reader(Source(io.BytesIO(images).read))
        for _ in whole.items((), {}):
            pass
        assert whole.complete
    return found


def fuzz_streams(streams: int, seed: int = 0, schemas: Sequence[Schema] = ()) -> dict[str, int]:
    """Feed mutated streams; count what came of them.

    Parameters
    ----------
    streams : their number
    seed : of the mutations
    schemas : versions of MRD 2; none: the installed one

    Raises
    ------
    AssertionError
        A stream took too long, or memory grew above its limit.
    Exception
        Whatever else a stream caused.
    """
    generator = random.Random(seed)
    good = good_streams(schemas)
    counts: collections.Counter[str] = collections.Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with TemporaryDirectory() as folder:
        for number in range(streams):
            content = mutated_stream(generator.choice(good), generator)
            start = time.monotonic()
            try:
                if number % WHOLE == WHOLE - 1:
                    counts[outcome_of_pipes(content)] += 1
                elif number % AS_FILE == 0:
                    counts[outcome_of_file(content, Path(folder) / "scan.mrd")] += 1
                else:
                    counts[outcome(content)] += 1
            except Exception as error:
                raise AssertionError(f"stream {number} of seed {seed}") from error
            assert time.monotonic() - start < SLOWEST_S, f"stream {number} of seed {seed} took too long"
            if number % AS_FILE == 0:
                found = private_memory(os.getpid()) / 2**20
                assert found < MEMORY_MIB, f"the process has {found:.0f} MiB after stream {number} of seed {seed}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    assert grown < MEMORY_MIB, f"memory rose by {grown:.0f} MiB at its highest"
    return dict(counts)


if __name__ == "__main__":
    main("benchmarks.fuzz_mrd2", __doc__, fuzz_streams)
