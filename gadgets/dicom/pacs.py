"""Connections to a PACS: C-STORE, with or without TLS, and STOW-RS."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import re
import socket
import ssl
import threading
import urllib.parse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard, cast

from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage

from gadgets.stream import ReconError, reason_of

TLS_SCHEMES = ("dicom-tls", "https")
DUPLICATE_INSTANCE = 0x0111
# Statuses of PS3.4 Table B.2-1 and PS3.18 Table I.2-2 that say the instance itself is the trouble.
REFUSED_STATUSES = frozenset((0x0117, 0x0122, *range(0xA900, 0xAA00), *range(0xC000, 0xD000)))
REFUSED_HTTP_CODES = frozenset((400, 409, 413, 415, 422))


class PacsError(Exception):
    """The PACS cannot be reached or gave up in the middle: try again later. One line, without patient data."""


def _wrong(name: str, value: str, mend: str) -> ReconError:
    return ReconError(f"gadget DicomOutput: property '{name}' is '{value}'; {mend}")


@dataclass(frozen=True)
class Destination:
    """A PACS, how to reach it, and what becomes of delivered files.

    Parameters
    ----------
    pacs : dicom://AE@host:port, dicom-tls://AE@host:port (C-STORE), or the DICOMweb root https://host/path (STOW-RS)
    calling_ae : application entity title of this side
    ca_file : PEM file with the certificates that the PACS's is checked by; empty: those of the system
    certificate_file, key_file : PEM files of a client certificate and its key, for a PACS that asks for one
    token_file : file with a bearer token for STOW-RS, read anew at every connection
    timeout_s : seconds of silence after which a connection is given up
    keep_delivered : move delivered files to a folder `delivered` instead of removing them

    Raises
    ------
    ReconError
        A value is wrong; one line that names the property.
    """

    pacs: str
    calling_ae: str = "GENRECON"
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    token_file: str = ""
    timeout_s: float = 60.0
    keep_delivered: bool = False

    def __post_init__(self) -> None:
        try:
            scheme, host, port, password = self._url.scheme, self._url.hostname, self._url.port, self._url.password
        except ValueError as error:  # a port that is no number
            raise _wrong("pacs", self.pacs, f"it is no address ({error})") from None
        web = scheme in {"http", "https"}
        if password is not None or (web and self._url.username is not None):
            raise ReconError(
                "gadget DicomOutput: property 'pacs' holds a user name or password; leave it out and name a file "
                "with a token in 'token_file'"
            )
        if not host or not (web or scheme in {"dicom", "dicom-tls"}) or self._url.query or self._url.fragment:
            raise _wrong(
                "pacs", self.pacs, "it must be dicom://AE@host:port, dicom-tls://AE@host:port or https://host/path"
            )
        if not web:
            if not port or self._url.path.strip("/"):
                raise _wrong("pacs", self.pacs, f"it must name AE title and port: {scheme}://AE@host:port")
            _check_ae("pacs", self.called_ae)
        _check_ae("calling_ae", self.calling_ae)
        if scheme not in TLS_SCHEMES:
            for name in ("ca_file", "certificate_file", "key_file", "token_file"):
                if getattr(self, name):
                    raise _wrong(
                        name, getattr(self, name), f"it needs TLS; {scheme}:// has none, use {_secure(scheme)}"
                    )
        if self.token_file and not web:
            raise _wrong("token_file", self.token_file, "tokens are for STOW-RS; leave it empty")
        if self.key_file and not self.certificate_file:
            raise _wrong("key_file", self.key_file, "name the certificate it belongs to in 'certificate_file'")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise _wrong("pacs_timeout_s", str(self.timeout_s), "it must be a number above 0")

    @functools.cached_property
    def _url(self) -> urllib.parse.SplitResult:
        return urllib.parse.urlsplit(self.pacs)

    @property
    def is_web(self) -> bool:
        """Whether files go by STOW-RS."""
        return self._url.scheme in {"http", "https"}

    @property
    def called_ae(self) -> str:
        """Application entity title of the PACS."""
        return urllib.parse.unquote(self._url.username or "")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a PACS that is reached by C-STORE."""
        return cast(str, self._url.hostname), cast(int, self._url.port)

    def tls_context(self) -> ssl.SSLContext | None:
        """Settings of the TLS connection, None without TLS. Raises ReconError when a file cannot be used."""
        if self._url.scheme not in TLS_SCHEMES:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:
            raise _wrong("ca_file", self.ca_file, f"it cannot be used ({reason_of(error)}); name a PEM file") from None
        if self.certificate_file:
            try:
                context.load_cert_chain(self.certificate_file, self.key_file or None, password="")
            except (OSError, ValueError) as error:
                raise _wrong(
                    "certificate_file",
                    self.certificate_file,
                    f"it and 'key_file' cannot be used ({reason_of(error)}); name PEM files, "
                    "the key without a password",
                ) from None
        return context

    def token(self) -> str:
        """The bearer token, empty without. Raises ReconError when its file cannot be read or holds no token."""
        if not self.token_file:
            return ""
        try:
            token = Path(self.token_file).read_text().strip()
        except (OSError, ValueError) as error:
            raise _wrong("token_file", self.token_file, f"it cannot be read ({reason_of(error)})") from None
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise _wrong("token_file", self.token_file, "it must hold one token, without blanks")
        return token

    def to_json(self) -> str:
        """The destination as text; `from_json` reads it."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Destination:
        """A destination from its text. Raises ReconError for a wrong value, ValueError or TypeError for other text."""
        return cls(**json.loads(text))


def _secure(scheme: str) -> str:
    return "https://" if scheme == "http" else "dicom-tls://"


def _check_ae(name: str, title: str) -> None:
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", title) or not title.strip():
        raise _wrong(
            name, title, "an AE title has 1 to 16 ASCII characters and no backslash, for instance dicom://AE@host:port"
        )


# --- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a PACS says of one file: it has it (`text` is empty or a warning), or it will not take it and why."""

    stored: bool
    text: str = ""


