"""Files that are missing, truncated, or something else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.pipelines.bad_input.helpers import run_command, the_line, tree


def test_missing_file(refused: Any, tmp_path: Path) -> None:
    assert "nothing.h5: no such file; give the path" in refused(tmp_path / "nothing.h5")


def test_folder_instead_of_a_file(refused: Any, tmp_path: Path) -> None:
    assert f"{tmp_path}: it is a folder; give the path of" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x", b"just some text\n" * 1000, b"\x89HDF\r\n\x1a\n"])
def test_no_hdf5(refused: Any, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scan.h5"
    path.write_bytes(content)
    assert "scan.h5: " in (line := refused(path))
    assert "not an HDF5 file" in line or "cannot be read" in line or "truncated" in line


@pytest.mark.parametrize("part", [0.9999, 0.9, 0.5, 0.2, 0.02, 0.004])
def test_truncated_file(refused: Any, raw: Path, part: float) -> None:
    os.truncate(raw, int(part * raw.stat().st_size))
    assert "scan.h5: the file is truncated; copy it again" in refused(raw)


def test_unreadable_block(refused: Any, raw: Path) -> None:
    """The header is good, the table of acquisitions is not: its compressed bytes are spoilt."""
    with h5py.File(raw, "r+") as file:
        rows = file["dataset/data"][:]
        del file["dataset/data"]
        table = file.create_dataset("dataset/data", data=rows, chunks=(32,), compression="gzip")
        second = table.id.get_chunk_info(1)
    content = bytearray(raw.read_bytes())
    content[second.byte_offset : second.byte_offset + second.size] = b"\xff" * second.size
    raw.write_bytes(content)
    line = refused(raw)
    assert f"{raw}: acquisition headers cannot be read (" in line or f"{raw}: acquisition 32 and on cannot" in line
    assert "copy or convert the file again" in line


@pytest.mark.parametrize("names", [(), ("picture",), ("picture", "dataset/picture")])
def test_hdf5_of_something_else(refused: Any, tmp_path: Path, names: tuple[str, ...]) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        for name in names:
            file[name] = np.zeros(3)
    assert "scan.h5: no ISMRMRD header in it; give an ISMRMRD raw file" in refused(tmp_path / "scan.h5")


def test_info_refuses_the_same_way(genrecon: Any, raw: Path) -> None:
    os.truncate(raw, 5000)
    code, stdout, stderr = genrecon("info", raw)
    assert (code, stdout) == (1, "")
    assert "scan.h5: the file is truncated" in the_line(stderr)


@pytest.mark.slow
def test_the_installed_command(tmp_path: Path) -> None:
    """The real command line in a process of its own: one line, exit code 1, and nothing is left."""
    done = run_command("replay", tmp_path / "nothing.h5", "-o", tmp_path / "a" / "b")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}/nothing.h5: no such file" in the_line(done.stderr)
    assert tree(tmp_path) == {}
