"""The spool and the PACS on real sockets: nothing lost, nothing under another UID, whatever fails."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import trustme
from pynetdicom.sop_class import CTImageStorage
from test_dicom_output import make_header, make_image

from gadgets.dicom import delivery, queue_state
from gadgets.dicom import sender as sender_module
from gadgets.dicom.delivery import deliver_once, retry_failed, spool_status
from gadgets.dicom.destination import Destination
from gadgets.dicom.queue_state import QueueState
from gadgets.dicom.sender import RetryPolicy, Sender
from gadgets.dicom.spool import add_to_spool, queue_folder
from gadgets.dicom_output import DicomOutput, dicom_datasets
from gadgets.stream import ReconError
from tests.gadgets.dicom.pacs_servers import (
    CuttingProxy,
    Scp,
    Stow,
    free_port,
    released,
    stow_answer,
    uids,
    without_patient,
)

QUICK = RetryPolicy(first_s=0.02, longest_s=0.05, refusals=3)


def make_files(count: int, size: int = 10) -> list[bytes]:
    """DICOM files of one series, pixel (0, 0) of each its number."""
    files = []
    for number in range(count):
        image = make_image(np.full((size, size), number, np.uint16), repetition=number)
        (ds,) = dicom_datasets(image, make_header(), warn=lambda _: None)
        buffer = io.BytesIO()
        ds.save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


FILES = make_files(3)
UIDS = uids(FILES)


def fill(spool: Path, url: str, files: list[bytes] = FILES, **options: Any) -> Path:
    """Queue folder with the files in it."""
    destination = Destination(url, **{"timeout_s": 5.0, **options})
    for file in files:
        add_to_spool(spool, destination, file)
    return queue_folder(spool, destination)


def exhaust(sender: Sender, until: Callable[[], bool] = lambda: False) -> None:
    """Attempts until the queue is empty or a condition holds."""
    while (wait := sender.attempt()) is not None and not until():
        time.sleep(wait)


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "genrecon" and r.levelno >= level]


def waiting(folder: Path) -> int:
    return len(list(folder.glob("*.dcm")))


@pytest.fixture(autouse=True)
def no_thread_and_no_patient_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, "genrecon")
    yield
    for sender in delivery._senders.values():
        sender.stop(10)
    delivery._senders.clear()
    assert without_patient(caplog.text)


@pytest.fixture(scope="module")
def running_scp() -> Iterator[Scp]:
    with Scp() as running:
        yield running


@pytest.fixture(scope="module")
def running_stow() -> Iterator[Stow]:
    with Stow() as running:
        yield running


@pytest.fixture
def scp(running_scp: Scp) -> Scp:
    running_scp.reset()
    return running_scp


@pytest.fixture
def stow(running_stow: Stow) -> Stow:
    running_stow.reset()
    return running_stow


@pytest.fixture(params=["scp", "stow"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_stored_file_leaves_the_spool(server: Any, tmp_path: Path) -> None:
    folder = fill(tmp_path, server.url)
    assert Sender(folder).attempt() is None
    assert server.received == UIDS and not waiting(folder)
    assert [(s.waiting, s.failed, s.delivered, s.reason) for s in spool_status(tmp_path)] == [(0, 0, 0, "")]


def test_delivered_files_are_kept_when_asked_for(server: Any, tmp_path: Path) -> None:
    folder = fill(tmp_path, server.url, keep_delivered=True)
    assert Sender(folder).attempt() is None
    assert sorted(path.read_bytes() for path in (folder / "delivered").iterdir()) == sorted(FILES)


def test_the_same_file_waits_once(server: Any, tmp_path: Path) -> None:
    fill(tmp_path, server.url)
    folder = fill(tmp_path, server.url, keep_delivered=True)  # another property, the same queue
    assert waiting(folder) == 3 and len(list(tmp_path.iterdir())) == 1
    Sender(folder).attempt()
    assert server.received == UIDS


def test_pixels_and_titles_arrive(scp: Scp, tmp_path: Path) -> None:
    Sender(fill(tmp_path, scp.url, calling_ae="MR 7")).attempt()
    assert scp.values == {uid: number for number, uid in enumerate(UIDS)}
    assert scp.calling == {"MR 7"} and scp.associations == 1


@pytest.mark.parametrize("status", [0xB007, 0x0111])
def test_a_warning_and_a_duplicate_are_stored(
    server: Any, status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.say = lambda uid: status if uid == UIDS[1] else 0
    folder = fill(tmp_path, server.url)
    assert Sender(folder).attempt() is None
    (line,) = messages(caplog, logging.WARNING)
    assert f"0x{status:04X}" in line


@pytest.mark.parametrize("status", [0xA900, 0xC000])
def test_a_file_refused_for_good_is_set_aside(
    server: Any, status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.say = lambda uid: status if uid == UIDS[0] else 0
    folder = fill(tmp_path, server.url)
    exhaust(Sender(folder, QUICK))
    assert server.received == UIDS[1:]
    (failed,) = (folder / "failed").glob("*.dcm")
    assert failed.read_bytes() == FILES[0]
    reason = failed.with_suffix(".txt").read_text()
    assert reason.count("\n") == 1 and f"0x{status:04X}" in reason and "3 times" in reason
    assert len(messages(caplog, logging.ERROR)) == 1
    server.say = lambda _: 0
    assert retry_failed(tmp_path) == 1 and Sender(folder, QUICK).attempt() is None
    assert sorted(server.received) == sorted(UIDS) and not list((folder / "failed").iterdir())


@pytest.mark.parametrize("status", [0xA700, 0x0124])
def test_a_full_pacs_is_tried_for_ever(
    server: Any, status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[str] = []

    def say(uid: str) -> int:
        attempts.append(uid)
        return status if len(attempts) <= QUICK.refusals + 1 else 0

    server.say = say
    folder = fill(tmp_path, server.url)
    exhaust(Sender(folder, QUICK))
    assert sorted(server.received) == sorted(UIDS) and not (folder / "failed").exists()
    (line,) = messages(caplog, logging.WARNING)  # once, not at every attempt
    assert f"0x{status:04X}" in line and "it answers again" in caplog.text


@pytest.mark.parametrize(
    ("code", "aside"), [(400, True), (409, True), (413, True), (401, False), (403, False), (429, False), (503, False)]
)
def test_http_codes(code: int, aside: bool, stow: Stow, tmp_path: Path) -> None:
    stow.say = lambda uid: (code, "text/html", b"<p>Mustermann</p>") if uid == UIDS[0] else 0
    folder = fill(tmp_path, stow.url)
    sender = Sender(folder, QUICK)
    exhaust(sender, lambda: len(stow.received) == 2 and sender.load_state().failures > 4)
    assert sorted(stow.received) == sorted(UIDS[1:])
    assert waiting(folder) == (not aside) and (folder / "failed").exists() == aside


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/dicom+json", b""),
        ("application/dicom+json", b"{"),
        ("application/dicom+json", b"[1]"),
        ("application/dicom+json", stow_answer("1.2.3", 0)[2]),  # of another instance
        ("application/dicom+xml", b"<nothing"),
        ("text/html", b"<p>Log in</p>"),
    ],
)
def test_an_answer_that_does_not_confirm_the_instance_is_none(
    media_type: str, body: bytes, stow: Stow, tmp_path: Path
) -> None:
    stow.say = lambda _: (200, media_type, body)
    folder = fill(tmp_path, stow.url)
    Sender(folder, QUICK).attempt()
    assert waiting(folder) == 3
    stow.say = lambda _: 0
    exhaust(Sender(folder, QUICK))
    assert sorted(stow.received) == sorted(UIDS)


def test_media_type_with_a_charset_and_xml_are_read(stow: Stow, tmp_path: Path) -> None:
    def say(uid: str) -> tuple[int, str, bytes]:
        if uid != UIDS[0]:
            return 200, "application/dicom+json; charset=UTF-8", stow_answer(uid, 0)[2]
        attribute = '<DicomAttribute tag="{}" vr="{}" keyword="{}">{}</DicomAttribute>'
        inner = attribute.format("00081155", "UI", "ReferencedSOPInstanceUID", f'<Value number="1">{uid}</Value>')
        item = f'<Item number="1">{inner}</Item>'
        outer = attribute.format("00081199", "SQ", "ReferencedSOPSequence", item)
        return 200, "application/dicom+xml", f"<NativeDicomModel>{outer}</NativeDicomModel>".encode()

    stow.say = say
    assert Sender(fill(tmp_path, stow.url)).attempt() is None


def test_a_file_above_a_megabyte_arrives(server: Any, tmp_path: Path) -> None:
    files = make_files(1, size=1024)
    assert Sender(fill(tmp_path, server.url, files)).attempt() is None
    assert server.received == uids(files)


# --- a PACS in trouble -----------------------------------------------------------------------------------------------


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
def test_a_refused_association_is_told_and_tried_again(
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


# --- the sender in trouble -------------------------------------------------------------------------------------------


SEND = "import sys, pathlib; from gadgets.dicom.delivery import deliver_once; deliver_once(pathlib.Path(sys.argv[1]))"


def sending_process(spool: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SEND, str(spool)], stderr=subprocess.PIPE)


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


def test_two_processes_share_a_spool(scp: Scp, tmp_path: Path) -> None:
    files = make_files(8)
    fill(tmp_path, scp.url, files)
    processes = [sending_process(tmp_path) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    deliver_once(tmp_path)
    assert scp.received == uids(files)  # each once


def test_a_process_ends_while_the_pacs_is_slow(scp: Scp, tmp_path: Path) -> None:
    reached = threading.Event()
    code = (
        "import sys; from pathlib import Path; from gadgets.dicom.delivery import deliver_in_background\n"
        "deliver_in_background(Path(sys.argv[1])); sys.stdin.read()"
    )
    with released(threading.Event()) as never:
        scp.say = lambda _: (reached.set(), never.wait(60), 0)[2]
        folder = fill(tmp_path, scp.url, timeout_s=600)
        process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE)
        assert reached.wait(60)
        process.communicate(timeout=30)  # hangs for the PACS's minute, or the time-out's ten, if it does not end
        assert process.returncode == 0 and waiting(folder) == 3


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: a full disk is not tried (run as root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_costs_one_line_and_the_images_pass_on(full_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"dicom://PACS@127.0.0.1:{free_port()}"
    gadget = DicomOutput()
    folders = {name: str(full_disk / name) for name in ("folder", "spool")}
    gadget.configure(make_header(), {**folders, "pacs": url, "pacs_wait_s": "0"})
    images = [make_image(np.zeros((60, 60), np.uint16), repetition=number) for number in range(12)]
    passed = []
    with pytest.raises(ReconError, match=r"cannot write to the spool '.*' \(No space left on device\): images do not"):
        for image in gadget.process(iter(images)):
            passed.append(image)
    assert passed == images
    (folder,) = (full_disk / "spool").iterdir()
    assert 0 < waiting(folder) < 12
    for path in folder.glob("*.dcm"):
        assert pydicom.dcmread(path).pixel_array.shape == (60, 60)
    assert not list(full_disk.rglob("*.part"))


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


@pytest.mark.parametrize("kind", ["a file", "a queue that is unreadable"])
def test_spools_that_cannot_be_read_are_told(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = tmp_path / "spool"
    if kind == "a file":
        spool.touch()
    else:
        folder, listdir = fill(spool, "dicom://PACS@127.0.0.1:1"), os.listdir

        def refuse(path: Any) -> list[str]:
            if Path(path) == folder:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return listdir(path)

        monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(ReconError, match=r"cannot be read .*; give a spool's folder, as the user it belongs to"):
        spool_status(spool)


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


def test_a_failed_write_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fill(tmp_path, "dicom://PACS@127.0.0.1:1", FILES[:1])
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        fill(tmp_path, "dicom://PACS@127.0.0.1:1", FILES[1:])
    assert sorted(tmp_path.rglob("*")) == before


# --- time ------------------------------------------------------------------------------------------------------------


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


def test_files_that_a_killed_process_left_half_written_go_after_a_day(stow: Stow, tmp_path: Path) -> None:
    folder = fill(tmp_path, stow.url)
    for name, age in ((".old.part", 2 * 86400), (".new.part", 60)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    Sender(folder).attempt()
    assert [path.name for path in folder.glob(".*.part")] == [".new.part"]


@pytest.mark.parametrize("text", ["{", '{"pacs": "ftp://host"}', '{"pacs": "dicom://A@b:1", "colour": "red"}'])
def test_a_broken_destination_is_one_line(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = fill(tmp_path, "dicom://PACS@127.0.0.1:1")
    (folder / "destination.json").write_text(text)
    assert Sender(folder, QUICK).attempt() is not None and waiting(folder) == 3
    (line,) = messages(caplog)
    assert "\n" not in line


def test_a_file_that_is_no_dicom_is_set_aside(server: Any, tmp_path: Path) -> None:
    folder = fill(tmp_path, server.url, [b"nonsense", *FILES])
    exhaust(Sender(folder, QUICK))
    assert sorted(server.received) == sorted(UIDS) and len(list((folder / "failed").glob("*.dcm"))) == 1


# --- the background --------------------------------------------------------------------------------------------------


def test_the_thread_keeps_one_association_for_a_scan_and_ends(
    scp: Scp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count()
    monkeypatch.setattr(sender_module, "IDLE_CONNECTION_S", 0.5)
    folder = fill(tmp_path, scp.url, FILES[:1])
    sender = Sender(folder)
    for file in FILES:
        path = add_to_spool(tmp_path, Destination(scp.url, timeout_s=5), file)
        sender.start()
        assert sender.wait([path], 10) == 0
    assert scp.received == UIDS and scp.associations == 1
    while threading.active_count() > before:  # for ever if a thread is left
        time.sleep(0.02)


def scan(properties: dict[str, str], count: int = 3) -> list[Any]:
    gadget = DicomOutput()
    gadget.configure(make_header(), {"creation_time": "false", **properties})
    images = [make_image(repetition=number) for number in range(count)]
    passed = list(gadget.process(iter(images)))
    assert passed == images
    return passed


def test_a_scan_delivers_its_images(server: Any, tmp_path: Path) -> None:
    scan({"folder": "", "spool": str(tmp_path / "spool"), "pacs": server.url, "pacs_wait_s": "30"})
    assert len(set(server.received)) == 3
    assert not list(tmp_path.rglob("*.dcm"))


def test_a_scan_ends_without_the_pacs_and_a_later_one_delivers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.1)
    port = free_port()
    properties = {"folder": str(tmp_path / "dicom"), "spool": str(tmp_path / "spool"), "pacs_wait_s": "30"}
    properties["pacs"] = f"dicom://PACS@127.0.0.1:{port}"
    scan(properties)
    spooled = sorted(path.read_bytes() for path in (tmp_path / "spool").rglob("*.dcm"))
    assert spooled == sorted(path.read_bytes() for path in (tmp_path / "dicom").rglob("*.dcm")) and len(spooled) == 3
    assert "3 of 3 files wait in the spool" in caplog.text
    with Scp(port=port) as scp:
        scan(properties | {"series_number_offset": "2000"}, 1)  # another series
        (folder,) = (tmp_path / "spool").iterdir()
        delivery.deliver_in_background(folder).wait(list(folder.glob("*.dcm")), 30)
        while waiting(folder):
            time.sleep(0.02)
    assert len(scp.received) == len(set(scp.received)) == 4


def test_a_scan_may_leave_delivery_to_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Scp() as scp, caplog.at_level("INFO", "genrecon"):
        for _ in range(2):  # the second time with files in the spool already
            scan({"folder": "", "spool": str(tmp_path), "pacs": scp.url, "deliver": "false"})
        assert len(list(tmp_path.glob("*/*.dcm"))) == 3 and not scp.associations
        assert f"3 files in the spool {tmp_path}" in caplog.text
        delivery.deliver_once(tmp_path)
    assert len(scp.received) == len(set(scp.received)) == 3


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"pacs": "pacs.example:104"}, r"'pacs' is .*; it must be dicom://AE@host:port"),
        ({"pacs": "dicom://PACS@host"}, "'pacs' .* AE title and port"),
        ({"pacs": "dicom://host:104"}, "'pacs' .*AE title has 1 to 16"),
        ({"pacs": "dicom://PACS@host:none"}, "'pacs' .*no address"),
        ({"pacs": "dicom://PACS@host:99999"}, "'pacs' .*no address"),
        ({"pacs": "dicom://ABCDEFGHIJKLMNOPQ@host:104"}, "'pacs' .*1 to 16"),
        ({"pacs": "https://user:secret@host/dicom-web"}, "'pacs' holds a user name or password"),
        ({"pacs": "https://host/dicom-web?key=1"}, "'pacs' is"),
        ({"pacs": "dicom://P@h:104", "calling_ae": ""}, "'calling_ae'"),
        ({"pacs": "dicom://P@h:104", "spool": " "}, "'spool' is empty"),
        ({"pacs": "dicom://P@h:104", "ca_file": "ca.pem"}, "'ca_file' .* needs TLS.*dicom-tls://"),
        ({"pacs": "http://h/d", "token_file": "token"}, "'token_file' .* needs TLS.*https://"),
        ({"pacs": "https://h/d", "token_file": "/nowhere"}, "'token_file' .*No such file"),
        ({"pacs": "dicom-tls://P@h:104", "token_file": "x"}, "'token_file' .*STOW-RS"),
        ({"pacs": "dicom-tls://P@h:104", "ca_file": "/nowhere"}, "'ca_file' .*No such file"),
        ({"pacs": "dicom-tls://P@h:104", "certificate_file": "/nowhere"}, "'certificate_file' .*No such file"),
        ({"pacs": "dicom-tls://P@h:104", "key_file": "/nowhere"}, "'key_file' .*certificate"),
        ({"pacs": "dicom://P@h:104", "pacs_timeout_s": "0"}, "'pacs_timeout_s'"),
        ({"pacs": "dicom://P@h:104", "pacs_wait_s": "-1"}, "'pacs_wait_s'"),
    ],
)
def test_bad_properties_are_one_line(properties: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ReconError, match=f"^gadget DicomOutput: property {message}") as error:
        DicomOutput().configure(make_header(), {"spool": str(tmp_path / "spool"), **properties})
    assert "\n" not in str(error.value) and "secret" not in str(error.value)
    assert not list(tmp_path.iterdir())


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """A server's TLS settings; it asks for no client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def ca_file(authority: trustme.CA, folder: Path) -> str:
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return str(folder / "ca.pem")


