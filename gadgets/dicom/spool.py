"""The spool: DICOM files wait in it until the PACS confirmed them, whatever fails or restarts meanwhile.

Every PACS has a folder in the spool, its queue: the files, `destination.json`, `state.json`, and what left the queue in
`failed/` and, where asked for, `delivered/`; all of it for one user (modes 0700 and 0600). Any number of processes may
add files; the holder of a queue's lock sends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path

from gadgets.dicom.destination import Destination
from gadgets.files import replace_file
from gadgets.stream import ReconError

DESTINATION_FILE = "destination.json"
STATE_FILE = "state.json"
LOCK_FILE = "lock"
FAILED_FOLDER = "failed"
DELIVERED_FOLDER = "delivered"


def queue_folder(spool: Path, destination: Destination) -> Path:
    """The queue of a PACS and calling AE title; other properties may change while files wait in it."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", destination.pacs.partition("://")[2]).strip("._")[:64]
    digest = hashlib.sha256(f"{destination.pacs} {destination.calling_ae}".encode()).hexdigest()[:8]
    return spool.absolute() / f"{readable}_{digest}"


def add_to_spool(spool: Path, destination: Destination, content: bytes) -> Path:
    """Put a DICOM file into the spool, whole and safe from a power cut, or not at all.

    The same content is in a queue once: its name is a digest of the content, without patient data.

    Returns
    -------
    The file. It is gone from there once the PACS has it.

    Raises
    ------
    OSError
        It cannot be written, for instance because the disk is full.
    """
    folder = queue_folder(spool, destination)
    about = folder / DESTINATION_FILE
    text = destination.to_json().encode()
    if not about.exists() or about.read_bytes() != text:
        replace_file(about, text, private=True)
    path = folder / f"{name_of(content)}.dcm"
    replace_file(path, content, private=True)
    _sync_folder(folder)
    return path


def name_of(content: bytes) -> str:
    """Name of a file in a queue, a digest of its content: a file under another name is damaged."""
    return hashlib.sha256(content).hexdigest()[:32]


def queue_folders(spool: Path) -> list[Path]:
    """The queues of a spool; none while it does not exist. Raises ReconError when one of them cannot be read."""
    found = []
    folder = spool.absolute()
    try:
        names = os.listdir(folder) if folder.exists() else []
        for folder in map(spool.absolute().joinpath, names):
            if folder.is_dir() and DESTINATION_FILE in os.listdir(folder):
                found.append(folder)
    except OSError as error:
        raise ReconError(
            f"{folder}: cannot be read ({error.strerror}); give a spool's folder, as the user it belongs to"
        ) from None
    return sorted(found)


def waiting_files(folder: Path) -> list[Path]:
    """Files that wait in a folder, the oldest first. Raises OSError when it cannot be read."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in map(folder.joinpath, os.listdir(folder)):
            with contextlib.suppress(FileNotFoundError):  # another process has just delivered it
                if path.suffix == ".dcm":
                    found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
