"""A connection to a PACS, of the kind its address asks for."""

from __future__ import annotations

from gadgets.dicom.answers import PacsConnection
from gadgets.dicom.c_store import CStore
from gadgets.dicom.destination import Destination
from gadgets.dicom.stow_rs import StowRs


def connect(destination: Destination) -> PacsConnection:
    """Open a connection. Raises PacsError when the PACS is not there or will not, ReconError for a wrong setting."""
    return StowRs(destination) if destination.is_web else CStore(destination)
