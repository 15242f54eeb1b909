"""The request of a client, from what was kept of its scan."""

from __future__ import annotations

from gadgetron.external import constants

from gadgets.stream import ReconError
from pipelines.kept.conversion import messages
from pipelines.kept.late import late_state
from pipelines.kept.scan import SENT_CHAIN_FILE, KeptScan
from pipelines.server.request import Request


def late_request(kept: KeptScan) -> Request:
    """The request whose late images are to be made anew. Raises ReconError and OSError where it cannot be read."""
    about, state = kept.about, late_state(kept)
    with kept.stream.open("rb") as file:
        kind, parts = next(messages(file), (0, ()))
    if kind != constants.GADGET_MESSAGE_HEADER or state is None:
        raise ReconError(f"{kept.folder}: its raw data cannot be read")
    return Request(
        about.config,
        (kept.folder / SENT_CHAIN_FILE).read_bytes() if about.config is None else None,
        parts[0],
        tuple(text.encode("utf-8", "surrogateescape") for text in about.texts),
        None,
        about.of_fire,
        number=about.number,
        kept_id=kept.id,
        peer=state.peer,
        again=True,
    )
