"""A dask cluster of processes on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def cluster(folder: Path, size: int = 2) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Address of a scheduler, and its worker processes, of one thread each."""
    pytest.importorskip("distributed")
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    file = folder / "scheduler.json"

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", *arguments, "--no-dashboard"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    processes = [
        start("distributed.cli.dask_scheduler", "--scheduler-file", str(file), "--port", "0", "--host", "127.0.0.1")
    ]
    try:
        deadline = time.monotonic() + 60
        while not file.exists() or not file.read_text().strip().endswith("}"):
            assert time.monotonic() < deadline and processes[0].poll() is None
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        worker = ("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny")
        processes += [start(*worker, "--local-directory", str(folder / "dask")) for _ in range(size)]
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()
