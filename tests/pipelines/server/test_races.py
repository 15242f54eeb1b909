"""Two things happen at once: each test holds one of them up until the other has happened."""

from __future__ import annotations

import errno
import io
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.server import memory_limit
from pipelines.server.read_ahead import ReadAhead
from pipelines.server.worker_slot import WorkerSlot
from tests.pipelines.server.serving import (
    CLOSE,
    SCAN,
    answer,
    both_end_well,
    connected,
    ended_well,
    serving,
    start_scan,
    until,
    works,
)


def test_a_client_that_leaves_at_its_turn_takes_no_slot(
    raw: Path, unfinished: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot becomes free after the client's leaving was noticed, and before its scan is removed."""
    forget = ReadAhead.__exit__

    def late(ahead: ReadAhead, *about: Any) -> None:
        forget(ahead, *about)
        running.sendall(CLOSE)
        until(lambda: bool(server.queue.totals["scans"]))

    with serving(scans=1, waiting=1) as server, connected(server) as running:
        start_scan(server, running, unfinished)
        monkeypatch.setattr(ReadAhead, "__exit__", late)
        with connected(server) as waiting:
            waiting.sendall(unfinished)
            until(lambda: server.queue.waiting() == 1)
        until(lambda: server.queue.totals["refused"] == 1)
        assert ended_well(answer(running))
        until(lambda: not server.queue.running())
        assert not server.queue.running() and not server.queue.waiting()
        monkeypatch.undo()
        works(server, raw)


def test_a_process_killed_at_the_end_of_a_scan_runs_no_other(
    unfinished: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    private_memory, handle = memory_limit.private_memory, WorkerSlot._handle_report
    above = threading.Event()

    def late(slot: WorkerSlot, event: str, value: Any) -> None:
        handle(slot, event, value)
        if (
            event == "image"
            and slot.queued is not None
            and slot.queued.scan.images == SCAN.slices
            and not above.is_set()
        ):
            time.sleep(0.3)  # meanwhile the scan ends
            above.set()

    def memory(process: int) -> int:
        scan = server.queue.scans[0] if server.queue.scans else None
        return 2**50 if above.is_set() and scan is not None and scan.state == "runs" else private_memory(process)

    with serving(waiting=1) as server, connected(server) as one, connected(server) as other:
        monkeypatch.setattr(WorkerSlot, "_handle_report", late)
        monkeypatch.setattr(memory_limit, "private_memory", memory)
        both_end_well(server, one, other, unfinished)
        assert above.is_set()
        assert server.queue.totals["replaced"] == 1 and not server.queue.totals["failed"]


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError(errno.EDQUOT, "Disk quota exceeded"), MemoryError()], ids=["disk", "memory"])
def test_a_file_that_cannot_be_closed_ends_no_other_scan(
    error: Exception, raw: Path, unfinished: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was handed over; its scan has ended, and another one runs in the slot, when closing it fails."""
    forget = ReadAhead.__exit__
    handed_over, failed = threading.Event(), threading.Event()

    class File(SimpleNamespace):
        def close(self) -> None:
            self.file.close()
            until(lambda: server.queue.waiting() == 1)
            running.sendall(CLOSE)
            until(lambda: [scan.state for scan in server.queue.scans] == ["done", "runs"])
            failed.set()
            raise error

    def late(ahead: ReadAhead, *about: Any) -> None:
        if not handed_over.is_set():  # the first scan
            handed_over.set()
            ahead.file = File(file=ahead.file or io.BytesIO())  # type: ignore[assignment]
        forget(ahead, *about)

    monkeypatch.setattr(ReadAhead, "__exit__", late)
    with serving(waiting=1) as server, connected(server) as running, connected(server) as other:
        start_scan(server, running, unfinished)
        other.sendall(unfinished)
        assert running.recv(1) and failed.wait(20)
        other.sendall(CLOSE)
        assert ended_well(answer(other))
