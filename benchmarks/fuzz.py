"""Mutated MRD streams for the server: whatever comes, it is read, or refused in one line, within its limits.

python -m benchmarks.fuzz [--streams 100000] [--seed 0]   # mutations of good streams; a short run is in the tests
python -m benchmarks.fuzz --atheris [-max_total_time=600] # bytes led by coverage (pip install atheris)
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import logging
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gadgetron.external import writers

from gadgets.stream import PeerGone, ReconError
from pipelines.chain import read_chain
from pipelines.raw import RawScan
from pipelines.server.fork_server import ForkServer
from pipelines.server.intake import ScanReader
from pipelines.server.listener import Server
from pipelines.server.memory_estimate import MemoryEstimate
from pipelines.server.processes import private_memory
from pipelines.server.requested_chain import requested_chain
from pipelines.server.scan_run import checked_header, checked_items
from pipelines.server.settings import Limits, ServeSettings
from pipelines.simulation import SimulationSettings, simulate, write_raw

LIMITS = Limits(text_mib=0.5, message_mib=1.0, scan_gib=0.05, memory_gib=0.5, idle_s=2.0, scan_s=20.0)
LENGTHS = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
WHOLE = 400  # every so many-th stream goes to a server on a real socket, and through the chain
READING = ("pipelines", "gadgets")  # packages whose coverage atheris watches
SLOWEST_S = 30.0
MEMORY_MIB = 1024


class Recorded:
    """What gadgetron-python's writers write, as bytes."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: Any) -> None:
        """Append."""
        self.data += bytes(data)


def good_streams() -> list[bytes]:
    """Small scans as clients send them: by name, by value, and as FIRE does."""
    with TemporaryDirectory() as folder:
        raw = Path(folder) / "scan.h5"
        settings = SimulationSettings(
            matrix=(16, 16, 1),
            coils=2,
            sampling="uniform",
            acceleration=2,
            calibration_lines=8,
            noise_level=0.01,
            noise_scan=True,
        )
        write_raw(raw, simulate(settings))
        with RawScan(raw) as scan:
            lines = Recorded()
            for line in scan.acquisitions():
                writers.write_acquisition(lines, line)
            header = struct.pack("<HI", 3, len(scan.header_xml)) + scan.header_xml
    name = struct.pack("<H", 1) + b"cg_sense".ljust(1024, b"\0")
    xml = read_chain("cg_sense").to_xml()
    fire = b'{"parameters": {"config": "cg_sense", "generative_recon.method": "zero_filled"}}\0'
    text = struct.pack("<HI", 5, len(fire)) + fire
    close = struct.pack("<H", 4)
    return [
        name + header + lines.data + close,
        struct.pack("<HI", 2, len(xml)) + xml + header + lines.data + close,
        name + header + text + lines.data + close,
    ]


def mutated(content: bytes, generator: random.Random) -> bytes:
    """The stream with some of its bytes changed, cut, repeated, or made extreme numbers."""
    found = bytearray(content)
    # Most of what decides is at the beginning.
    for _ in range(generator.choice((1, 1, 2, 4, 16))):
        size = len(found)
        if not size:
            break
        place = generator.randrange(min(size, generator.choice((8, 1100, 3000, size))))
        kind = generator.randrange(7)
        if kind == 0:
            found[place] = generator.randrange(256)
        elif kind == 1:
            found[place] ^= 1 << generator.randrange(8)
        elif kind == 2:
            del found[place : place + generator.choice((1, 2, 4, 340, size))]
        elif kind == 3:
            found[place:place] = found[place : place + generator.choice((2, 4, 64, 400))]
        elif kind == 4:
            form = generator.choice(("<H", "<I", "<Q"))
            value = generator.choice(LENGTHS) & (2 ** (8 * struct.calcsize(form)) - 1)
            found[place : place + struct.calcsize(form)] = struct.pack(form, value)
        elif kind == 5:
            found[place : place + 2] = struct.pack("<H", generator.choice((1, 2, 3, 4, 5, 8, 1008, 1022, 1026, 4242)))
        else:
            found[place:place] = generator.randbytes(generator.choice((1, 2, 7, 100)))
    return bytes(found)


