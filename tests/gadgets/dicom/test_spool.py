"""Files and folders of a spool."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from gadgets.dicom.delivery import spool_status
from gadgets.dicom.destination import Destination
from gadgets.dicom.sender import Sender
from gadgets.stream import ReconError
from tests.gadgets.dicom.pacs_servers import Stow, stow_answer, uids
from tests.gadgets.dicom.spool_files import FILES, QUICK, UIDS, exhaust, fill, messages, waiting


def test_the_same_file_waits_once(server: Any, tmp_path: Path) -> None:
    fill(tmp_path, server.url)
    folder = fill(tmp_path, server.url, keep_delivered=True)  # another property, the same queue
    assert waiting(folder) == 3 and len(list(tmp_path.iterdir())) == 1
    Sender(folder).attempt()
    assert server.received == UIDS


@pytest.mark.parametrize("kind", ["a file", "a queue that is unreadable"])
def test_spools_that_cannot_be_read_are_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_failed_write_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fill(tmp_path, "dicom://PACS@127.0.0.1:1", FILES[:1])
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        fill(tmp_path, "dicom://PACS@127.0.0.1:1", FILES[1:])
    assert sorted(tmp_path.rglob("*")) == before


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
