"""When the next attempt is due."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gadgets.dicom import queue_state
from gadgets.dicom.delivery import spool_status
from gadgets.dicom.queue_state import QueueState
from gadgets.dicom.sender import RetryPolicy, Sender
from tests.gadgets.dicom.pacs_servers import Stow, free_port
from tests.gadgets.dicom.spool_files import UIDS, fill, waiting


def test_backoff_grows_to_its_limit() -> None:
    policy = RetryPolicy(first_s=2, longest_s=300)
    for failures, longest in ((1, 2), (2, 4), (5, 32), (9, 300), (10**6, 300)):
        delays = {policy.delay(failures) for _ in range(50)}
        assert len(delays) > 1 and longest / 2 <= min(delays) and max(delays) <= longest


def test_the_next_attempt_is_the_same_for_all_processes_of_a_boot_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path, f"dicom://PACS@127.0.0.1:{free_port()}")
    wait = Sender(folder, RetryPolicy(first_s=100)).attempt()
    assert wait is not None and 40 < wait <= 100
    for jump in (-1e9, 1e9):
        monkeypatch.setattr(time, "time", lambda jump=jump: 1.8e9 + jump)
        again = Sender(folder).attempt()
        assert again is not None and 0 < again <= wait
    assert waiting(folder) == 3
    assert spool_status(tmp_path)[0].next_attempt_s > 0
    monkeypatch.setattr(queue_state, "_boot", lambda: "after the power cut")
    assert Sender(folder).load_state().due == 0 and Sender(folder).load_state().failures == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": 1, "files": 3}', '{"boot": "x", "files": {"a": []}}'])
def test_a_broken_state_makes_everything_due(text: str, stow: Stow, tmp_path: Path) -> None:
    folder = fill(tmp_path, stow.url)
    (folder / "state.json").write_text(text)
    assert Sender(folder).attempt() is None
    assert stow.received == UIDS


def test_no_state_delays_for_longer_than_the_limit() -> None:
    state = QueueState(3, time.monotonic() + 1e12, "away")
    assert QueueState.from_json(state.to_json(), 300.0).due <= time.monotonic() + 300