def outcome(content: bytes) -> str:
    """How the server reads a stream: left, query, read, gone or refused; raises what is a fault of the server."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)

        def write() -> None:
            with contextlib.suppress(OSError):
                theirs.sendall(content)
                theirs.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        reader = ScanReader(ours, LIMITS)
        try:
            if reader.first_message() is None:
                return "left"
            request = reader.request()
            if request is None:
                return "query"
            chain = requested_chain(request, ServeSettings())
            header = checked_header(request.header_text)
            memory = MemoryEstimate(header.fields, LIMITS.memory_gib, chain)
            reader.start()
            for _ in checked_items(header, reader, memory, lambda: 0):
                pass
            return "read"
        except PeerGone:
            return "gone"
        except ReconError:
            return "refused"
        finally:
            reader.stop()
            theirs.close()
            writer.join(5)


def fuzz_server(streams: int, seed: int = 0, fork_server: ForkServer | None = None) -> dict[str, int]:
    """Feed mutated streams; count what came of them.

    Parameters
    ----------
    streams : their number
    seed : of the mutations
    fork_server : for the scan processes; None: one of its own

    Raises
    ------
    AssertionError
        A stream took too long, memory grew above its limit, or a process of the server did not survive it.
    Exception
        Whatever else a stream caused.
    """
    generator = random.Random(seed)
    good = good_streams()
    counts: collections.Counter[str] = collections.Counter()
    with contextlib.ExitStack() as stack:
        forks = fork_server or stack.enter_context(ForkServer())
        server = Server(ServeSettings(port=0, limits=LIMITS, scans=2, grace_s=5.0), forks)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            for number in range(streams):
                content = mutated(generator.choice(good), generator)
                start = time.monotonic()
                if number % WHOLE == 0:
                    _to_server(server, content)
                    counts["to the server"] += 1
                else:
                    counts[outcome(content)] += 1
                assert time.monotonic() - start < SLOWEST_S, f"stream {number} of seed {seed} took too long"
                for pid in (os.getpid(), *server.queue.processes()):
                    found = private_memory(pid) / 2**20
                    assert found < MEMORY_MIB, f"a process has {found:.0f} MiB after stream {number} of seed {seed}"
            _to_server(server, good[0], images=True)
            assert not server.queue.totals["replaced"], f"a process did not survive a stream of seed {seed}"
        finally:
            server.stop()
            thread.join(5)
    return dict(counts)


def _to_server(server: Server, content: bytes, images: bool = False) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=SLOWEST_S) as sock:
        found = b""
        with contextlib.suppress(OSError):  # the server may end it first
            sock.sendall(content)
            sock.shutdown(socket.SHUT_WR)
            while chunk := sock.recv(1 << 20):
                found += chunk
    assert not images or found[:2] == struct.pack("<H", 1022), "the server does not serve any more"


def led_by_coverage(module: str, options: list[str]) -> None:
    """Let atheris look for streams that the reading does not survive, from the good ones on.

    Parameters
    ----------
    module : has `good_streams()` and `outcome(content)`
    options : of libFuzzer
    """
    import atheris

    for name in [name for name in sys.modules if name.partition(".")[0] in READING]:
        del sys.modules[name]
    with atheris.instrument_imports(include=list(READING)):
        fuzz = importlib.import_module(module)
    with TemporaryDirectory() as corpus:
        for number, content in enumerate(fuzz.good_streams()):
            (Path(corpus) / str(number)).write_bytes(content)
        atheris.Setup([sys.argv[0], corpus, *options], lambda content: fuzz.outcome(bytes(content)) and None)
        atheris.Fuzz()


def main(module: str, about: str | None, feed: Callable[[int, int], dict[str, int]]) -> None:
    """Command line of a module that feeds mutated streams: `feed(streams, seed)`, or `led_by_coverage`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    arguments, others = parser.parse_known_args()
    logging.getLogger("genrecon").addHandler(logging.FileHandler(os.devnull))  # else a line for every refusal
    if arguments.atheris:
        led_by_coverage(module, others)
        return
    start = time.perf_counter()
    found = feed(arguments.streams, arguments.seed)
    print(f"{arguments.streams} streams in {time.perf_counter() - start:.0f} s: {found}")


if __name__ == "__main__":
    main("benchmarks.fuzz", __doc__, fuzz_server)
