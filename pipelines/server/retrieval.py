"""Late images for clients: those that ask by a scan's id, or whose own scan is of the same study."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from gadgets.noise.scan import context_of
from gadgets.stream import ReconError, reason_of
from pipelines.flat_parameters import LATE_IMAGES
from pipelines.kept.late import DONE, FAILED, RETRIEVE, clear_due, images_file, late_state, owes_images
from pipelines.kept.scan import KeptScan
from pipelines.kept.store import ID, KeptScans
from pipelines.raw.header import read_header
from pipelines.server.replies import CHUNK_BYTES, ReplyWriter

CONFIG = re.compile(rf"(?:genrecon_)?{RETRIEVE}(?:_(?P<id>[0-9A-Za-z-]+))?(?:\.xml)?", re.ASCII)
CHECK_INTERVAL_S = 0.2
MOST_WAIT_S = 86400.0
OF_STUDY = ("", "all", "true", "1", "yes")  # values of the parameter that mean all late images of the study


def is_retrieval(config: str | None) -> bool:
    """Whether the name of a configuration asks for late images alone."""
    return config is not None and CONFIG.fullmatch(config.strip()) is not None


def wanted_late_images(parameters: Mapping[str, Any]) -> str | None:
    """What a client's parameters say of late images: an id, "" for those of its study; None: nothing."""
    for name in LATE_IMAGES:
        if name in parameters:
            value = str(parameters[name]).strip()
            if value.lower() in ("false", "0", "no", "none"):
                return None
            return "" if value.lower() in OF_STUDY else value
    return None


class Retrieval:
    """Finds late images and sends them.

    Parameters
    ----------
    store : kept scans
    writer : to the client
    of_fire : whether the client is FIRE's
    peer : address of its host
    """

    def __init__(self, store: KeptScans, writer: ReplyWriter, of_fire: bool, peer: str) -> None:
        self._store, self._writer, self._of_fire, self._peer = store, writer, of_fire, peer
        self._sent: list[KeptScan] = []

    def serve(self, wanted: str, header: bytes, wait_s: float = 0.0, check: Callable[[], None] = lambda: None) -> int:
        """Send the late images of scans that are ready, and a line about each of the others.

        Parameters
        ----------
        wanted : id of a scan; "": all of the study of the header
        header : of the client's own scan
        wait_s : how long to wait for images that are not ready
        check : called while it waits; raises PeerGone when the client has left

        Returns
        -------
        Number of images that were sent.

        Raises
        ------
        PeerGone
            The client left.
        ReconError
            There is no such scan.
        """
        scans = [self._by_id(wanted)] if wanted else self._of_study(header)
        deadline = time.monotonic() + min(wait_s, MOST_WAIT_S)
        return sum(self._send(kept, deadline, check) for kept in scans)

    def end(self) -> None:
        """After the CLOSE: the images that were sent are no longer due, if the client takes them all."""
        if self._sent and self._writer.is_taken():
            for kept in self._sent:
                with contextlib.suppress(OSError):  # they stay due
                    clear_due(kept)

    def _by_id(self, identifier: str) -> KeptScan:
        kept = self._store.scan(identifier)
        if not ID.fullmatch(identifier) or late_state(kept) is None:
            raise ReconError("there are no late images of a scan with this id; it may have been too old")
        return kept

    def _of_study(self, header: bytes) -> list[KeptScan]:
        context = context_of(read_header("the scan", header).fields) if header else {}
        states = [(kept, late_state(kept)) for kept in self._store.scans()]
        found = [kept for kept, state in states if state and state.of_study(context, self._peer) and owes_images(kept)]
        if not found:
            raise ReconError(
                "there are no late images of this patient and study that were not fetched; give the id of a scan"
            )
        return found

    def _send(self, kept: KeptScan, deadline: float, check: Callable[[], None]) -> int:
        while (state := late_state(kept)) is not None and state.state not in (DONE, FAILED):
            if time.monotonic() >= deadline:
                self._say("WARNING", kept, f"is not ready: {state.progress()}")
                return 0
            check()
            time.sleep(CHECK_INTERVAL_S)
        if state is None:
            self._say("WARNING", kept, "is no longer kept")
        elif state.state == FAILED:
            self._say("ERROR", kept, f"has no images: {state.error}")
        else:
            self._send_images(kept)
            for text in state.warnings:
                self._writer.text("WARNING", text, self._of_fire)
            self._sent.append(kept)
            return state.images
        return 0

    def _send_images(self, kept: KeptScan) -> None:
        try:
            file = images_file(kept).open("rb")
        except OSError as error:  # the scan was just removed, say
            raise ReconError(f"its late images cannot be read ({reason_of(error)})") from None
        with file:
            while chunk := file.read(CHUNK_BYTES):
                self._writer.write(chunk)

    def _say(self, level: str, kept: KeptScan, text: str) -> None:
        self._writer.text(level, f"scan {kept.id} {text}", self._of_fire)
