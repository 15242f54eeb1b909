"""Output folders that cannot be written to."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from gadgets.dicom import writer
from tests.pipelines.bad_input.helpers import change_rows, run_command, set_head, the_line, tree


def test_file_in_the_way_of_the_output(refused: Any, raw: Path, tmp_path: Path) -> None:
    obstacle = tmp_path / "out"
    obstacle.write_text("mine")
    for out in (obstacle, obstacle / "deeper", obstacle / "deeper" / "still"):
        line = refused(raw, out=out)
        assert f"{out}: cannot write there (" in line
        assert "choose another folder with --out" in line


def test_output_where_nothing_can_be_written(refused: Any, raw: Path) -> None:
    out = Path("/proc/genrecon/out")
    assert f"{out}: cannot write there (No such file or directory)" in refused(raw, out=out)


def test_name_too_long_for_the_output(refused: Any, raw: Path, tmp_path: Path) -> None:
    assert "cannot write there (File name too long)" in refused(raw, out=tmp_path / ("x" * 300))


@pytest.mark.parametrize("late", [False, True])
def test_earlier_results_stay_when_a_replay_fails(refused: Any, raw: Path, tmp_path: Path, late: bool) -> None:
    out = tmp_path / "out"
    (out / "dicom").mkdir(parents=True)
    (out / "dicom" / "old.dcm").write_text("old")
    (out / "images.h5").write_text("old")
    if late:  # the images of the first slice are there by then
        change_rows(raw, set_head("active_channels", 5, -1))
    else:
        raw.write_text("nothing")
    refused(raw, out=out)


def test_results_go_into_a_folder_that_exists(genrecon: Any, raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "images.h5").write_text("old")
    assert genrecon("replay", raw, "-c", "cg_sense", "-o", out)[0] == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "dicom",
        "images.h5",
        "notes.txt",
        "replay.json",
        "series_001.png",
    ]
    assert h5py.is_hdf5(out / "images.h5")
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_disk_full_for_dicom(refused: Any, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "replace_file", fail)
    out = tmp_path / "out"
    line = refused(raw, out=out)
    assert line == (
        f"error: {out}: cannot write there (No space left on device); free space or choose another folder with --out"
    )


@pytest.mark.slow
def test_files_that_cannot_grow(valid: Path, tmp_path: Path) -> None:
    """HDF5 fails in the middle of its file, and again when it closes it: still one line, and no crash at the end."""
    limit = 20 * 1024
    done = run_command(
        "replay",
        valid,
        "-o",
        tmp_path / "out",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert f"{tmp_path}/out: cannot write there (File too large); free space or" in the_line(done.stderr)
    assert tree(tmp_path) == {}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=28k", "tmpfs", str(disk)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a full disk needs the right to mount one; test_files_that_cannot_grow stands for it")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_disk_full(valid: Path, tiny_disk: Path) -> None:
    done = run_command("replay", valid, "-o", tiny_disk / "sub" / "out")
    assert done.returncode == 1
    assert f"{tiny_disk}/sub/out: cannot write there (No space left on device)" in the_line(done.stderr)
    assert tree(tiny_disk) == {}
