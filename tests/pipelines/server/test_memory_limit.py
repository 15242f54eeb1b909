"""A scan process that takes more memory than its limit is killed."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path

import ismrmrd
import pytest
from gadgetron.external import constants, writers

from benchmarks.fuzz import Recorded
from pipelines.raw import RawScan
from pipelines.server import memory_limit
from pipelines.simulation import simulate, write_raw
from tests.pipelines.server.serving import (
    LIMITS,
    SCAN,
    answer,
    both_end_well,
    connected,
    fire_error_of,
    named,
    serving,
    text,
    until,
    works,
    write_scan,
)


@pytest.mark.slow
def test_memory_that_the_estimate_misses(tmp_path: Path) -> None:
    """Lines of a slice that is never complete, while others give images, which the estimate takes for progress."""
    raw = tmp_path / "wide.h5"
    write_raw(raw, simulate(replace(SCAN, matrix=(2048, 32, 1), slices=12, readout_oversampling=1)))
    with serving(limits=replace(LIMITS, memory_gib=0.5)) as server:
        with RawScan(raw) as scan, connected(server) as sock:
            lines, totals = list(scan.acquisitions()), server.queue.totals
            endless = Recorded()
            writers.write_acquisition(endless, next(line for line in lines if line.idx.slice == 11))
            sock.sendall(named("cg_sense") + text(constants.GADGET_MESSAGE_HEADER, scan.header_xml))
            with contextlib.suppress(OSError):  # the server ends it in the middle
                for line in lines:
                    wire = Recorded()
                    writers.write_acquisition(wire, line)
                    sock.sendall(wire.data)
                    if line.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE):
                        until(lambda slices=line.idx.slice: totals["images"] > slices or totals["scans"])
                        sock.sendall(900 * endless.data)
        until(lambda: bool(server.queue.totals["scans"]))
        assert server.queue.scans[-1].error == "it took more than 0.5 GiB of memory; raise --memory if it may"
        works(server, write_scan(tmp_path))


def test_a_process_above_its_memory_limit_is_killed(raw: Path, long_scan: bytes) -> None:
    with serving(limits=replace(LIMITS, memory_gib=0.45)) as server, connected(server) as sock:
        slot = server.queue.slots[0]
        sock.sendall(long_scan)
        until(lambda: slot.queued is not None)
        slot.memory_limit.idle_bytes -= 2**29  # as if it had had less before
        assert fire_error_of(answer(sock)).startswith("it took more than 0.45 GiB of memory; raise --memory")
        works(server, raw)


def test_memory_of_the_scan_before_does_not_count(unfinished: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process returns memory only after it has reported the end of a scan."""
    private_memory = memory_limit.private_memory
    looked = threading.Event()

    def memory(process: int) -> int:
        scan = server.queue.scans[1] if len(server.queue.scans) == 2 else None
        if scan is None or scan.state != "runs" or scan.chain:
            return private_memory(process)
        looked.set()
        return 2**50

    with serving(waiting=1) as server, connected(server) as one, connected(server) as other:
        monkeypatch.setattr(memory_limit, "private_memory", memory)
        both_end_well(server, one, other, unfinished)
        assert looked.is_set()
