"""The folder of all scans that a server keeps, bounded in size and age."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from filelock import FileLock, Timeout

from gadgets.files import private_folder
from gadgets.stream import ReconError, reason_of
from pipelines.kept.scan import ABOUT_FILE, ARRIVES, About, KeptScan

log = logging.getLogger("genrecon")

LOCK_FILE = ".lock"  # of what removes scans: the server and its scan processes
SERVER_LOCK_FILE = ".server.lock"
OWES_FILE = "owes_images"  # in the folder of a scan whose images are due
LOCK_TIMEOUT_S = 10.0
REMOVED = ".removed-"
ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{16}")
GIB = 2**30
DAY_S = 86400.0


def new_id() -> str:
    """An id that sorts by time and cannot be guessed."""
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(8)}"


class KeptScans:
    """Kept scans below one folder, which only its user can read.

    Scans above the limits are removed, the oldest first; never one that arrives or whose late images are not ready, and
    one whose late images nobody fetched only when it is too old.

    Parameters
    ----------
    folder : of all of them
    size_gib : most that they take together, in GiB
    age_days : age in days at which they are removed
    """

    def __init__(self, folder: Path, size_gib: float, age_days: float) -> None:
        self.folder = folder.absolute()
        self._most_bytes, self._longest_s = size_gib * GIB, age_days * DAY_S

    def scans(self) -> list[KeptScan]:
        """All of them, the oldest first, whatever their files hold.

        Raises
        ------
        ReconError
            The folder cannot be read.
        """
        try:
            names = sorted(name for name in os.listdir(self.folder) if ID.fullmatch(name))
        except OSError as error:
            raise ReconError(
                f"{self.folder}: cannot be read ({reason_of(error)}); give the folder of serve --keep-raw, as the user "
                "it belongs to"
            ) from None
        return [KeptScan(self.folder / name) for name in names if (self.folder / name / ABOUT_FILE).exists()]

    def known(self) -> dict[KeptScan, About]:
        """Scans with what is known of them, the oldest first; a warning names one whose record cannot be read.

        Raises
        ------
        ReconError
            The folder cannot be read.
        """
        found = {}
        for kept in self.scans():
            try:
                found[kept] = kept.about
            except ReconError as error:
                log.warning("%s", error)
        return found

    def scan(self, identifier: str) -> KeptScan:
        """The scan with an id, there or not."""
        return KeptScan(self.folder / identifier)

    def make_room(self, needed: int = 0, spare: Collection[str] = ()) -> bool:
        """Remove what is too old, and the oldest until so many bytes more are below the limit.

        Parameters
        ----------
        needed : bytes
        spare : ids of scans that stay, in addition to those that arrive or owe images

        Returns
        -------
        Whether there is room.
        """
        try:
            with FileLock(self.folder / LOCK_FILE, timeout=LOCK_TIMEOUT_S, mode=0o600):
                return self._make_room(needed, spare)
        except Timeout:  # another process removes large files
            return True

    def _make_room(self, needed: int, spare: Collection[str]) -> bool:
        sizes = {kept: kept.size() for kept in self.scans()}
        total = sum(sizes.values())
        for kept, size in sizes.items():
            if total + needed <= self._most_bytes and not self._too_old(kept):
                continue
            if kept.id not in spare and not self._is_due(kept):
                self.remove(kept)
                total -= size
        return total + needed <= self._most_bytes

    def _too_old(self, kept: KeptScan) -> bool:
        with contextlib.suppress(ValueError):
            moment = datetime.datetime.strptime(kept.id[:15], "%Y%m%dT%H%M%S").replace(tzinfo=datetime.timezone.utc)
            return time.time() - moment.timestamp() > self._longest_s
        return False

    def _is_due(self, kept: KeptScan) -> bool:
        if (kept.folder / OWES_FILE).exists() and not self._too_old(kept):
            return True
        with contextlib.suppress(ReconError):  # without a record it is of no use
            return kept.about.state == ARRIVES
        return False

    def remove(self, kept: KeptScan) -> None:
        """Remove a scan: its name goes at once, whatever ends this process meanwhile."""
        hidden = self.folder / f"{REMOVED}{kept.id}"
        with contextlib.suppress(OSError):
            os.rename(kept.folder, hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    def find(self, wanted: str) -> KeptScan:
        """The latest scan, or that with an id (its beginning is enough) or a number. Raises ReconError without one."""
        scans = self.known()
        found = [kept for kept in scans if kept.id.startswith(wanted)]
        if wanted.isdecimal() and len(wanted) < 8:
            found = [kept for kept, about in scans.items() if about.number == int(wanted)]
        if not found:
            what = f"no scan '{wanted}'" if scans else "no scan"
            raise ReconError(f"{self.folder}: {what} is kept there; --list shows those that are")
        return found[-1]


def own_folder(folder: Path) -> FileLock:
    """Make a folder for one server and lock it, until the lock is released. Raises ReconError where that fails."""
    try:
        private_folder(folder.absolute())
        lock = FileLock(folder.absolute() / SERVER_LOCK_FILE, mode=0o600)
        lock.acquire(timeout=0)
    except Timeout:
        raise ReconError(f"--keep-raw {folder}: another server keeps its scans there; give another folder") from None
    except OSError as error:
        raise ReconError(
            f"--keep-raw {folder}: it cannot be written to ({reason_of(error)}); give another one"
        ) from None
    for left in folder.absolute().glob(f"{REMOVED}*"):
        shutil.rmtree(left, ignore_errors=True)
    return lock
