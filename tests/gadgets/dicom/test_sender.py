"""A sender on real sockets: nothing lost, nothing under another UID, whatever fails on either side."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.sop_class import CTImageStorage

from gadgets.dicom import sender as sender_module
from gadgets.dicom.delivery import deliver_once, spool_status
from gadgets.dicom.sender import RetryPolicy, Sender
from tests.gadgets.dicom.pacs_servers import CuttingProxy, Scp, free_port, released, uids
from tests.gadgets.dicom.spool_files import (
    FILES,
    QUICK,
    UIDS,
    exhaust,
    fill,
    make_files,
    messages,
    sending_process,
    waiting,
)


def test_a_pacs_that_is_down_gets_everything_when_it_is_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    folder = fill(tmp_path, f"dicom://PACS@127.0.0.1:{port}")
    sender = Sender(folder, QUICK)
    for _ in range(2):
        time.sleep(sender.attempt() or 0)
    assert waiting(folder) == 3
    assert ["Connection refused" in line for line in messages(caplog)] == [True, True]
    assert len(messages(caplog, logging.WARNING)) == 1
    with Scp(port=port) as scp:
        exhaust(sender)
    assert scp.received == UIDS


@pytest.mark.parametrize("kind", ["title", "context", "silent"])
def test_a_refused_association_is_logged_and_tried_again(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:
        if kind == "silent":
            port = stack.enter_context(socket_that_says_nothing())
        elif kind == "title":
            port = stack.enter_context(Scp(title="OTHER")).port
        else:
            port = stack.enter_context(Scp(sop_class=CTImageStorage)).port
        folder = fill(tmp_path, f"dicom://PACS@127.0.0.1:{port}", timeout_s=0.2 if kind == "silent" else 20.0)
        assert Sender(folder, QUICK).attempt() is not None
    reasons = {
        "title": "Called AE title not recognised",
        "context": "it accepts no MR Image Storage",
        "silent": "does not answer",
    }
    (line,) = messages(caplog)
    assert reasons[kind] in line and waiting(folder) == 3
    assert reasons[kind] in spool_status(tmp_path)[0].reason


@contextlib.contextmanager
def socket_that_says_nothing() -> Iterator[int]:

    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def test_an_aborted_association_loses_nothing(scp: Scp, tmp_path: Path) -> None:
    aborts = [UIDS[1], UIDS[2], UIDS[1]]
    scp.say = lambda uid: "abort" if uid in aborts and not aborts.remove(uid) else 0
    exhaust(Sender(fill(tmp_path, scp.url), QUICK))
    assert sorted(scp.received) == sorted(UIDS)


def test_a_file_that_breaks_the_pacs_holds_up_no_other(scp: Scp, tmp_path: Path) -> None:
    scp.say = lambda uid: "abort" if uid == UIDS[0] else 0
    folder = fill(tmp_path, scp.url)
    exhaust(Sender(folder, QUICK), lambda: len(scp.received) == 2)
    assert sorted(scp.received) == sorted(UIDS[1:]) and waiting(folder) == 1
    assert not (folder / "failed").exists()


@pytest.mark.parametrize("size", [100, 3000, 9000])
def test_a_transfer_that_is_cut_is_made_again(server: Any, size: int, tmp_path: Path) -> None:
    files = make_files(3, size=30)
    with CuttingProxy(server.port, size, cuts=2) as proxy:
        folder = fill(tmp_path, server.url.replace(f":{server.port}", f":{proxy.port}"), files)
        exhaust(Sender(folder, QUICK))
    assert set(server.received) == set(uids(files)) and not waiting(folder)


def test_a_slow_pacs_is_given_up_and_gets_the_same_instance_again(server: Any, tmp_path: Path) -> None:
    with released(threading.Event()) as event:
        server.say = lambda _: (event.wait(10), 0)[1]
        folder = fill(tmp_path, server.url, FILES[:1], timeout_s=0.2)
        assert Sender(folder, QUICK).attempt() is not None
        assert waiting(folder) == 1
        event.set()
        exhaust(Sender(folder, QUICK))
    assert set(server.received) == {UIDS[0]} and not waiting(folder)


@pytest.mark.slow
def test_a_pacs_that_stops_reading_does_not_hold_the_sender(tmp_path: Path) -> None:
    """Its process is stopped in the middle of an association; the image is larger than what sockets buffer."""
    port = free_port()
    code = (
        "import sys; from pynetdicom import AE, evt; from pynetdicom.sop_class import MRImageStorage as mr\n"
        "import os, signal\n"
        "entity = AE('PACS'); entity.add_supported_context(mr)\n"
        "stop = lambda event: os.kill(os.getpid(), signal.SIGSTOP)\n"
        f"entity.start_server(('127.0.0.1', {port}), block=False, evt_handlers=[(evt.EVT_ESTABLISHED, stop)])\n"
        "print('ready', flush=True); sys.stdin.read(); os._exit(0)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        folder = fill(tmp_path, f"dicom://PACS@127.0.0.1:{port}", make_files(1, size=3000), timeout_s=2.0)
        assert Sender(folder, QUICK).attempt() is not None and waiting(folder) == 1
    finally:
        process.kill()
        process.communicate()
    with Scp(port=port) as scp:
        exhaust(Sender(folder, QUICK))
    assert len(scp.received) == 1


@pytest.mark.slow
def test_a_killed_sender_loses_nothing(server: Any, tmp_path: Path) -> None:
    reached = threading.Event()
    with released(threading.Event()) as go_on:

        def say(uid: str) -> int:
            if uid == UIDS[1] and not reached.is_set():
                reached.set()
                go_on.wait(10)
            return 0

        server.say = say
        folder = fill(tmp_path, server.url, timeout_s=30)
        process = sending_process(tmp_path)
        assert reached.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert waiting(folder) == 2
        go_on.set()
        assert deliver_once(tmp_path) == 0
    assert set(server.received) == set(UIDS) and server.received.count(UIDS[0]) == 1


def test_damaged_files_are_set_aside(server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = fill(tmp_path, server.url)
    first, *_ = sorted(folder.glob("*.dcm"))
    content = first.read_bytes()
    first.write_bytes(content[:-50])  # pydicom reads the rest
    exhaust(Sender(folder, QUICK))
    assert len(server.received) == len(set(server.received)) == 2 and not waiting(folder)
    (line,) = messages(caplog, logging.ERROR)
    assert f"{first.name} is damaged" in line
    assert (folder / "failed" / first.name).read_bytes() == content[:-50]
    assert spool_status(tmp_path)[0].failed == 1


def test_trouble_on_this_side_is_not_tried_again_at_once(
    scp: Scp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sender_module, "POLL_S", 0.01)
    folder = fill(tmp_path, scp.url)
    slow = RetryPolicy(first_s=60, longest_s=60)
    with monkeypatch.context() as patched:
        patched.setattr(Sender, "_session", lambda *_: 1 / 0)
        sender = Sender(folder, slow)
        sender.start()
        time.sleep(0.3)
        assert caplog.text.count("unexpected ZeroDivisionError") == 1
        sender.start()  # as for a new file
        time.sleep(0.3)
        assert caplog.text.count("unexpected ZeroDivisionError") == 1
        sender.stop(5)
    exhaust(Sender(folder, QUICK))
    assert scp.received == UIDS


def test_a_queue_on_a_full_disk_is_delivered(full_disk: Path) -> None:
    port = free_port()
    folder = fill(full_disk / "spool", f"dicom://PACS@127.0.0.1:{port}", keep_delivered=True)
    with contextlib.suppress(OSError), open(full_disk / "ballast", "wb") as file:
        file.write(bytes(1 << 20))
    sender = Sender(folder, QUICK)
    first = sender.attempt()
    assert first is not None and first > 0 and sender.attempt() is not None
    with Scp(port=port) as scp:
        exhaust(sender)
    assert scp.received == UIDS


def test_a_file_that_is_no_dicom_is_set_aside(server: Any, tmp_path: Path) -> None:
    folder = fill(tmp_path, server.url, [b"nonsense", *FILES])
    exhaust(Sender(folder, QUICK))
    assert sorted(server.received) == sorted(UIDS) and len(list((folder / "failed").glob("*.dcm"))) == 1
