"""C-STORE, with or without TLS."""

from __future__ import annotations

import logging
import math
import socket
import threading
from pathlib import Path
from typing import Any, cast

from pydicom import dcmread
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage

from gadgets.dicom.answers import Answer, PacsError, answer_of
from gadgets.dicom.destination import Destination
from gadgets.stream import reason_of


class _Reasons(logging.Handler):
    """Collects why an association failed, which pynetdicom only logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._lines: list[tuple[int | None, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.thread, record.getMessage()))

    def find(self, prefix: str, threads: set[int | None]) -> str:
        """The rest of the first line of these threads that begins with `prefix`; empty without one."""
        found = (text.removeprefix(prefix) for ident, text in self._lines if ident in threads and prefix in text)
        return next(found, "")


class CStore:
    """An association that stores MR images, single-frame and enhanced (PS3.4 Annex B)."""

    def __init__(self, destination: Destination) -> None:
        from pynetdicom import AE, build_context
        from pynetdicom.transport import AssociationSocket

        class ClosingSocket(AssociationSocket):
            """Closed after a failed connection too."""

            def _shutdown_socket(self) -> None:
                sock = self.socket
                super()._shutdown_socket()
                if sock is not None:
                    sock.close()

        class Entity(AE):
            """With a timeout for a peer that stops reading, and threads that do not keep a process alive."""

            def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> Any:
                assoc.dul.daemon = True
                association_socket = ClosingSocket(assoc, address=address)
                association_socket.tls_args = tls_args
                milliseconds = math.ceil(1e3 * destination.timeout_s)
                sock = cast(socket.socket, association_socket.socket)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # 40 ms an image, measured on loopback
                return association_socket

        entity = Entity(destination.calling_ae)
        entity.connection_timeout = entity.acse_timeout = destination.timeout_s
        entity.dimse_timeout = entity.network_timeout = destination.timeout_s
        context = destination.tls_context()
        host, port = destination.address

        reasons = _Reasons()
        loggers = [logging.getLogger(f"pynetdicom.{name}") for name in ("transport", "acse")]
        for logger in loggers:
            logger.addHandler(reasons)
        try:
            self._association = entity.associate(
                host,
                port,
                contexts=[
                    build_context(kind, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
                    for kind in (MRImageStorage, EnhancedMRImageStorage)
                ],
                ae_title=destination.called_ae,
                tls_args=(context, host) if context else None,
            )
        except OSError as error:
            raise PacsError(f"it cannot be reached ({reason_of(error)})") from None
        finally:
            for logger in loggers:
                logger.removeHandler(reasons)
        if not self._association.is_established:
            threads = {threading.get_ident(), self._association.dul.ident}
            refused, unreachable = (
                reasons.find("Reason: ", threads),
                reasons.find("TCP Initialisation Error: ", threads),
            )
            if unreachable:
                raise PacsError(f"it cannot be reached ({unreachable})")
            if refused:
                raise PacsError(f"it refuses the association ({refused})")
            if self._association.rejected_contexts:
                raise PacsError("it accepts no MR Image Storage")
            raise PacsError("it does not answer an association request")

    def store(self, path: Path) -> Answer:
        """Send a file; see `PacsConnection`."""
        dataset = dcmread(path)
        try:
            response = self._association.send_c_store(dataset)
        except (ValueError, AttributeError):
            enhanced = dataset.get("SOPClassUID") == EnhancedMRImageStorage
            refused = "the PACS takes no Enhanced MR; set dicom_output.frames=single" if enhanced else ""
            return Answer(False, refused or "it is not an MR image")
        except RuntimeError:
            raise PacsError("it ended the association") from None
        if "Status" not in response:
            raise PacsError("it broke off, or did not answer in time")
        return answer_of(response.Status)

    def close(self) -> None:
        """Release the association."""
        if self._association.is_established:
            self._association.release()
