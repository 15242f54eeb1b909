"""DICOM files: names, replacement, a full disk, and who can read them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gadgets.stream import ReconError
from tests.gadgets.dicom.dicom_images import make_header, make_image, save


def test_without_creation_time_a_replay_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (
        save(make_image(), make_header(), tmp_path / name, creation_time=False)[0].read_bytes() for name in "ab"
    )
    assert first == second


@pytest.mark.parametrize("protocol", ["../../../etc/cron.d", "/absolute", "..", "a\\..\\b", "CON", "x" * 300])
def test_header_text_cannot_leave_the_folder(protocol: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    path = save(make_image(meta={"GenreconMethod": "../m"}), make_header(protocol=protocol), folder)[0]
    assert path.parent.parent == folder and path.resolve().is_relative_to(folder.resolve())
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_replay_overwrites_and_scans_do_not_meet(tmp_path: Path) -> None:
    first = save(make_image(), make_header(), tmp_path)
    assert save(make_image(), make_header(), tmp_path) == first
    assert save(make_image(), make_header(patient="P-2"), tmp_path) != first
    assert first[0].name == "IM_00001.dcm" and first[0].parent.name.startswith("4001_t1_knee_svd-wkgm_")
    assert len(list(tmp_path.rglob("*"))) == 4


def test_images_with_one_number_do_not_overwrite_each_other(tmp_path: Path) -> None:
    header = make_header(False)
    images = [
        make_image(slice=1),
        make_image(repetition=1),
    ]  # both are number 2: the header has no slice limit
    paths = {path for image in images for path in save(image, header, tmp_path)}
    assert len(paths) == 2
    assert {path for image in images for path in save(image, header, tmp_path)} == paths


def test_unwritable_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReconError, match=r"^DicomOutput: cannot write to folder '.*file/dicom' \(.*\); .*folder"):
        save(make_image(), make_header(), tmp_path / "file" / "dicom")


def test_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = save(make_image(), make_header(), tmp_path)[0].read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for image in (make_image(), make_image(repetition=1)):
        with pytest.raises(ReconError, match="No space left on device"):
            save(image, make_header(), tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1 and files[0].read_bytes() == before


def test_no_other_user_can_read_the_files(tmp_path: Path, open_umask: None) -> None:
    (path,) = save(make_image(), make_header(), tmp_path / "a" / "b")
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    above = [folder for folder in path.parents if folder.is_relative_to(tmp_path) and folder != tmp_path]
    assert [oct(folder.stat().st_mode & 0o777) for folder in above] == ["0o700"] * 3
