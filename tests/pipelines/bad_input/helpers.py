"""Ways to spoil a raw file, and what is left behind."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np

from pipelines.simulation import SimulationSettings

NOISE = ismrmrd.ACQ_IS_NOISE_MEASUREMENT
CALIBRATION = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION
LAST_IN_SLICE = ismrmrd.ACQ_LAST_IN_SLICE
LINE = 10  # an imaging line; the noise measurement is before it
COMMAND = [sys.executable, "-c", "from pipelines.cli import main; main()"]

SMALL = SimulationSettings(
    matrix=(32, 32, 1),
    coils=4,
    slices=2,
    sampling="uniform",
    acceleration=2,
    calibration_lines=12,
    noise_scan=True,
    noise_level=0.01,
)


def tree(folder: Path) -> dict[str, bytes | None]:
    """All paths below a folder and what is in them."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def the_line(stderr: str) -> str:
    """The only line of stderr, an error of the user's."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in stderr
    return lines[0]


def set_header(path: Path, text: Any) -> None:
    with h5py.File(path, "r+") as file:
        del file["dataset/xml"]
        if text is not None:
            file.create_dataset("dataset/xml", (1,), dtype=h5py.special_dtype(vlen=bytes))[0] = text


def change_header(path: Path, changes: Mapping[str, Any]) -> None:
    """Give fields of the header other values, by their dotted names."""
    with h5py.File(path) as file:
        header = ismrmrd.xsd.CreateFromDocument(file["dataset/xml"][0])
    for name, value in changes.items():
        *parents, last = name.split(".")
        part = header
        for parent in parents:
            part = part[int(parent)] if parent.isdigit() else getattr(part, parent)
        setattr(part, last, value)
    set_header(path, ismrmrd.xsd.ToXML(header).encode())


ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 20}">' for n in range(1, 12))
BOMB = f'<?xml version="1.0"?><!DOCTYPE b [<!ENTITY e0 "boom">{ENTITIES}]>'
EXTERNAL = '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY e11 SYSTEM "file:///etc/hostname">]>'


def change_rows(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the acquisitions' table; the function may return another one."""
    with h5py.File(path, "r+") as file:
        rows = file["dataset/data"][:]
        changed = change(rows)
        rows = rows if changed is None else changed
        file["dataset/data"].resize((len(rows),))
        if len(rows):
            file["dataset/data"][:] = rows


def flagged(rows: Any, flag: int) -> Any:
    return (rows["head"]["flags"] >> np.uint64(flag - 1)) & np.uint64(1) > 0


def set_head(name: str, value: int, index: int = LINE) -> Callable[[Any], None]:
    def change(rows: Any) -> None:
        rows["head"][name][index] = value

    return change


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def run_command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, **options)
