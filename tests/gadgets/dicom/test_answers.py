"""What becomes of a file by the answer of the PACS, C-STORE and STOW-RS."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from gadgets.dicom.delivery import retry_failed, spool_status
from gadgets.dicom.sender import Sender
from tests.gadgets.dicom.pacs_servers import Scp, Stow, stow_answer, uids
from tests.gadgets.dicom.spool_files import FILES, QUICK, UIDS, exhaust, fill, make_files, messages, waiting


def test_a_stored_file_leaves_the_spool(server: Any, tmp_path: Path) -> None:
    folder = fill(tmp_path, server.url)
    assert Sender(folder).attempt() is None
    assert server.received == UIDS and not waiting(folder)
    assert [(s.waiting, s.failed, s.delivered, s.reason) for s in spool_status(tmp_path)] == [(0, 0, 0, "")]


def test_delivered_files_are_kept_when_asked_for(server: Any, tmp_path: Path) -> None:
    folder = fill(tmp_path, server.url, keep_delivered=True)
    assert Sender(folder).attempt() is None
    assert sorted(path.read_bytes() for path in (folder / "delivered").iterdir()) == sorted(FILES)


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("status", [0xA700, 0x0124])
def test_a_full_pacs_is_tried_without_limit(
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


@pytest.mark.slow
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