def tls_url(scp: Scp, host: str = "localhost") -> str:
    return f"dicom-tls://PACS@{host}:{scp.port}"


def test_tls_with_a_known_authority(authority: trustme.CA, tls: ssl.SSLContext, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc.def\n")
    options = {"ca_file": ca_file(authority, tmp_path)}
    with Scp(ssl_context=tls) as scp, Stow(context=tls) as stow:
        assert Sender(fill(tmp_path / "spool", tls_url(scp), **options)).attempt() is None
        options["token_file"] = str(tmp_path / "token")
        assert Sender(fill(tmp_path / "spool", stow.url, **options)).attempt() is None
    assert scp.received == stow.received == UIDS and stow.authorizations == {"Bearer abc.def"}
    assert "abc.def" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


@pytest.mark.parametrize("wrong", ["authority", "none", "host"])
def test_tls_with_a_wrong_certificate_is_refused(
    wrong: str, authority: trustme.CA, tls: ssl.SSLContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {} if wrong == "none" else {"ca_file": ca_file(authority if wrong == "host" else trustme.CA(), tmp_path)}
    host = "127.0.0.1" if wrong == "host" else "localhost"
    with Scp(ssl_context=tls) as scp, Stow(context=tls) as stow:
        for url in (tls_url(scp, host), stow.url.replace("localhost", host)):
            folder = fill(tmp_path / "spool", url, **options)
            assert Sender(folder, QUICK).attempt() is not None and waiting(folder) == 3
    assert not scp.received and not stow.received
    assert ["certificate verify failed" in line for line in messages(caplog)] == [True, True]


def test_tls_with_a_client_certificate(authority: trustme.CA, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    client = authority.issue_cert("scanner.example")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    options = {"ca_file": ca_file(authority, tmp_path)}
    with Scp(ssl_context=context) as scp, Stow(context=context) as stow:
        for url in (tls_url(scp), stow.url):
            folder = fill(tmp_path / "spool", url, **options)
            assert Sender(folder, QUICK).attempt() is not None and waiting(folder) == 3
            fill(tmp_path / "spool", url, certificate_file=str(tmp_path / "client.pem"), **options)
            exhaust(Sender(folder, QUICK))
    assert sorted(scp.received) == sorted(stow.received) == sorted(UIDS)


def test_a_plain_port_is_not_spoken_to_in_the_clear(scp: Scp, authority: trustme.CA, tmp_path: Path) -> None:
    folder = fill(tmp_path / "spool", tls_url(scp), ca_file=ca_file(authority, tmp_path), timeout_s=0.5)
    assert Sender(folder, QUICK).attempt() is not None
    assert not scp.associations and waiting(folder) == 3


def test_nothing_secret_is_kept_beside_the_files(tmp_path: Path) -> None:
    folder = fill(tmp_path / "spool", "dicom://PACS@127.0.0.1:1")
    assert set(json.loads((folder / "destination.json").read_text())) == set(Destination.__dataclass_fields__)


def test_no_other_user_can_read_the_spool(stow: Stow, tmp_path: Path, open_umask: None) -> None:
    refused = uids(FILES)[1]
    stow.reset(lambda uid: stow_answer(uid, 0xA900 if uid == refused else 0))
    folder = fill(tmp_path / "a" / "spool", stow.url, keep_delivered=True)
    exhaust(Sender(folder, QUICK))
    names = {path.name for path in folder.rglob("*")}
    assert {"destination.json", "state.json", "failed", "delivered"} <= names
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*") if path.is_dir()} == {"0o700"}
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*") if path.is_file()} == {"0o600"}
