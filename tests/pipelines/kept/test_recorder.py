"""A scan is written while it arrives; a disk that is full or slow ends nothing but that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gadgets.stream.logs import collected_warnings
from pipelines.kept import recorder
from pipelines.kept.recorder import ScanRecorder
from pipelines.kept.scan import About
from pipelines.kept.store import KeptScans, new_id

HEADER = b"<ismrmrdHeader/>"


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[], tuple[ScanRecorder, Path]]:
    def start() -> tuple[ScanRecorder, Path]:
        store, name = KeptScans(tmp_path, 1, 1), new_id()
        return ScanRecorder(store, name, HEADER, About()), tmp_path / name

    return start


def written_to(descriptor: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stream be this descriptor instead of a file."""
    open_file = os.open

    def other(path: str | Path, *about: int) -> int:
        return descriptor() if str(path).endswith("scan.mrd") else open_file(path, *about)

    monkeypatch.setattr(os, "open", other)


def test_all_of_it_is_there(begin: Callable[[], tuple[ScanRecorder, Path]]) -> None:
    record, folder = begin()
    data = [os.urandom(700_000) for _ in range(5)]
    for part in data:
        copy = bytearray(part)
        record.add(copy)
        copy[:] = bytes(len(copy))  # as gadgets may do with the samples
    assert record.close() and record.close()
    assert (folder / "scan.mrd").read_bytes().endswith(HEADER + b"".join(data))


def test_a_killed_process_loses_a_second_at_most(
    begin: Callable[[], tuple[ScanRecorder, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "LONGEST_S", 0.0)
    record, folder = begin()
    record.add(b"a line")
    assert record.flush()
    assert (folder / "scan.mrd").read_bytes().endswith(HEADER + b"a line")
    record.close()


def test_a_full_disk(begin: Callable[[], tuple[ScanRecorder, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    written_to(lambda: os.open("/dev/full", os.O_WRONLY), monkeypatch)
    lines: list[str] = []
    with collected_warnings(lines):
        record, folder = begin()
        for _ in range(200):
            record.add(bytes(2**20))
        assert not record.close()
    assert lines == ["the raw data of this scan are not kept: No space left on device"]
    assert not folder.exists()


def test_a_disk_that_hangs(begin: Callable[[], tuple[ScanRecorder, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and the scan waits no longer than a moment."""
    reader, writer = os.pipe()
    written_to(lambda: writer, monkeypatch)
    monkeypatch.setattr(recorder, "PATIENCE_S", 0.1)
    monkeypatch.setattr(recorder, "QUEUED_BYTES", 4 * 2**20)
    lines: list[str] = []
    with collected_warnings(lines):
        record, _ = begin()
        for _ in range(100):
            record.add(bytes(2**20))
            assert record._waiting_bytes <= 4 * 2**20
        assert not record.close()
    assert len(lines) == 1 and "the disk took nothing" in lines[0]
    os.close(reader)  # the thread's write ends
    record._thread.join(5)
    assert not record._thread.is_alive()
