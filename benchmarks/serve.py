"""The server: latency by every way in, a load of many scans, and the memory of a scan.

python -m benchmarks.serve latency [SCAN.h5] [--chain svd_wkgm] [--gadgetron HOST:PORT]  # no file: 10 slices
python -m benchmarks.serve load [--scans 200] [--clients 8] [--dying 0]
python -m benchmarks.serve memory
python -m benchmarks.serve ready [--warm svd_wkgm] [--repeats 5]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.fuzz import good_streams
from pipelines.chain import shipped_chain
from pipelines.raw import RawScan
from pipelines.replay import DICOM_MODULE, configured_chain
from pipelines.send import SendResult, send
from pipelines.server.memory_estimate import MemoryEstimate
from pipelines.server.processes import configure_malloc, private_memory
from pipelines.server.worker_slot import EARLY_EXIT_S
from pipelines.simulation import SimulationSettings, simulate, write_raw

console = Console(width=120)
MEMORY = "memory [MiB]"


class ServeProcess:
    """`genrecon serve` in a process of its own, on a free port."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        assert self.process.stderr is not None
        self.status = ""
        for line in self.process.stderr:
            if found := re.search(r"status on (\S+)", line):
                self.status = found[1]
            if found := re.search(r"serving on \S+ port (\d+)", line):
                self.address = f"127.0.0.1:{found[1]}"
                break
        self._reader = threading.Thread(target=self.process.stderr.read, daemon=True)
        self._reader.start()

    def health(self) -> str:
        """Status that /health reports; the server needs a status port."""
        try:
            with urllib.request.urlopen(f"{self.status}health", timeout=10) as answer:
                return str(json.load(answer)["status"])
        except urllib.error.HTTPError as error:
            return str(json.load(error)["status"])

    def tree(self) -> list[psutil.Process]:
        """The server and its processes."""
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def memory(self) -> int:
        """Bytes that they have to themselves."""
        found = 0
        for process in self.tree():
            with contextlib.suppress(OSError):  # one that has just ended
                found += private_memory(process.pid)
        return found

    def close(self) -> None:
        """Stop it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


def in_process(raw: Path, config: str) -> SendResult:
    """A replay in this process without files."""
    result = SendResult()
    with RawScan(raw) as scan:
        start = time.perf_counter()
        for _ in configured_chain(config, None).without(DICOM_MODULE).run(scan.header, scan.acquisitions()):
            result.images += 1
            result.last_image_s = time.perf_counter() - start
            result.first_image_s = result.first_image_s or result.last_image_s
    return result


def command(raw: Path, config: str, folder: str) -> SendResult:
    """`genrecon replay` as a user runs it: cold."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "replay", str(raw), "-c", config, "-o", folder],
        check=True,
        capture_output=True,
    )
    return SendResult(1, float("nan"), time.perf_counter() - start)


def ten_slices(folder: Path) -> Path:
    """A simulated scan."""
    raw = folder / "ten_slices.h5"
    settings = SimulationSettings(
        matrix=(256, 256, 1), coils=16, slices=10, sampling="uniform", acceleration=3, calibration_lines=24
    )
    write_raw(raw, simulate(settings))
    return raw


