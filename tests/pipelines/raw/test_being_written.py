"""HDF5 files that another program still writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gadgets.stream import ReconError
from pipelines.raw import RawScan
from tests.raw_files import header, kspace, lines, write

WRITER = """
import sys, h5py
file = h5py.File(sys.argv[1], "a", libver=sys.argv[2])
if sys.argv[2] == "latest":
    file.create_dataset("more", (3,), "f4", maxshape=(None,), chunks=(2,))
    file.swmr_mode = True
file.flush()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["earliest", "latest"])
def test_a_file_that_is_open_to_write(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "scan.h5", (header(), lines(kspace())))
    if kind == "latest":  # with the superblock that single-writer files need
        import h5py

        with h5py.File(path) as source, h5py.File(tmp_path / "new.h5", "w", libver="latest") as target:
            source.copy("dataset", target)
        shutil.move(tmp_path / "new.h5", path)
    command = [sys.executable, "-c", WRITER, str(path), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "open\n"
        with pytest.raises(ReconError) as caught:
            RawScan(path)
        assert writer.stdin
        writer.stdin.close()
    assert str(caught.value).startswith(f"{path}: another program has it open to write; wait until that is finished")
    with RawScan(path) as scan:
        assert len(list(scan.acquisitions())) == 64