def _answer(status: int) -> Answer:
    """The answer a C-STORE status or a STOW-RS reason stands for. Raises PacsError for one that may pass."""
    text = f"status 0x{status:04X}"
    if status == 0:
        return Answer(True)
    if status == DUPLICATE_INSTANCE:
        return Answer(True, f"{text}: it had this SOP Instance already")
    if status in {0x0001, 0x0107, 0x0116} or 0xB000 <= status <= 0xBFFF:
        return Answer(True, f"{text}: stored, with a warning")
    if status in REFUSED_STATUSES:
        return Answer(False, text)
    raise PacsError(f"it cannot store now ({text})")


class PacsConnection(Protocol):
    """An open connection to a PACS."""

    def store(self, path: Path) -> Answer:
        """Send one file and wait for what the PACS says of it. Raises PacsError, and OSError of reading the file."""

    def close(self) -> None:
        """End the connection in good order."""


def connect(destination: Destination) -> PacsConnection:
    """Open a connection. Raises PacsError when the PACS is not there or will not, ReconError for a wrong setting."""
    return StowRs(destination) if destination.is_web else CStore(destination)


# --- C-STORE ---------------------------------------------------------------------------------------------------------


class _Reasons(logging.Handler):
    """Keeps what pynetdicom says about a failed association, which it only logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._lines: list[tuple[int | None, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.thread, record.getMessage()))

    def find(self, prefix: str, threads: set[int | None]) -> str:
        """The rest of the first line of these threads that begins so; empty without."""
        found = (text.removeprefix(prefix) for ident, text in self._lines if ident in threads and prefix in text)
        return next(found, "")


class CStore:
    """An association that stores MR images (PS3.4 Annex B)."""

    def __init__(self, destination: Destination) -> None:
        from pynetdicom import AE, build_context
        from pynetdicom.transport import AssociationSocket

        class ClosingSocket(AssociationSocket):
            """Closed after a failure to connect too."""

            def _shutdown_socket(self) -> None:
                sock = self.socket
                super()._shutdown_socket()
                if sock is not None:
                    sock.close()

        class Entity(AE):
            """One that a peer which does not read cannot hold, and that does not keep a process alive which ends."""

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
                contexts=[build_context(MRImageStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])],
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
        dataset = dcmread(path)
        try:
            response = self._association.send_c_store(dataset)
        except (ValueError, AttributeError):
            return Answer(False, "it is not an MR image")
        except RuntimeError:
            raise PacsError("it ended the association") from None
        if "Status" not in response:
            raise PacsError("it broke off, or did not answer in time")
        return _answer(response.Status)

    def close(self) -> None:
        if self._association.is_established:
            self._association.release()


# --- STOW-RS ---------------------------------------------------------------------------------------------------------


def _without_charset(response: Any, *_: Any, **__: Any) -> Any:
    """dicomweb-client knows media types without parameters only."""
    media_type = response.headers.get("Content-Type", "")
    response.headers["Content-Type"] = media_type.partition(";")[0].strip().lower()
    return response


class StowRs:
    """Stores instances by DICOMweb (PS3.18 Section 10.5), one a request."""

    def __init__(self, destination: Destination) -> None:
        import requests
        from dicomweb_client import DICOMwebClient

        destination.tls_context()  # says which file is wrong
        session = requests.Session()
        session.trust_env = False  # neither a netrc's password nor another certificate file instead of what is set
        paths = ssl.get_default_verify_paths()
        session.verify = destination.ca_file or paths.cafile or paths.capath or True
        if destination.certificate_file:
            session.cert = (destination.certificate_file, destination.key_file or destination.certificate_file)
        headers = {"Accept": "application/dicom+json"}
        if token := destination.token():
            headers["Authorization"] = f"Bearer {token}"
        self._session = session
        self._client = DICOMwebClient(
            destination.pacs.rstrip("/"),
            session=session,
            headers=headers,
            callback=_without_charset,
            timeout=destination.timeout_s,
        )
        self._client.set_http_retry_params(retry=False)  # the spool does that

    def store(self, path: Path) -> Answer:
        import requests

        dataset = dcmread(path)
        uid = dataset.SOPInstanceUID
        code = 200
        try:
            response = self._client.store_instances([dataset])
        except requests.HTTPError as error:
            answer, response = cast(requests.Response, error.response), Dataset()
            code = answer.status_code
            if "json" in answer.headers["Content-Type"]:
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # not DICOM: the code tells
                    response = Dataset.from_json(answer.json())
        except requests.RequestException as error:
            raise PacsError(f"it cannot be reached ({_cause(error)})") from None
        except (ValueError, TypeError, KeyError, AttributeError, SyntaxError) as error:
            raise PacsError(f"its answer cannot be read ({type(error).__name__})") from None
        for item in response.get("FailedSOPSequence") or []:
            if item.get("ReferencedSOPInstanceUID") == uid:
                return _answer(int(item.get("FailureReason") or 0x0110))
        for item in response.get("ReferencedSOPSequence") or []:
            if item.get("ReferencedSOPInstanceUID") == uid and code < 400:
                return _answer(int(item.get("WarningReason") or 0))
        if code in REFUSED_HTTP_CODES:
            return Answer(False, f"HTTP {code}")
        raise PacsError(f"it answers HTTP {code}" if code >= 400 else "its answer does not name the instance")

    def close(self) -> None:
        self._session.close()


def _cause(error: BaseException) -> str:
    """The innermost reason of an error of requests, whose own text repeats the request."""
    while inner := next((one for one in (getattr(error, "reason", None), *error.args) if _is_error(one)), None):
        error = inner
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    text = re.sub(r"^<[^>]*>: |^HTTPS?Connection\w*\([^)]*\): ", "", text)
    return text or type(error).__name__


def _is_error(value: Any) -> TypeGuard[BaseException]:
    return isinstance(value, BaseException)