def latency(raw: Path, config: str, gadgetron: str | None, repeats: int) -> None:
    """Table of seconds to the first and last image, by way; the ways take turns, as the machine's speed changes."""
    parameters = {"config": config, "customconfig": ""}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        once = command(raw, config, folder)
        in_this = "in process"
        ways: dict[str, Callable[[], SendResult]] = {in_this: lambda: in_process(raw, config)}
        cold = {in_this: ways[in_this]()}
        unprepared = ServeProcess("--warm", "")
        cold["serve + send, not warmed up"] = send(raw, config, unprepared.address)
        unprepared.close()
        server = ServeProcess("--warm", "svd_wkgm,hkgm,l1_wavelet")
        stack.callback(server.close)
        served = "serve + send"
        ways[served] = lambda: send(raw, config, server.address)
        ways["serve + send, as FIRE does"] = lambda: send(raw, "openrecon", server.address, parameters=parameters)
        if gadgetron:
            ways["Gadgetron, <execute>"] = lambda: send(raw, f"genrecon_{config}.xml", gadgetron)
            listener = stack.enter_context(
                subprocess.Popen([sys.executable, "-m", "pipelines.cli", "listen", "18000"], stderr=subprocess.DEVNULL)
            )
            stack.callback(listener.terminate)
            ways["Gadgetron, <connect>"] = lambda: send(raw, f"genrecon_{config}_connect.xml", gadgetron)
        for name, run in ways.items():
            if name not in cold:
                cold[name] = run()
        warm: dict[str, list[SendResult]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, run in ways.items():
                warm[name].append(run())

    table = Table(title=f"{raw.name}, chain {config}: seconds to the first and the last image (cold: once)")
    for heading in ("way", "images", "cold: first", "last", f"warm, median of {repeats}: first", "last"):
        table.add_column(heading)
    table.add_row("genrecon replay, the command", "", "", f"{once.last_image_s:.2f}", "", "")
    for name, first in cold.items():
        medians = [
            f"{statistics.median(getattr(one, field) for one in warm[name]):.2f}" if name in warm else ""
            for field in ("first_image_s", "last_image_s")
        ]
        table.add_row(name, str(first.images), f"{first.first_image_s:.2f}", f"{first.last_image_s:.2f}", *medians)
    console.print(table)
    over = [one.last_image_s - bare.last_image_s for one, bare in zip(warm[served], warm[in_this], strict=True)]
    console.print(
        f"warm overhead of serve + send over in process, turn by turn: median {statistics.median(over):+.2f} s, "
        f"from {min(over):+.2f} to {max(over):+.2f}"
    )


def memory() -> None:
    """Table of a scan's memory: estimated by the server, and the peak of its process."""
    table = Table(title="memory of a scan [MiB]: estimated before it is accepted, and at its peak")
    for heading in ("scan", "chain", "estimated", "peak above idle"):
        table.add_column(heading)
    base = SimulationSettings(coils=16, sampling="uniform", acceleration=2, calibration_lines=24)
    scans = {
        "256 x 256, 16 coils, 4 slices": replace(base, matrix=(256, 256, 1), slices=4),
        "256 x 256, 32 coils, 4 slices": replace(base, matrix=(256, 256, 1), slices=4, coils=32),
        "512 x 512, 32 coils": replace(base, matrix=(512, 512, 1), coils=32),
        "1024 x 1024, 2 coils": replace(base, matrix=(1024, 1024, 1), coils=2),
        "256 x 256, 16 coils, 4 contrasts": replace(base, matrix=(256, 256, 1), contrasts=4),
        "256 x 256, 16 coils, 20 slices, interleaved": replace(
            base, matrix=(256, 256, 1), slices=20, slice_order="interleaved", averages=2
        ),
        "128 x 96 x 64, 16 coils": replace(base, matrix=(128, 96, 64)),
    }
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "scan.h5"
        for name, settings in scans.items():
            write_raw(raw, simulate(settings))
            for config in ("cg_sense", "svd_wkgm"):
                with RawScan(raw) as scan:
                    check = MemoryEstimate(scan.header, 1024.0, shipped_chain(config))
                    early = scan.header.encoding[0].encodedSpace.matrixSize.z == 1
                    early = early and settings.slice_order == "sequential"
                    lines_a_slice = scan.acquisition_count / settings.slices
                    for index, line in enumerate(scan.acquisitions()):
                        check.add(line, int(index // lines_a_slice) if early else 0)
                server = ServeProcess("--warm", "cg_sense,svd_wkgm")
                try:
                    idle = peak = server.memory()
                    client = threading.Thread(target=lambda: send(raw, config, server.address))  # noqa: B023
                    client.start()
                    while client.is_alive():
                        peak = max(peak, server.memory())
                        time.sleep(0.01)
                finally:
                    server.close()
                table.add_row(name, config, f"{check.needed / 2**20:.0f}", f"{(peak - idle) / 2**20:.0f}")
    console.print(table)


def ready(warm: str, repeats: int) -> None:
    """Seconds until a server can take a scan, from the command on, and after the process for scans was killed."""
    starts, replacements = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        server = ServeProcess("--warm", warm, "--status-port", "0")  # it serves once a process is ready
        starts.append(time.perf_counter() - start)
        try:
            time.sleep(EARLY_EXIT_S)  # an idle process that ends sooner is replaced after a delay
            start = time.perf_counter()
            os.kill(max(one.pid for one in server.tree()), signal.SIGKILL)
            while server.health() == "ok":
                time.sleep(0.001)
            while server.health() != "ok":
                time.sleep(0.005)
            replacements.append(time.perf_counter() - start)
        finally:
            server.close()
    for what, found in {"from the command": starts, "after a process was killed": replacements}.items():
        console.print(
            f"ready {what}, warm: {warm or 'nothing'}: median {statistics.median(found):.2f} s of {repeats}, "
            f"{min(found):.2f} to {max(found):.2f} s"
        )


def load(scans: int, clients: int, dying: int) -> None:
    """Many scans from several clients at a time: images, memory, descriptors, threads.

    `dying` more clients go away at random points of their scans all the while.
    """
    server = ServeProcess("--warm", "", "--scans", "2", "--waiting", "64")
    try:
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "scan.h5"
            settings = SimulationSettings(
                matrix=(64, 64, 1), coils=4, slices=4, sampling="uniform", acceleration=2, calibration_lines=16
            )
            write_raw(raw, simulate(settings))
            for _ in range(8):
                send(raw, "cg_sense", server.address)
            before = _state(server)
            counts: list[int] = []
            memory: list[int] = []  # after every tenth of the scans
            lock = threading.Lock()
            todo = iter(range(scans))
            content = good_streams()[0]
            done = threading.Event()
            deaths = [0] * dying

            def client() -> None:
                while True:
                    with lock:
                        if next(todo, None) is None:
                            return
                    images = send(raw, "cg_sense", server.address, timeout=60).images
                    with lock:
                        counts.append(images)
                        if len(counts) * 10 // scans > len(memory):
                            memory.append(_state(server)[MEMORY])

            def dying_client(number: int) -> None:
                generator = random.Random(number)
                host, port = server.address.split(":")
                while not done.is_set():
                    with socket.create_connection((host, int(port))) as sock, contextlib.suppress(OSError):
                        sock.sendall(content[: generator.randrange(1, len(content))])
                        if generator.random() < 0.5:  # a reset
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    deaths[number] += 1

            start = time.perf_counter()
            threads = [threading.Thread(target=client) for _ in range(clients)]
            others = [threading.Thread(target=dying_client, args=(number,)) for number in range(dying)]
            for thread in [*threads, *others]:
                thread.start()
            for thread in threads:
                thread.join()
            seconds = time.perf_counter() - start
            done.set()
            for thread in others:
                thread.join()
            time.sleep(2)
            after = _state(server)
    finally:
        server.close()
    console.print(f"{len(counts)} of {scans} scans, {sum(counts)} of {4 * scans} images in {seconds:.0f} s")
    if dying:
        console.print(f"{sum(deaths)} clients died meanwhile")
    for name, one in before.items():
        meanwhile = f"{', '.join(map(str, memory))} meanwhile, " if name == MEMORY else ""
        console.print(f"{name}: {one} before, {meanwhile}{after[name]} after")


def _state(server: ServeProcess) -> dict[str, int]:
    found = {MEMORY: 0, "processes": 0, "file descriptors": 0, "threads": 0}
    for one in server.tree():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            numbers = one.memory_full_info().pss, 1, one.num_fds(), one.num_threads()  # what forks share counts once
            found = {name: value + number for (name, value), number in zip(found.items(), numbers, strict=True)}
    return found | {MEMORY: found[MEMORY] // 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    of_latency = commands.add_parser("latency")
    of_latency.add_argument("raw", type=Path, nargs="?")
    of_latency.add_argument("--chain", default="svd_wkgm")
    of_latency.add_argument("--gadgetron", help="HOST:PORT of a real server that has the chain under this name")
    of_latency.add_argument("--repeats", type=int, default=5)
    of_load = commands.add_parser("load")
    of_load.add_argument("--scans", type=int, default=200)
    of_load.add_argument("--clients", type=int, default=8)
    of_load.add_argument("--dying", type=int, default=0)
    commands.add_parser("memory")
    of_ready = commands.add_parser("ready")
    of_ready.add_argument("--warm", default="svd_wkgm")
    of_ready.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    configure_malloc()  # as the command does
    if arguments.command == "latency":
        with tempfile.TemporaryDirectory() as folder:
            raw = arguments.raw or ten_slices(Path(folder))
            latency(raw, arguments.chain, arguments.gadgetron, arguments.repeats)
    elif arguments.command == "memory":
        memory()
    elif arguments.command == "ready":
        ready(arguments.warm, arguments.repeats)
    else:
        load(arguments.scans, arguments.clients, arguments.dying)


if __name__ == "__main__":
    main()
