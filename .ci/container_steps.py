"""The steps of docs/Containerfile in this virtual environment, for machines without a container engine.

python container_steps.py SCRATCH

COPY and `RUN pip` are done as they stand, except that pip's configuration says where torch comes from. The server of
each CMD is started, asked for its health as HEALTHCHECK does, and sent a scan. Steps that need a root of their own
(useradd) are named and left out.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 120
TORCH_INDEX = '--index-url "$TORCH_INDEX" '
FOLDERS = {"/data/dicom": "dicom", "/etc/genrecon": "etc"}  # of the container, and what stands for them


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Steps:
    """What instructions do to an image, done to this environment and a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, folder / "src"
        self.source.mkdir(parents=True)
        self.environment = {**os.environ, "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"}
        self.health = ""

    def copy(self, arguments: str) -> None:
        """COPY of files into the folder of the sources, or of a folder to one there."""
        *names, target = arguments.split()
        for name in names:
            path = ROOT / name
            if path.is_dir():
                shutil.copytree(path, self.source / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, self.source / target)

    def run(self, command: str) -> None:
        """RUN, where it is pip's."""
        if not command.startswith("pip "):
            print(f"left out: {command}")
            return
        command = command.replace(TORCH_INDEX, "").replace("pip install", "pip install --quiet", 1)
        print(command)
        subprocess.run(["sh", "-c", command], cwd=self.source, env=self.environment, check=True)

    def serve(self, command: list[str]) -> None:
        """CMD: the server starts, is healthy, reconstructs a scan that is sent, and stops without an error."""
        port, status = free_port(), free_port()
        for inside, outside in FOLDERS.items():
            (self.folder / outside / "chains").mkdir(parents=True, exist_ok=True)
            command = [part.replace(inside, str(self.folder / outside)) for part in command]
        (self.folder / "etc" / "site.json").write_text("{}")
        command = [part.replace("9080", str(status)) for part in command]
        environment = {**self.environment, "GENRECON_OPTIONS": f"--port {port} --status-port {status}"}
        if command[0] == "genrecon":
            command += ["--port", str(port)]
        print(shlex.join(command))
        with subprocess.Popen(command, cwd=self.folder, env=environment) as server:
            try:
                deadline = time.monotonic() + START_TIMEOUT_S
                while self._fails(self.health.replace("9080", str(status))):
                    if server.poll() is not None or time.monotonic() > deadline:
                        sys.exit("the server of the container does not become healthy")
                    time.sleep(0.5)
                scan = self.folder / "scan.h5"
                self._genrecon("simulate", str(scan), "--matrix", "64,64")
                self._genrecon("send", str(scan), "--config", "cg_sense", "--port", str(port))
            finally:
                server.send_signal(signal.SIGTERM)
                code = server.wait(timeout=60)
        if code:
            sys.exit(f"the server of the container ended with exit code {code}")

    def _fails(self, command: str) -> bool:
        return bool(subprocess.run(["sh", "-c", command], env=self.environment, stderr=subprocess.DEVNULL).returncode)

    def _genrecon(self, *arguments: str) -> None:
        subprocess.run(["genrecon", *arguments], cwd=self.folder, env=self.environment, check=True)


def main(folder: Path) -> None:
    """All instructions of the Containerfile, in order."""
    steps = Steps(folder)
    instructions = re.findall(r"^([A-Z]+) (.+)$", (ROOT / "docs" / "Containerfile").read_text(), re.MULTILINE)
    steps.health = dict(instructions)["HEALTHCHECK"].removeprefix("CMD ")
    for word, rest in instructions:
        if word == "COPY":
            steps.copy(rest)
        elif word == "RUN":
            steps.run(rest)
        elif word == "CMD":
            steps.serve(json.loads(rest))
    if not list((folder / "dicom").rglob("*.dcm")):
        sys.exit("the server of the container wrote no DICOM file")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
