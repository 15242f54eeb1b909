"""`producer | genrecon stream | consumer` as processes, of which one is killed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ismrmrd
import pytest

from tests.paths import ROOT
from tests.pipelines.mrd2.streams import stream
from tests.raw_files import header, kspace, line, lines, noise

LONGEST_S = 60.0  # for a busy machine; measured: docs/mrd2.md
COMPUTES_FOR_MINUTES = ["-c", "l1_wavelet", "--set", "generative_recon.replicas=4096"]
COMPUTES_FOR_MINUTES += ["--set", "generative_recon.output=snr"]


@dataclass
class Pipeline:
    """Three programs in a row."""

    producer: subprocess.Popen[bytes]
    stream: subprocess.Popen[bytes]
    consumer: subprocess.Popen[bytes]
    received: Path  # what the consumer has read

    def wait_for_header(self) -> None:
        """Until the stream has read the header, and passed it on."""
        deadline = time.monotonic() + LONGEST_S
        while not self.received.stat().st_size:
            assert self.stream.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)

    def end(self) -> tuple[int, list[str]]:
        """Exit code of the stream, and the lines that it has said."""
        _, said = self.stream.communicate(timeout=LONGEST_S)
        return self.stream.returncode, said.decode().splitlines()


@contextlib.contextmanager
def pipeline(folder: Path, content: bytes, consumer: str, *arguments: str) -> Iterator[Pipeline]:
    """A producer that hands out the content and then waits for ever, and a consumer, a command of the shell."""
    given, received = folder / "given.mrd", folder / "received.mrd"
    given.write_bytes(content)
    received.touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "pipelines.cli", "stream", *arguments]
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:

        def started(command: list[str], **ends: object) -> subprocess.Popen[bytes]:
            process: subprocess.Popen[bytes] = subprocess.Popen(command, cwd=ROOT, env=environment, **ends)  # type: ignore[call-overload]
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        first = started(["sh", "-c", f"cat '{given}'; exec sleep 600"], stdout=pipe)
        middle = started(program, stdin=first.stdout, stdout=pipe, stderr=pipe)
        last = started(["sh", "-c", consumer.format(received=received)], stdin=middle.stdout)
        for end in (first.stdout, middle.stdout):  # only the three have them now
            assert end is not None
            end.close()
        middle.stdout = None
        yield Pipeline(first, middle, last, received)


def scan(slices: int = 2) -> bytes:
    """A stream without its end mark."""
    found = [line(noise(), 0, flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])]
    for number in range(slices):
        place = (0.0, 0.0, 10.0 * number)
        found += lines(kspace(place), slice=number, position=place, scan_counter=number)
    return stream(header(limits={"slice": (0, slices - 1, 0)}), found)[:-1]


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["producer", "consumer"])
@pytest.mark.parametrize("arguments", [["-c", "cg_sense"], COMPUTES_FOR_MINUTES], ids=["waits", "computes"])
def test_a_neighbour_that_is_killed(tmp_path: Path, killed: str, arguments: list[str]) -> None:
    with pipeline(tmp_path, scan(), "exec cat > '{received}'", *arguments) as three:
        three.wait_for_header()
        time.sleep(1.0)  # it waits for further lines, or is in the middle of an image
        assert three.stream.poll() is None
        getattr(three, killed).kill()
        code, said = three.end()
    assert code == 1 and len(said) == 1
    if killed == "producer":
        assert said[0].startswith("error: the input: the stream ends in the middle of item ")
        assert "the program that writes it ended early" in said[0]
    else:
        assert said[0].startswith("error: the output: the program that reads the images ended early")


@pytest.mark.slow
def test_a_consumer_that_is_killed_before_it_reads(tmp_path: Path) -> None:
    """Images wait in a pipe that is full."""
    outputs = "generative_recon.output=magnitude,phase,real,imaginary,complex"
    consumer = "head -c 100 > '{received}'; exec sleep 600"
    with pipeline(tmp_path, scan(6), consumer, "-c", "cg_sense", "--set", outputs) as three:
        three.wait_for_header()
        time.sleep(1.0)
        assert three.stream.poll() is None
        three.consumer.kill()
        code, said = three.end()
    assert code == 1
    assert said[-1].startswith("error: the output: the program that reads the images ended early")
